"""Files to sockets, off the event loop.

The loop answers; it does not carry gigabytes. Once a response's head is on the wire, a `Transfer`
hands spans of a file to a sender thread, which calls sendfile (no copy, and the interpreter's lock
is released), or encrypts where TLS is spoken, and goes on with the next socket when one is full. So
a small answer never waits behind a big one, and a slow client costs two descriptors and nothing
else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from .tls_sockets import CHUNK, TlsSocket

SLICE = 1 << 20
"""Bytes that one socket may take before the next has its turn."""

_LAST_SLICE = 5.0  # seconds to wait for it when stopping
_LAST_WORD = 0.5  # seconds to wait for a thread, which a dead disk may hold up, to say what it sent

_CLIENT_LEFT = frozenset(
    {
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    }
)


class ClientLeft(ConnectionError):
    """The client closed its connection, or its network is gone: nobody's failure here."""


class ClientSlow(ClientLeft):
    """The client took less than the minimum for a whole window, and is not waited for."""


class FileFault(Exception):
    """The file could not be read, or ended before its time: the disk's fault, not the client's."""


class Sender:
    """A few threads that send files.

    A client that takes fewer than `least` bytes within `window` seconds, while there are bytes for
    it, is given up (ClientSlow); so a stuck one holds its place for one window at most.
    """

    def __init__(self, *, threads: int = 2, window: float = 60.0, least: int = 64 << 10) -> None:
        self._threads = [_SenderThread(window, least) for _ in range(threads)]

    def start(self) -> None:
        """Raises RuntimeError when a thread cannot be started."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads, and every span under way with ClientLeft."""
        for thread in self._threads:
            thread.stop()

    def limit(self, window: float) -> None:
        """Also for what is under way."""
        for thread in self._threads:
            thread.limit(window)

    def transfer(self, socket: int, file: int, tls: TlsSocket | None = None) -> Transfer:
        """A way for spans of `file` to `socket`, which may speak `tls`. Both descriptors stay the
        caller's, who may close them at any time: what is used is their duplicates. Raises OSError
        when there are none."""
        thread = min(self._threads, key=lambda thread: thread.transfers)
        return Transfer(thread, socket, file, tls)


