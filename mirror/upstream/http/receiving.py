"""Threads that receive what comes from upstreams, each from several connections by turns.

They decrypt where TLS is spoken, and give the event loop whole pieces: a body of gigabytes costs it
little, and one that stalls holds up no thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ...sockets.threads import Job, SocketThread, SocketThreads
from ...sockets.tls import TlsSocket
from ..endpoint import KIB, MIB
from . import buffers

# Bytes that wait to be read, for one body, and for all of a thread as long as that leaves each the
# least; what comes meanwhile stays in the kernel. The loop is told when half of them are there, or
# nothing more is for now: each time costs it some turns, and these take the lock of the interpreter
# from who decrypts.
_MOST = 4 * MIB
_LEAST = MIB
_TOGETHER = 32 * MIB

# To receive a whole MiB takes as long as all the loop's turns that a first byte needs on its way
# out. While it may be on it, less is taken at a time.
_SLICE = 64 * KIB
_IN_SLICES = 3 * _SLICE

# A link that is slower than the machine brings crumbs, each of which would cost a way through the
# loop. After the first MiB, for which a client may wait, they gather for _GATHER seconds.
_AT_ONCE = MIB
_CRUMB = 256 * KIB
_GATHER = 0.003

_TICK = 3600.0  # seconds; nobody is given up here


class Reception(Job):
    """The next `left` bytes that come from a socket, of which this has a duplicate. The loop is
    told by `arrived` that there are `pieces`, which it takes by `take`, and by `ended` how it went.
    """

    __slots__ = (
        "_arrived",
        "_ended",
        "_filled",
        "_given",
        "_is_closed",
        "_passed",
        "_taken",
        "_told",
        "buffer",
        "came",
        "has_more",
        "left",
        "parked",
        "pieces",
    )

    def __init__(
        self,
        socket: int,
        tls: TlsSocket | None,
        left: int,
        arrived: Callable[[], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(os.dup(socket), tls)
        self.left = left
        self.came = 0
        self.has_more = False  # came behind the last byte, together with it
        self.pieces: deque[memoryview] = deque()
        self.parked = False  # as too much waits to be taken
        self.buffer: memoryview | None = None
        self._passed = self._filled = 0  # in the buffer
        self._given = 0  # bytes; the thread's
        self._taken = 0  # bytes; the loop's
        self._is_closed = False
        self._told = False  # the loop will look at the pieces
        self._arrived = arrived
        self._ended = ended

    # Called on the loop.

    def take(self) -> memoryview | None:
        """The next piece, if there is one."""
        if not self.pieces:
            return None
        piece = self.pieces.popleft()
        self._taken += len(piece)
        return piece

    def close(self) -> None:
        """Nobody takes any more."""
        self._is_closed = True  # first: what the thread is just about to give
        self.pieces.clear()

    def _look(self) -> None:
        self._told = False  # first: what comes from now on tells again
        self._arrived()

    def _settle(self, error: BaseException | None) -> None:
        self._ended(error)

    # Called on the thread.

    @property
    def ahead(self) -> int:
        """Bytes that were not taken yet."""
        return self._given - self._taken

    def receive(self) -> tuple[int, int]:
        """Bytes that came, of those that there was room for. Raises BlockingIOError when there are
        none now, OSError."""
        if self.buffer is None:
            self.buffer, self._passed, self._filled = buffers.lend(), 0, 0
        most = min(self.left, _SLICE if self.came < _IN_SLICES else buffers.SIZE)
        wanted = self.buffer[self._filled : self._filled + most]
        if self.tls is not None:
            count = self.tls.recv_into(wanted)
        else:
            count = os.readv(self.socket, [wanted])
        self._filled += count
        self.left -= count
        self.came += count
        return count, len(wanted)

    def give(self) -> None:
        """To the loop, all that has come. It has to be told."""
        if self.buffer is None or self._filled == self._passed:
            return
        piece = self.buffer[self._passed : self._filled]
        self._passed = self._filled
        if self._filled == buffers.SIZE:
            self.buffer = None
        self._given += len(piece)
        self.pieces.append(piece)
        if self._is_closed:
            self.pieces.clear()

    def tell(self) -> None:
        if self.pieces and not self._told:
            self._told = True
            with suppress(RuntimeError):  # the loop is closed, and whoever waited is gone with it
                self._loop.call_soon_threadsafe(self._look)


class ReceiverThread(SocketThread[Reception]):
    def __init__(self) -> None:
        super().__init__("upstream", select.EPOLLIN, _TICK)

    # Called on the loop.

    def go_on(self, reception: Reception) -> None:
        """Where it was parked."""
        self.post(lambda: self._unpark(reception))

    def end(self, reception: Reception) -> None:
        """Nothing more is received; its memory and its descriptor are let go of."""
        reception.over = True
        self.post(lambda: self._drop(reception))

    # Called on this thread.

    def _unpark(self, reception: Reception) -> None:
        if reception.parked:
            reception.parked = False
            self._ready.append(reception)

    def _drop(self, reception: Reception) -> None:
        reception.buffer = None
        if reception.socket >= 0:
            self._forget(reception.socket)
            os.close(reception.socket)
            reception.socket = -1

    def _finish(self, reception: Reception, error: BaseException | None) -> None:
        reception.give()
        self._drop(reception)
        reception.report(error)

    def _cut(self, reception: Reception) -> None:
        self._finish(reception, ConnectionAbortedError(errno.ECONNABORTED, "nobody receives it"))

    def _advance(self, reception: Reception) -> None:
        most = max(_LEAST, min(_MOST, _TOGETHER // max(1, self.jobs)))
        if reception.ahead >= most:
            reception.parked = True
            if reception.ahead >= most:  # still: nothing was taken before it was said
                reception.tell()  # there was more room as it came, with fewer bodies
                return
            reception.parked = False
        try:
            count, wanted = reception.receive()
        except BlockingIOError:
            reception.tell()
            try:
                self._wait(reception)
            except OSError as error:  # epoll takes no more sockets: that is this body's alone
                self._finish(reception, error)
        except BaseException as error:  # the caller's, whatever it is
            self._finish(reception, error)
        else:
            if not count:
                self._finish(reception, ConnectionResetError(errno.ECONNRESET, "it was ended"))
            elif not reception.left:
                reception.has_more = reception.tls is not None and reception.tls.has_more()
                self._finish(reception, None)
            else:
                self._came(reception, count, wanted, most)

    def _came(self, reception: Reception, count: int, wanted: int, most: int) -> None:
        reception.give()
        if count < min(wanted, _CRUMB) and reception.came > _AT_ONCE:
            reception.tell()
            self._rest(reception, _GATHER)
            return
        if reception.came <= _AT_ONCE or reception.ahead >= most // 2:
            reception.tell()
        self._ready.append(reception)

    def _give_up(self, now: float) -> None:
        """Who reads the bodies knows how long to wait."""


_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SocketThreads[ReceiverThread]] = (
    weakref.WeakKeyDictionary()
)


def receiver_thread() -> ReceiverThread:
    """One of the few that all connections of this loop share. Raises RuntimeError when none can be
    started."""
    loop = asyncio.get_running_loop()
    threads = _shared.get(loop)
    if threads is None:
        threads = _shared[loop] = SocketThreads(ReceiverThread)
        weakref.finalize(loop, _leave, threads)
    return threads.least_busy()


def _leave(threads: SocketThreads[ReceiverThread]) -> None:
    """They have nothing to do: what a thread does refers to its loop."""
    for thread in threads.all:
        thread.stop()
    for thread in threads.all:
        thread.join()
        thread.release()
