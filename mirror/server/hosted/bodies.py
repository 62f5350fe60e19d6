"""Bodies of requests, as they come."""

from __future__ import annotations

import asyncio

from aiohttp import ClientPayloadError, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError

from ...contracts.registry import Body
from ...oci.errors import Interrupted, SizeInvalid, TooLarge
from ...threads import aside
from ..http.aiohttp_parts import KeptAlive, ends_connection
from ..http.receiving import Receiver, Take

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BROKEN = (
    ClientPayloadError,
    HttpProcessingError,
    PayloadAccessError,
    RequestPayloadError,
    ConnectionError,
)


# Bytes. A body of more, of which the client has told the size, is received by a thread; the
# connection ends with it. What is chunked goes through aiohttp's parser, a piece of so many at a
# time to a thread.
_LARGE = 2 << 20
_PIECE = 512 << 10


class RequestBody:
    """A Body. `patience`, in seconds: how long the client may send nothing."""

    def __init__(self, request: web.BaseRequest, patience: float, receiver: Receiver) -> None:
        self._request = request
        self._patience = patience
        self._receiver = receiver
        self._is_begun = False

    @property
    def size(self) -> int | None:
        return self._request.content_length

    @property
    def is_empty(self) -> bool:
        """Whether the request says that it has none."""
        return not self._request.body_exists or self.size == 0

    async def read(self) -> bytes:
        try:
            if not self._is_begun:
                self._begin()
            async with asyncio.timeout(self._patience):
                return await self._request.content.readany()
        except TimeoutError:
            raise Interrupted(f"nothing more was sent for {self._patience:g} s") from None
        except BROKEN as error:
            raise Interrupted(f"the body ended before it was whole ({error})") from error

    async def pour(self, take: Take) -> None:
        if not self._is_begun:
            self._begin()
        request = self._request
        if self.size is not None and self.size >= _LARGE and request.transport is not None:
            # What came with the head. Nothing comes meanwhile: this does not wait.
            first = _drained(request)
            left = self.size - len(first)
            if left >= _LARGE:
                await self._receive(request.transport, first, left, take)
                return
            await aside(take, first)
        while piece := await self.read():
            while len(piece) < _PIECE and (more := _drained(request)):
                piece += more
            await aside(take, piece)

    async def _receive(
        self, transport: asyncio.Transport, first: bytes, left: int, take: Take
    ) -> None:
        ends_connection(self._request)
        transport.pause_reading()
        if first:
            await aside(take, first)
        client, protocol = transport.get_extra_info("socket"), self._request.protocol
        tls = protocol.tls if isinstance(protocol, KeptAlive) else None
        if client.fileno() < 0:
            raise Interrupted("the client left")
        await self._receiver.receive(client.fileno(), tls, left, take, self._patience)

    async def whole(self, most: int) -> bytes:
        """All of it. Raises TooLarge for more bytes than `most`, and Interrupted."""
        if self.size is not None and self.size > most:
            raise TooLarge(f"{self.size} bytes: {most} are the most that is taken")
        data = bytearray()
        while piece := await self.read():
            data += piece
            if len(data) > most:
                raise TooLarge(f"more than {most} bytes, which are the most that is taken")
        return bytes(data)

    def _begin(self) -> None:
        """Some clients send a large body only once they are told to (RFC 9110, 10.1.1)."""
        self._is_begun = True
        request = self._request
        expects = request.headers.get(hdrs.EXPECT, "").strip(" \t").lower() == "100-continue"
        if expects and request.version >= HttpVersion11 and request.transport is not None:
            request.transport.write(_CONTINUE)


class AnnouncedBody:
    """A Body that does not say its size, of which the request has announced that it is `size`.
    Raises SizeInvalid where there is more, before what is beyond is taken, or less."""

    def __init__(self, body: Body, size: int) -> None:
        self.size = size
        self._body = body
        self._came = 0

    async def read(self) -> bytes:
        piece = await self._body.read()
        self._count(piece)
        if not piece:
            self._end()
        return piece

    async def pour(self, take: Take) -> None:
        def counted(piece: bytes | memoryview) -> None:
            self._count(piece)
            take(piece)

        await self._body.pour(counted)
        self._end()

    def _count(self, piece: bytes | memoryview) -> None:
        self._came += len(piece)
        if self._came > self.size:
            raise SizeInvalid(f"{self.size} bytes were announced, and there were more")

    def _end(self) -> None:
        if self._came < self.size:
            raise SizeInvalid(f"{self.size} bytes were announced, and there were {self._came}")


def _drained(request: web.BaseRequest) -> bytes:
    """What has come and was not read. Raises Interrupted."""
    pieces = []
    try:
        while piece := request.content.read_nowait():
            pieces.append(piece)
    except BROKEN as error:
        raise Interrupted(f"the body ended before it was whole ({error})") from error
    return b"".join(pieces)
