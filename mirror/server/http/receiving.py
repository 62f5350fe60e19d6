"""Sockets to whoever takes their bytes, off the event loop.

What sending.py is for answers, this is for large bodies of requests: once the head is read, a
`Reception` hands the socket to a receiver thread, which receives a piece, gives it to `take` (that
writes and hashes it; both release the interpreter's lock) and goes on with the next socket when one
is empty. So a body of gigabytes costs the loop nothing, and a slow client holds up no thread.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable

from ...oci.errors import Interrupted
from ...sockets.threads import Job, SocketThread, SocketThreads
from ...sockets.tls import TlsSocket
from ...threads import aside

PIECE = 256 << 10
"""Bytes that are received at a time: what was received is in the processor's cache when it is
written, and hashed."""

_TURN = 4  # pieces that one socket may have taken before the next has its turn
_TICK = 0.5  # seconds between two looks for clients that are silent

Take = Callable[[bytes | memoryview], None]


class Receiver:
    """A few threads that receive bodies, begun with the first.

    A client that sends nothing for its patience is given up (Interrupted).
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._threads = SocketThreads(_ReceiverThread, threads)
        self._closed = False

    async def close(self) -> None:
        """Ends the threads, and every body under way with Interrupted. The loop runs meanwhile: a
        thread may wait for it."""
        self._closed = True
        for thread in self._threads.all:
            thread.stop()
        await asyncio.gather(*(aside(thread.join) for thread in self._threads.all))
        for thread in self._threads.all:
            thread.release()

    async def receive(
        self, client: int, tls: TlsSocket | None, count: int, take: Take, patience: float
    ) -> None:
        """Gives the next `count` bytes that come from the socket `client`, which nobody else reads
        from, to `take`, in pieces that are good until it returns. The client may send nothing for
        `patience` seconds. The caller may close the descriptor at any time: what is used is its
        duplicate.

        Raises Interrupted, and what `take` raises. When it raises, nothing more is taken, but for
        a piece that is just being: cancelled, it does not wait for that one. Raises OSError when
        there is no descriptor, RuntimeError when no thread can be started.
        """
        if self._closed:
            raise Interrupted("the server is stopping")
        thread = self._threads.least_busy()
        reception = _Reception(os.dup(client), tls, count, take, patience)
        thread.jobs += 1
        thread.post(lambda: thread.begin(reception))
        try:
            await asyncio.wait([reception.ended])
            reception.ended.result()
        finally:
            thread.jobs -= 1
            reception.over = True
            thread.post(lambda: thread.drop(reception))


class _Reception(Job):
    """A body on its way: `left` bytes are to come."""

    __slots__ = ("left", "patience", "take")

    def __init__(
        self, socket: int, tls: TlsSocket | None, count: int, take: Take, patience: float
    ) -> None:
        super().__init__(socket, tls)
        self.left = count
        self.take = take
        self.patience = patience

    def receive(self, buffer: memoryview) -> int | None:
        """Bytes that came into `buffer`; 0 at the client's end, None when there are none now."""
        wanted = buffer[: min(self.left, len(buffer))]
        try:
            if self.tls is not None:
                return self.tls.recv_into(wanted)
            return os.readv(self.socket, [wanted])
        except BlockingIOError:
            return None


class _ReceiverThread(SocketThread[_Reception]):
    def __init__(self) -> None:
        super().__init__("receiver", select.EPOLLIN, _TICK)
        self._buffer = memoryview(bytearray(PIECE))

    def drop(self, reception: _Reception) -> None:
        self._forget(reception.socket)
        os.close(reception.socket)

    def _cut(self, reception: _Reception) -> None:
        reception.report(Interrupted("the server is stopping"))

    def _advance(self, reception: _Reception) -> None:
        try:
            for _ in range(_TURN):
                count = reception.receive(self._buffer)
                if count is None:
                    reception.since = time.monotonic()
                    self._wait(reception)
                    return
                if count == 0:
                    reception.report(Interrupted(f"the body ended {reception.left} bytes early"))
                    return
                reception.take(self._buffer[:count])
                reception.left -= count
                if not reception.left:
                    reception.report(None)
                    return
                if reception.over:
                    return
        except ConnectionError as error:
            reception.report(Interrupted(f"the client left: {error.strerror}"))
        except BaseException as error:  # of `take`: it is its caller's
            reception.report(error)
        else:
            self._ready.append(reception)

    def _give_up(self, now: float) -> None:
        for reception in list(self._waiting.values()):
            if now - reception.since > reception.patience:
                del self._waiting[reception.socket]
                reception.report(Interrupted(f"nothing was sent for {reception.patience:g} s"))