class Transfer:
    """One response's body. Owns its two descriptors; close it, or use it as a context manager."""

    def __init__(
        self, thread: _SenderThread, socket: int, file: int, tls: TlsSocket | None
    ) -> None:
        self._thread = thread
        self._tls = tls
        self._span: _Span | None = None
        self._before = 0
        self._closed = False
        self._socket = os.dup(socket)
        try:
            self._file = os.dup(file)
        except OSError:
            os.close(self._socket)
            raise
        thread.transfers += 1

    @property
    def sent(self) -> int:
        """Bytes that the kernel has taken for the client, up to this moment."""
        return self._before + (self._span.offset - self._span.start if self._span else 0)

    async def send(self, start: int, stop: int) -> None:
        """Sends bytes from `start` up to `stop`, and returns when the kernel has them all.

        One at a time. Raises ClientLeft, ClientSlow or FileFault. Cancelled, as the client has left
        or the mirror stops, it closes the transfer, and `sent` is final when it raises.
        """
        self._before = self.sent
        self._span = span = _Span(self._socket, self._file, self._tls, start, stop)
        self._thread.post(lambda: self._thread.begin(span))
        try:
            await asyncio.wait([span.ended])
        except asyncio.CancelledError:
            span.ended.add_done_callback(_taken_as_seen)
            self.close()
            # The client may have the last bytes, and be gone, before the thread has counted them.
            await asyncio.wait([span.ended], timeout=_LAST_WORD)
            raise
        span.ended.result()

    def close(self) -> None:
        """Ends what is under way. The thread closes the descriptors, since it may be using them."""
        if not self._closed:
            self._closed = True
            self._thread.transfers -= 1
            span, socket, file = self._span, self._socket, self._file
            self._thread.post(lambda: self._thread.drop(span, socket, file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _taken_as_seen(ended: asyncio.Future[None]) -> None:
    """Whoever waited for it has been cancelled: how it ended is no error that nobody has seen."""
    if not ended.cancelled():
        ended.exception()


class _Span:
    """Bytes of a file on their way to a socket: `offset` is the next, moved by the thread alone."""

    __slots__ = ("_loop", "ended", "file", "mark", "offset", "over", "since", "socket", "start",
                 "stop", "tls")  # fmt: skip

    def __init__(
        self, socket: int, file: int, tls: TlsSocket | None, start: int, stop: int
    ) -> None:
        self.socket = socket
        self.file = file
        self.tls = tls
        self.start = self.offset = start
        self.stop = stop
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.over = False
        self.mark = start  # the offset at the beginning of this window, and when that was
        self.since = time.monotonic()

    def report(self, error: Exception | None) -> None:
        """From the thread to the loop."""
        with suppress(RuntimeError):  # the loop is closed, and whoever waited is gone with it
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


class _SenderThread:
    """One sender thread. What is not said to be the loop's is touched by this thread alone."""

    def __init__(self, window: float, least: int) -> None:
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self.limit(window)
        self._least = least
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._known: set[int] = set()  # sockets that epoll has
        self._waiting: dict[int, _Span] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._ready: deque[_Span] = deque()
        self._buffer = bytearray(CHUNK)  # what is being encrypted
        self._checked = 0.0
        self._stopping = False
        self.transfers = 0  # the loop's
        self._ended = False  # the loop's

    # Called on the loop.

    def limit(self, window: float) -> None:
        self._window = window
        self._tick = min(1.0, window / 4)

    def start(self) -> None:
        self._thread.start()

    def post(self, command: Callable[[], None]) -> None:
        if self._ended:
            command()  # there is no thread any more that could be using the descriptors
            return
        self._inbox.append(command)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        if self._ended:
            return
        if self._thread.is_alive():
            self.post(self._quit)
            self._thread.join(_LAST_SLICE)
            if self._thread.is_alive():
                return  # stuck in a read of a dead disk: it may use its descriptors for ever
        self._ended = True
        while self._inbox:  # nobody started it
            self._inbox.popleft()()
        self._known.clear()
        self._epoll.close()
        os.close(self._wake)

    # Called on this thread.

    def begin(self, span: _Span) -> None:
        if self._ended:
            span.over = True
            span.report(ClientLeft("the server is stopping"))
        else:
            self._ready.append(span)

    def drop(self, span: _Span | None, socket: int, file: int) -> None:
        if span is not None and not span.over:
            self._end(span, ClientLeft("the transfer was closed"))
        if socket in self._known:
            self._known.discard(socket)
            self._epoll.unregister(socket)
        for descriptor in (socket, file):
            with suppress(OSError):  # it is closed all the same, and was only read from
                os.close(descriptor)

    def _run(self) -> None:
        while not self._stopping:
            for socket, _ in self._epoll.poll(self._pause()):
                if socket == self._wake:
                    os.eventfd_read(self._wake)
                elif (span := self._waiting.pop(socket, None)) is not None:
                    self._ready.append(span)
            while self._inbox:
                self._inbox.popleft()()
            for _ in range(len(self._ready)):
                span = self._ready.popleft()
                if not span.over:
                    self._advance(span)
            self._give_up_slow()
        for span in [*self._ready, *self._waiting.values()]:
            if not span.over:
                self._end(span, ClientLeft("the server is stopping"))

    def _pause(self) -> float | None:
        if self._ready or self._stopping:
            return 0
        return self._tick if self._waiting else None

    def _advance(self, span: _Span) -> None:
        wanted = min(SLICE, span.stop - span.offset)
        try:
            count = _send(span, wanted, self._buffer)
            if count == 0:
                self._end(span, FileFault(f"the file ends at {span.offset}, before {span.stop}"))
                return
            span.offset += count or 0
            if span.offset == span.stop:
                self._end(span, None)
            elif count == wanted:
                self._ready.append(span)
            else:
                self._wait(span)
        except OSError as error:
            left = error.errno in _CLIENT_LEFT
            self._end(span, ClientLeft(str(error)) if left else FileFault(str(error)))

    def _wait(self, span: _Span) -> None:
        self._waiting[span.socket] = span
        # Once for each wait: unlike an edge, it cannot be missed; and it is one call, where
        # registering anew and unregistering each time cost more than the sending did.
        if span.socket in self._known:
            self._epoll.modify(span.socket, select.EPOLLOUT | select.EPOLLONESHOT)
        else:
            self._epoll.register(span.socket, select.EPOLLOUT | select.EPOLLONESHOT)
            self._known.add(span.socket)

    def _give_up_slow(self) -> None:
        now = time.monotonic()
        if now - self._checked < self._tick:
            return
        self._checked = now
        for span in list(self._waiting.values()):
            if now - span.since < self._window:
                continue
            taken = span.offset - span.mark
            if taken < self._least:
                self._end(span, ClientSlow(f"{taken} bytes taken in {self._window:g} s"))
            span.mark, span.since = span.offset, now

    def _end(self, span: _Span, error: Exception | None) -> None:
        self._waiting.pop(span.socket, None)
        span.over = True
        span.report(error)

    def _quit(self) -> None:
        self._stopping = True


def _send(span: _Span, count: int, buffer: bytearray) -> int | None:
    """Bytes that the socket took, by way of `buffer` where TLS is spoken; 0 where the file ends,
    None when the socket is full."""
    if span.tls is not None:
        return _encrypt(span, span.tls, count, buffer)
    try:
        return os.sendfile(span.socket, span.file, span.offset, count)
    except BlockingIOError:
        return None


def _encrypt(span: _Span, tls: TlsSocket, count: int, buffer: bytearray) -> int | None:
    sent = 0
    while sent < count:
        piece = tls.send_file(span.file, span.offset + sent, span.stop, buffer)
        if not piece:
            return sent or piece
        sent += piece
    return sent
