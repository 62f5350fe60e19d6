"""The rest of a big body, straight from the connection into memory of our own.

aiohttp's way of a byte (a parser that copies it, a reader that joins the copies) costs half as much
as its hash, and asyncio's TLS as much as its hash, both on the event loop. What is left of a body
whose length is known needs neither: a thread receives it, and the connection is aiohttp's again
after the last byte.
"""

from __future__ import annotations

import asyncio
from typing import Self

import aiohttp
from aiohttp import hdrs

from ..endpoint import KIB
from .connecting import Connection
from .receiving import Reception, receiver_thread

WORTH = 256 * KIB
"""Bytes left of a body, below which aiohttp's way is as good."""

_NOTHING = memoryview(b"")


class Receiver(asyncio.Protocol):
    """Takes the last `left` bytes of a response's body from its connection."""

    @classmethod
    def take_over(cls, response: aiohttp.ClientResponse, came: int) -> Self | None:
        """Goes on after the `came` bytes that were read; None where it is not worth it, or must
        not be: aiohttp has received more, or only it can tell where the body ends, or asyncio
        decrypts it (TLS within that of a proxy)."""
        length, carrier = response.content_length, response.connection
        if length is None or length - came < WORTH or hdrs.TRANSFER_ENCODING in response.headers:
            return None
        if carrier is None or response.content.total_bytes != came:
            return None
        connection = carrier.protocol
        if not isinstance(connection, Connection) or not connection.is_connected():
            return None
        if carrier.transport is None or carrier.transport.get_extra_info("sslcontext"):
            return None  # asyncio's TLS: what is on the socket is not the body yet
        try:
            return cls(response, connection, length - came)
        except (OSError, RuntimeError):  # no descriptor, no thread
            return None

    def __init__(self, response: aiohttp.ClientResponse, connection: Connection, left: int) -> None:
        """Raises OSError, RuntimeError."""
        transport = connection.transport
        assert transport is not None  # noqa: S101 - it is connected
        self._response = response
        self._theirs = connection
        self._transport = transport
        self._thread = receiver_thread()
        self._reception = Reception(
            transport.get_extra_info("socket").fileno(),
            connection.tls,
            left,
            self._wake,
            self._ended,
        )
        self._has_begun = self._has_ended = False
        self._is_whole = self._is_broken = False
        self._cause = ""  # of the break; the error itself would keep its frames, and their memory
        self._waiter: asyncio.Future[None] | None = None
        self._thread.jobs += 1
        transport.pause_reading()
        transport.set_protocol(self)

    async def read(self) -> memoryview:
        """What has come since the last time; nothing at the end. Let go of it soon: its memory is
        used again.

        Raises ConnectionError when the connection broke, after all that it had brought.
        """
        while not (piece := self.read_nowait()) and not self._is_whole:
            if self._is_broken:
                raise ConnectionResetError(f"in the middle of a body: {self._cause}")
            self._begin()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return piece

    def read_nowait(self) -> memoryview:
        """What has come by now."""
        piece = self._reception.take()
        if piece is None:
            return _NOTHING
        if self._reception.parked:
            self._thread.go_on(self._reception)
        return piece

    def close(self) -> None:
        """Lets go of the memory soon: errors and tasks that have read here may keep this object
        until the garbage is collected, which may be after hundreds of bodies."""
        self._end()
        self._reception.close()

    # Called by the transport.

    def connection_lost(self, exc: Exception | None) -> None:
        """Also when the response was released before its end."""
        self._break(exc)
        self._theirs.connection_lost(exc)

    # Inside.

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._thread.post(lambda: self._thread.begin(self._reception))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ended(self, error: BaseException | None) -> None:
        """The thread has done its part."""
        if self._is_broken:
            return
        if error is not None:
            self._break(error)
            self._transport.abort()
        else:
            self._is_whole = True
            self._end()
            self._give_back()
        self._wake()

    def _break(self, cause: BaseException | None) -> None:
        if not (self._is_whole or self._is_broken):
            self._is_broken, self._cause = True, str(cause or "the connection was closed")
            self._end()
            self._wake()

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._thread.jobs -= 1
            self._thread.end(self._reception)

    def _give_back(self) -> None:
        """The body is whole: what the connection brings next is another answer."""
        if self._reception.has_more:  # it belongs to none
            self._theirs.force_close()
        self._transport.set_protocol(self._theirs)
        self._response.content.feed_eof()  # which lets the response go, and keeps the connection
        self._transport.resume_reading()
