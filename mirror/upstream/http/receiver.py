"""The rest of a big body, straight from the connection into memory of our own.

aiohttp's way of a byte (a parser that copies it, a reader that joins the copies) costs half as much
as its hash. What is left of a body whose length is known needs neither: its connection gets a
protocol of ours, and is aiohttp's again after the last byte.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

import aiohttp
from aiohttp import hdrs

from ..endpoint import KIB, MIB
from . import buffers

WORTH = 256 * KIB
"""Bytes left of a body, below which aiohttp's way is as good."""

_MOST = 2  # full buffers that wait to be read; what comes meanwhile stays in the kernel

# To receive a whole MiB takes as long as all the loop's turns that a first byte needs on its way
# out. While it may be on it, less is taken at a time.
_SLICE = 64 * KIB
_IN_SLICES = 3 * _SLICE

# A link that is slower than the machine brings crumbs, each of which would cost a way through the
# loop. After the first MiB, for which a client may wait, they gather for _GATHER seconds.
_AT_ONCE = MIB
_CRUMB = 256 * KIB
_GATHER = 0.003

_NOTHING = memoryview(b"")
_NOWHERE = memoryview(bytearray(_SLICE))
"""Where bytes go that still come after a receiver was closed."""


class Receiver(asyncio.BufferedProtocol):
    """Takes the last `left` bytes of a response's body from its connection."""

    @classmethod
    def take_over(cls, response: aiohttp.ClientResponse, came: int) -> Self | None:
        """Goes on after the `came` bytes that were read; None where it is not worth it, or must
        not be: aiohttp has received more, or only it can tell where the body ends."""
        length, connection = response.content_length, response.connection
        if length is None or length - came < WORTH or hdrs.TRANSFER_ENCODING in response.headers:
            return None
        if connection is None or response.content.total_bytes != came:
            return None
        transport = connection.transport
        if transport is None or transport.is_closing():
            return None
        return cls(response, transport, length - came)

    def __init__(
        self, response: aiohttp.ClientResponse, transport: asyncio.Transport, left: int
    ) -> None:
        self._response = response
        self._transport = transport
        self._theirs = transport.get_protocol()
        self._left = left
        self._came = 0
        self._full: deque[memoryview] = deque()  # what waits to be read, before ...
        self._buffer = buffers.lend()  # ... this, from `_read` to `_filled`
        self._read = self._filled = 0
        self._is_broken = False
        self._cause: Exception | None = None  # of the break
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._gathering: asyncio.TimerHandle | None = None
        transport.set_protocol(self)
        transport.pause_reading()  # until `read` is called

    async def read(self) -> memoryview:
        """What has come since the last time; nothing at the end. Let go of it soon: its memory is
        used again.

        Raises ConnectionError when the connection broke, after all that it had brought.
        """
        while not (piece := self.read_nowait()) and self._left:
            if self._is_broken:  # an error that was kept would keep its frames, and this memory
                broken = "the connection ended in the middle of a body"
                raise ConnectionResetError(broken) from self._cause
            self._go_on()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return piece

    def read_nowait(self) -> memoryview:
        """What has come by now."""
        if self._full:
            piece = self._full.popleft()
            self._go_on()
            return piece
        if self._read == self._filled:
            return _NOTHING  # an empty view of the buffer would keep it, too
        piece = self._buffer[self._read : self._filled]
        self._read = self._filled
        return piece

    def close(self) -> None:
        """Lets go of the memory at once: errors and tasks that have read here may keep this object
        until the garbage is collected, which may be after hundreds of bodies."""
        self._full.clear()
        self._buffer, self._read, self._filled = _NOWHERE, 0, 0

    # Called by the transport.

    def get_buffer(self, sizehint: int) -> memoryview:
        most = self._left if self._came >= _IN_SLICES else min(self._left, _SLICE)
        return self._buffer[self._filled : self._filled + most]

    def buffer_updated(self, nbytes: int) -> None:
        if self._buffer is _NOWHERE:
            return
        self._filled += nbytes
        self._left -= nbytes
        self._came += nbytes
        if not self._left:
            self._give_back()
        elif self._filled == buffers.SIZE:
            self._full.append(self._buffer[self._read :])
            self._buffer = buffers.lend()
            self._read = self._filled = 0
            if len(self._full) >= _MOST:
                self._transport.pause_reading()
        elif nbytes < _CRUMB and self._came > _AT_ONCE:
            self._transport.pause_reading()
            self._gathering = self._loop.call_later(_GATHER, self._gathered)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_broken, self._cause = True, exc
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._theirs.connection_lost(exc)

    # Inside.

    def _gathered(self) -> None:
        self._gathering = None
        self._go_on()

    def _go_on(self) -> None:
        if self._left and self._gathering is None and len(self._full) < _MOST:
            self._transport.resume_reading()

    def _give_back(self) -> None:
        """The body is whole: what the connection brings next is another answer."""
        self._transport.set_protocol(self._theirs)
        self._response.content.feed_eof()  # which lets the response go, and keeps the connection
