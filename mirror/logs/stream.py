"""The log's way to standard error: it never holds up or fails what is told.

Whoever reads standard error may stop doing so (its pipe is full), and the disk behind it may fill
up. Written from the event loop, a line would then hold up every pull, or end one with an error that
is none of its own. So lines are queued, and a thread writes them. What the queue does not take, and
what cannot be written, is dropped and counted.
"""

from __future__ import annotations

import io
import json
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

_MOST = 1 << 20  # characters that wait: some 3,000 lines
# Seconds between two writes. Each wakes a thread and takes Python's lock from the event loop: a
# hundred a second are not felt, one a request would be.
_PAUSE = 0.01
_AT_EXIT = 2.0  # seconds that the last lines have to be written
_RETRY = 1.0  # seconds until what could not be done (start the thread, write) is tried again
_PIECE = 64 << 10  # bytes written to a file at once


class LogStream(io.TextIOBase):
    """A text stream onto a descriptor. Writing to it returns at once, from any thread, and raises
    nothing; lines keep their order.

    `most` is how many characters wait to be written, and as many again may be under way.
    `patience` is how many seconds the last lines have to be written, in all.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int, most: int = _MOST, patience: float = _AT_EXIT) -> None:
        self._descriptor = descriptor
        self._most = most
        self._patience = patience  # what is left of it
        # Lines of several processes stay whole in a file, which is locked for a write, and in a
        # pipe if they are written in pieces of PIPE_BUF at most (pipe(7)).
        self._piece = _PIECE if _is_file(descriptor) else select.PIPE_BUF
        # Reentrant: the garbage collector may log, in the middle of `write`.
        self._lock = threading.RLock()
        self._texts: list[str] = []
        self._size = 0
        self._full = 0  # lines dropped since the thread last looked, as there was no room
        self._dropped = 0
        self._sleeps = True  # the thread has nothing to do, and waits for the bell
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._retry_at = 0.0
        self._torn = False  # what was written last ends within a line
        self.dropped_line: Callable[[int], bytes] = dropped_line

    @property
    def dropped(self) -> int:
        """Lines that were not written, and will not be."""
        return self._dropped

    def write(self, text: str) -> int:
        with self._lock:
            if self._size + len(text) > self._most:
                self._full += text.count("\n")
                self._dropped += text.count("\n")
            else:
                self._texts.append(text)
                self._size += len(text)
            if self._thread is None:
                self._start()
            elif self._sleeps:
                self._sleeps = False
                self._bell.put(None)
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def drain(self) -> None:
        """Waits until all is written, but with patience: also when called again."""
        began = time.monotonic()
        deadline = began + self._patience
        if self._thread is None and self._texts:
            self._write_here(deadline)
        while (self._texts or not self._sleeps) and time.monotonic() < deadline:
            time.sleep(_PAUSE / 2)
        self._patience -= time.monotonic() - began

    def _write_here(self, deadline: float) -> None:
        """Writes what waits for a thread that could not be started, while that does not block."""
        texts, self._texts, self._size = self._texts, [], 0
        for piece in _pieces(_encoded(texts), select.PIPE_BUF):
            if not self._is_writable(max(0.0, deadline - time.monotonic())):
                return
            self._write(piece)

    def _is_writable(self, within: float) -> bool:
        """Whether it takes PIPE_BUF bytes, or says at once why not."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(within * 1000))

    def _start(self) -> None:
        """Where no thread can be started now, lines wait in the queue for one that can."""
        now = time.monotonic()
        if now < self._retry_at:
            return
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._retry_at = now + _RETRY
        else:
            self._thread = thread

    # What follows is the thread's.

    def _run(self) -> None:
        untold = 0  # lines dropped
        while True:
            with self._lock:
                texts, self._texts, self._size = self._texts, [], 0
                untold += self._full
                self._full = 0
                self._sleeps = not texts
            if texts:
                lost = self._write(_encoded(texts))
                with self._lock:
                    self._dropped += lost
                untold += lost
                if untold and not lost and self._write(self.dropped_line(untold)) == 0:
                    untold = 0
                time.sleep(_PAUSE)
            else:
                self._bell.get()

    def _write(self, data: bytes) -> int:
        """How many lines of it could not be written."""
        lost = 0
        for piece in _pieces(data, self._piece):
            whole = b"\n" + piece if self._torn else piece
            left = self._write_piece(whole)
            if len(left) < len(whole):
                self._torn = not whole[: len(whole) - len(left)].endswith(b"\n")
            lost += min(left.count(b"\n"), piece.count(b"\n"))
        return lost

    def _write_piece(self, data: bytes) -> bytes:
        """What of it could not be written."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process made the descriptor non-blocking
                self._is_writable(_RETRY)
            except OSError:
                break
        return data


def _encoded(texts: list[str]) -> bytes:
    return "".join(texts).encode(errors="backslashreplace")


def _pieces(data: bytes, most: int) -> Iterator[bytes]:
    """Whole lines, as many as fit into `most` bytes, and one at least."""
    begin = 0
    while begin < len(data):
        end = len(data)
        if end - begin > most:
            end = data.rfind(b"\n", begin, begin + most) + 1 or data.find(b"\n", begin) + 1 or end
        yield data[begin:end]
        begin = end


def dropped_line(lines: int) -> bytes:
    stamp = time.strftime("%FT%T", time.gmtime())
    return (
        json.dumps(
            {
                "lines": lines,
                "event": "log_lines_dropped",
                "level": "warning",
                "timestamp": f"{stamp}.000000Z",
            }
        ).encode()
        + b"\n"
    )


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False
