"""A process that forks workers. It is forked itself, of their parent, as soon as that has imported
all that serves: so that this is in memory once for all of them. It opens nothing and starts no
thread, of which a fork would carry half a state; it only forks, and tells who has ended.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from ...logs import forget_stream
from ...server.http.accepting import Port
from .child import FOR_THE_PARENT, live
from .line import Numbered

log = structlog.get_logger()

_HELD = (*FOR_THE_PARENT, signal.SIGTERM)
"""Signals that do not end it: it ends with its line to the parent."""

_FORKS = 10.0  # seconds that a fork may take
_MOST = 4096  # bytes of a message
_MOST_FILES = 250  # descriptors that one message may carry


@dataclass(eq=False)
class Born:
    """A worker's process. `exitcode`: None while it lives; below zero, the signal that ended it."""

    pid: int
    exitcode: int | None = None

    def is_alive(self) -> bool:
        """As it was when the cradle was last heard."""
        return self.exitcode is None

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):  # it is told of in a moment
                os.kill(self.pid, number)


class Cradle:
    """The parent's end of the line to it. Where it has been killed, its workers are too, and others
    are forked of a new one, which has to import everything itself."""

    def __init__(self, begun: tuple[socket.socket, int]) -> None:
        """`begun`: by `forked` or `spawned`."""
        self._alive: dict[int, Born] = {}
        self._asked = 0
        self._line, self._pid = begun

    def fork(self, given: Numbered, line: socket.socket, ports: Sequence[Port]) -> Born:
        """A worker that serves on these ports. Raises OSError."""
        self.look()
        if self._line.fileno() < 0:
            self._line, self._pid = spawned()
        self._asked += 1
        # In memory: it holds secrets, and is longer than a message may be.
        with open(os.memfd_create("given", os.MFD_CLOEXEC), "w+b") as file:
            pickle.dump((given, [(port.tls, port.section) for port in ports]), file)
            file.flush()
            files = [file.fileno(), line.fileno(), *(port.socket.fileno() for port in ports)]
            socket.send_fds(self._line, [str(self._asked).encode()], files)
        while True:
            self._line.settimeout(_FORKS)
            try:
                told = self._line.recv(_MOST)
            finally:
                self._line.setblocking(False)
            if not told:
                self._lose()
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            said = json.loads(told)
            if said.get("asked") != self._asked:  # of those that were given up nobody has the line
                self._hear(said)
            elif "pid" not in said:
                raise OSError(said["errno"], os.strerror(said["errno"]))
            else:
                born = self._alive[said["pid"]] = Born(said["pid"])
                return born

    def look(self) -> None:
        """Hears who has ended."""
        if self._line.fileno() < 0:  # it has, and nothing was forked since
            return
        with contextlib.suppress(BlockingIOError):
            try:
                while told := self._line.recv(_MOST, socket.MSG_DONTWAIT):
                    self._hear(json.loads(told))
            except ConnectionResetError:  # it was killed before it had read what it was asked
                pass
            self._lose()

    def close(self) -> None:
        """Ends it, but not its workers."""
        self._line.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _hear(self, said: Mapping[str, Any]) -> None:
        born = self._alive.pop(said.get("ended", 0), None)
        if born is not None:
            born.exitcode = said["exitcode"]

    def _lose(self) -> None:
        log.error("workers_lost", pids=sorted(self._alive))
        for born in self._alive.values():
            born.kill()
            born.exitcode = -signal.SIGKILL
        self._alive.clear()
        self.close()


def forked() -> tuple[socket.socket, int]:
    """Our end of the line, and its process id. To be called while there is no thread. In workers it
    does not return, but raises SystemExit when they have ended."""
    ours, theirs = _pair()
    gc.freeze()  # else looking for garbage would copy every page
    with _held_back():
        pid = os.fork()
        if pid == 0:
            _close_all_but(theirs)
            raise SystemExit(_lie(theirs))
    theirs.close()
    return ours, pid


def spawned() -> tuple[socket.socket, int]:
    """The same, of one that imports everything itself."""
    ours, theirs = _pair()
    with theirs:
        code = f"from {__name__} import main; main({theirs.fileno()})"
        with _held_back():
            begun = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()]
            )
    begun.returncode = 0  # whoever closes the cradle waits for it
    return ours, begun.pid


def main(line: int) -> None:
    """Of a process that was begun anew."""
    gc.freeze()
    raise SystemExit(_lie(socket.socket(fileno=line)))


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """A process that is begun within has these signals held back from its first moment on
    (signal(7): the mask is kept by fork and exec, a handler is not)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def _close_all_but(line: socket.socket) -> None:
    """What systemd has passed on is for the parent."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != line.fileno():
            with contextlib.suppress(OSError):
                os.close(int(name))


def _lie(line: socket.socket) -> int:
    """Forks when it is asked to, until the parent has ended. Returns in workers, when they have
    ended, with their exit status."""
    _be_called("cradle")
    bell, rings = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(rings)
    while True:
        ready, _, _ = select.select([line.fileno(), bell], [], [])
        if bell in ready:
            os.read(bell, _MOST)
            for ended in _ended():
                _tell(line, ended)
        if line.fileno() in ready:
            try:
                asked, files, _, _ = socket.recv_fds(line, _MOST, _MOST_FILES)
            except ConnectionResetError:  # the parent was killed before it had read all
                os._exit(0)
            if not asked:
                os._exit(0)
            try:
                pid = os.fork()
            except OSError as error:
                _tell(line, {"asked": int(asked), "errno": error.errno or errno.EAGAIN})
            else:
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for file in (bell, rings):
                        os.close(file)
                    line.close()
                    return _live(files)
                _tell(line, {"asked": int(asked), "pid": pid})
            for file in files:
                os.close(file)


def _live(files: Sequence[int]) -> int:
    _be_called("worker")
    forget_stream()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    file, line, *ports = files
    with open(file, "rb") as written:
        written.seek(0)
        given, kinds = pickle.load(written)  # noqa: S301 - nobody but the parent writes there
    listening = [
        Port(socket.socket(fileno=port), tls, section)
        for port, (tls, section) in zip(ports, kinds, strict=True)
    ]
    live(given, socket.socket(fileno=line), listening)
    return 0


def _ended() -> Sequence[Mapping[str, int]]:
    found = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append({"ended": one[0], "exitcode": os.waitstatus_to_exitcode(one[1])})
    return found


def _tell(line: socket.socket, said: Mapping[str, int]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `recv` tells of it
        line.send(json.dumps(said).encode())


def _be_called(name: str) -> None:
    """As `ps` and `top` show it (proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)
