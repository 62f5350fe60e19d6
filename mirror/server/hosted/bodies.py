"""Bodies of requests, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import ClientPayloadError, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError

from ...oci.errors import Interrupted, TooLarge
from ...threads import aside

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BROKEN = (
    ClientPayloadError,
    HttpProcessingError,
    PayloadAccessError,
    RequestPayloadError,
    ConnectionError,
)


class RequestBody:
    """A Body. `patience`, in seconds: how long the client may send nothing."""

    def __init__(self, request: web.BaseRequest, patience: float) -> None:
        self._request = request
        self._patience = patience
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
        except _BROKEN as error:
            raise Interrupted(f"the body ended before it was whole ({error})") from error

    async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
        while piece := await self.read():
            await aside(take, piece)

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
