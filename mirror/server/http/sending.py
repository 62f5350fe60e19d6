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
from contextlib import suppress
from typing import Self

from ...sockets.threads import Job, SocketThread
from ...sockets.tls import CHUNK, TlsSocket

SLICE = 4 << 20
"""Bytes that one socket may take before the next has its turn: as many as Linux lets a socket hold.
In smaller parts, client and server have a way to and fro for each, and use a third more CPU."""

_TLS_SLICE = 1 << 20  # bytes: of these each is a millisecond's work

_NICER = 5
"""What a sender thread gives way to the loop by: an answer that takes 20 µs would else wait while a
thread sends for milliseconds. More would have it give way to other programs, too: control groups,
and sessions, get less of a core on which only such a thread runs."""

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
        for thread in self._threads:
            thread.join()
            thread.release()

    def limit(self, window: float) -> None:
        """Also for what is under way."""
        for thread in self._threads:
            thread.limit(window)

    def transfer(self, socket: int, file: int, tls: TlsSocket | None = None) -> Transfer:
        """A way for spans of `file` to `socket`, which may speak `tls`. Both descriptors stay the
        caller's, who may close them at any time: what is used is their duplicates. Raises OSError
        when there are none."""
        thread = min(self._threads, key=lambda thread: thread.jobs)
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
        thread.jobs += 1

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
            self.close()
            # The client may have the last bytes, and be gone, before the thread has counted them.
            await asyncio.wait([span.ended], timeout=_LAST_WORD)
            raise
        span.ended.result()

    def close(self) -> None:
        """Ends what is under way. The thread closes the descriptors, since it may be using them."""
        if not self._closed:
            self._closed = True
            self._thread.jobs -= 1
            span, socket, file = self._span, self._socket, self._file
            self._thread.post(lambda: self._thread.drop(span, socket, file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Span(Job):
    """Bytes of a file on their way to a socket: `offset` is the next, moved by the thread alone."""

    __slots__ = ("file", "mark", "offset", "start", "stop")

    def __init__(
        self, socket: int, file: int, tls: TlsSocket | None, start: int, stop: int
    ) -> None:
        super().__init__(socket, tls)
        self.file = file
        self.start = self.offset = start
        self.stop = stop
        self.mark = start  # the offset at the beginning of this window, which was at `since`


class _SenderThread(SocketThread[_Span]):
    def __init__(self, window: float, least: int) -> None:
        super().__init__("sender", select.EPOLLOUT, 1.0)
        self.limit(window)
        self._least = least
        self._buffer = bytearray(CHUNK)  # what is being encrypted

    def _run(self) -> None:
        thread = threading.get_native_id()
        with suppress(OSError):  # where it is forbidden, all are alike
            mine = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, mine + _NICER)
        super()._run()

    def limit(self, window: float) -> None:
        """Called on the loop."""
        self._window = window
        self._tick = min(1.0, window / 4)

    def drop(self, span: _Span | None, socket: int, file: int) -> None:
        if span is not None and not span.over:
            span.report(ClientLeft("the transfer was closed"))
        self._forget(socket)
        for descriptor in (socket, file):
            with suppress(OSError):  # it is closed all the same, and was only read from
                os.close(descriptor)

    def _cut(self, span: _Span) -> None:
        span.report(ClientLeft("the server is stopping"))

    def _advance(self, span: _Span) -> None:
        slice_ = SLICE if span.tls is None else _TLS_SLICE
        wanted = min(slice_, span.stop - span.offset)
        try:
            count = _send(span, wanted, self._buffer)
            if count == 0:
                fault = f"the file ends at {span.offset}, before {span.stop}"
                span.report(FileFault(fault))
                return
            span.offset += count or 0
            if span.offset == span.stop:
                span.report(None)
            elif count == wanted:
                self._ready.append(span)
            else:
                self._wait(span)
        except OSError as error:
            left = error.errno in _CLIENT_LEFT
            span.report(ClientLeft(str(error)) if left else FileFault(str(error)))

    def _give_up(self, now: float) -> None:
        for span in list(self._waiting.values()):
            if now - span.since < self._window:
                continue
            taken = span.offset - span.mark
            if taken < self._least:
                del self._waiting[span.socket]
                span.report(ClientSlow(f"{taken} bytes taken in {self._window:g} s"))
            span.mark, span.since = span.offset, now


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
