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
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ...oci.errors import Interrupted
from ...threads import aside
from .tls_sockets import TlsSocket

PIECE = 256 << 10
"""Bytes that are received at a time: what was received is in the processor's cache when it is
written, and hashed."""

_TURN = 4  # pieces that one socket may have taken before the next has its turn
_TICK = 0.5  # seconds between two looks for clients that are silent
_LAST_PIECE = 5.0  # seconds to wait for it when stopping

Take = Callable[[bytes | memoryview], None]


class Receiver:
    """A few threads that receive bodies, begun with the first.

    A client that sends nothing for its patience is given up (Interrupted).
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._count = threads or min(4, os.cpu_count() or 1)
        self._threads: list[_ReceiverThread] = []
        self._closed = False

    async def close(self) -> None:
        """Ends the threads, and every body under way with Interrupted. The loop runs meanwhile: a
        thread may wait for it."""
        self._closed = True
        for thread in self._threads:
            thread.stop()
        await asyncio.gather(*(aside(thread.join) for thread in self._threads))
        for thread in self._threads:
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
        thread = self._thread()
        reception = _Reception(os.dup(client), tls, count, take, patience)
        thread.bodies += 1
        thread.post(lambda: thread.begin(reception))
        try:
            await asyncio.wait([reception.ended])
            reception.ended.result()
        finally:
            thread.bodies -= 1
            reception.over = True
            thread.post(lambda: thread.drop(reception))

    def _thread(self) -> _ReceiverThread:
        """The one with the least to do."""
        if self._closed:
            raise Interrupted("the server is stopping")
        least = min(self._threads, key=lambda thread: thread.bodies, default=None)
        if least is None or (least.bodies and len(self._threads) < self._count):
            thread = _ReceiverThread()
            try:
                thread.start()
            except RuntimeError:
                thread.release()
                if least is None:
                    raise
            else:
                self._threads.append(thread)
                return thread
        return least


class _Reception:
    """A body on its way: `left` bytes are to come."""

    __slots__ = ("_loop", "ended", "left", "over", "patience", "since", "socket", "take", "tls")

    def __init__(
        self, socket: int, tls: TlsSocket | None, count: int, take: Take, patience: float
    ) -> None:
        self.socket = socket
        self.tls = tls
        self.left = count
        self.take = take
        self.patience = patience
        self.since = 0.0  # when it was begun to be waited for
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.over = False

    def report(self, error: BaseException | None) -> None:
        """From the thread to the loop."""
        self.over = True
        with suppress(RuntimeError):  # the loop is closed, and whoever waited is gone with it
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
            self.ended.exception()  # whoever waited for it may be cancelled

    def receive(self, buffer: memoryview) -> int | None:
        """Bytes that came into `buffer`; 0 at the client's end, None when there are none now."""
        wanted = buffer[: min(self.left, len(buffer))]
        try:
            if self.tls is not None:
                return self.tls.recv_into(wanted)
            return os.readv(self.socket, [wanted])
        except BlockingIOError:
            return None


class _ReceiverThread:
    """One receiver thread. What is not said to be the loop's is touched by this thread alone."""

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._known: set[int] = set()  # sockets that epoll has
        self._waiting: dict[int, _Reception] = {}
        self._ready: deque[_Reception] = deque()
        self._inbox: deque[Callable[[], None]] = deque()
        self._buffer = memoryview(bytearray(PIECE))
        self._checked = 0.0
        self._stopping = False
        self.bodies = 0  # the loop's
        self._ended = False  # the loop's

    # Called on the loop.

    def start(self) -> None:
        self._thread.start()

    def post(self, command: Callable[[], None]) -> None:
        if self._ended:
            command()  # there is no thread any more that could be using the descriptors
            return
        self._inbox.append(command)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Has the thread end after the piece that is just being taken."""
        if not self._ended:
            self.post(self._quit)

    def release(self) -> None:
        """What it had, once it has ended."""
        if self._ended:
            return
        if self._thread.is_alive():
            return  # stuck in a write to a dead disk: it may use its descriptors for ever
        self._ended = True
        while self._inbox:  # what was posted when it had looked for the last time
            self._inbox.popleft()()
        self._known.clear()
        self._epoll.close()
        os.close(self._wake)

    # Called on any thread but this one, and not on the loop.

    def join(self) -> None:
        self._thread.join(_LAST_PIECE)

    # Called on this thread.

    def begin(self, reception: _Reception) -> None:
        if self._ended:
            reception.report(Interrupted("the server is stopping"))
        else:
            self._ready.append(reception)

    def drop(self, reception: _Reception) -> None:
        self._waiting.pop(reception.socket, None)
        if reception.socket in self._known:
            self._known.discard(reception.socket)
            self._epoll.unregister(reception.socket)
        os.close(reception.socket)

    def _run(self) -> None:
        while not self._stopping:
            for descriptor, _ in self._epoll.poll(self._pause()):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif (reception := self._waiting.pop(descriptor, None)) is not None:
                    self._ready.append(reception)
            while self._inbox:
                self._inbox.popleft()()
            for _ in range(len(self._ready)):
                reception = self._ready.popleft()
                if not reception.over:
                    self._advance(reception)
            self._give_up_silent()
        for reception in [*self._ready, *self._waiting.values()]:
            if not reception.over:
                reception.report(Interrupted("the server is stopping"))

    def _pause(self) -> float | None:
        if self._ready or self._stopping:
            return 0
        return _TICK if self._waiting else None

    def _advance(self, reception: _Reception) -> None:
        try:
            for _ in range(_TURN):
                count = reception.receive(self._buffer)
                if count is None:
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

    def _wait(self, reception: _Reception) -> None:
        self._waiting[reception.socket] = reception
        reception.since = time.monotonic()
        if reception.socket in self._known:
            self._epoll.modify(reception.socket, select.EPOLLIN | select.EPOLLONESHOT)
        else:
            self._epoll.register(reception.socket, select.EPOLLIN | select.EPOLLONESHOT)
            self._known.add(reception.socket)

    def _give_up_silent(self) -> None:
        now = time.monotonic()
        if now - self._checked < _TICK:
            return
        self._checked = now
        for reception in list(self._waiting.values()):
            if now - reception.since > reception.patience:
                del self._waiting[reception.socket]
                reception.report(Interrupted(f"nothing was sent for {reception.patience:g} s"))

    def _quit(self) -> None:
        self._stopping = True
