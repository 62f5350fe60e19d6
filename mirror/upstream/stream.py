"""A blob's body on its way from an endpoint."""

from __future__ import annotations

import asyncio
from typing import cast

import aiohttp
import structlog

from ..interfaces import Clock, Meter
from ..oci.descriptor import Descriptor
from ..oci.errors import Unavailable
from .endpoint import MIB, Limits
from .receiver import Receiver

_log = structlog.get_logger()


class BlobStream:
    """A StreamContent over one HTTP response.

    `validator` is the response's ETag or Last-Modified, or None: bytes that come later under
    another validator belong to another object. It is for comparing only, never for sending on.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        descriptor: Descriptor,
        start: int,
        source: str,
        vouched: bool,
        limits: Limits,
        meter: Meter,
        clock: Clock,
    ) -> None:
        self._response = response
        self._descriptor = descriptor
        self._start = start
        self._source = source
        self._vouched = vouched
        self._limits = limits
        self._meter = meter
        self._clock = clock
        self.validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        # One window of the speed watch: seconds waited in read(), and the bytes that came of it.
        self._waited = 0.0
        self._came = 0
        self._total = 0  # bytes that came by aiohttp's reader
        self._receiver: Receiver | None = None

    @property
    def descriptor(self) -> Descriptor:
        return self._descriptor

    @property
    def start(self) -> int:
        return self._start

    @property
    def source(self) -> str:
        return self._source

    @property
    def vouched(self) -> bool:
        return self._vouched

    async def read(self) -> bytes:
        """See StreamContent. Time in which nobody reads does not count as the upstream's."""
        if self._receiver is not None and (piece := cast(bytes, self._receiver.read_nowait())):
            self._meter.upstream_bytes(self._source, len(piece))
            self._came += len(piece)
            return piece
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._limits.idle):
                piece = await self._next()
        except TimeoutError as error:
            raise Unavailable(
                f"{self._source} sent nothing for {self._limits.idle:g} s in the middle of a blob"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            piece = self._came_before_the_break()
            if not piece:
                raise Unavailable(f"{self._source} cut a blob short") from error
        self._meter.upstream_bytes(self._source, len(piece))
        if piece:
            self._watch_speed(self._clock.monotonic() - began, len(piece))
        return piece

    async def _next(self) -> bytes:
        if self._receiver is not None:
            # A view, with which a fill can do all that it does with bytes.
            return cast(bytes, await self._receiver.read())
        piece = await self._response.content.read(MIB)
        self._total += len(piece)
        self._receiver = Receiver.take_over(self._response, self._total)
        return piece

    def _came_before_the_break(self) -> bytes:
        """What was received and not read when the connection broke. aiohttp tells of the break
        first and would keep it, to be fetched a second time."""
        content = self._response.content
        error = content.exception()
        content.set_exception(None)  # type: ignore[arg-type]  # it takes one, and means none
        try:
            return content.read_nowait(MIB)
        finally:
            if error is not None:
                content.set_exception(error)

    def _watch_speed(self, waited: float, count: int) -> None:
        self._waited += waited
        self._came += count
        if self._waited < self._limits.slow_window:
            return
        speed = self._came / self._waited
        self._waited, self._came = 0.0, 0
        if speed < self._limits.slow_speed:
            raise Unavailable(
                f"{self._source} sends a blob at {speed:.0f} bytes/s; "
                f"less than {self._limits.slow_speed:.0f} is given up"
            )

    def reject(self, reason: str) -> None:
        self._meter.upstream_rejected(self._source)
        _log.warning(
            "upstream_rejected",
            endpoint=self._source,
            digest=str(self._descriptor.digest),
            reason=reason,
        )

    async def close(self) -> None:
        self._response.release()  # keeps the connection only when the body was read to its end
