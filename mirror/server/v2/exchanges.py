"""One request from its head to the end of its answer, whatever is asked: all that goes wrong is
answered here, and each is told once, when it is over."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from aiohttp import hdrs, web

from ...clock import Clock
from ...contracts.context import RequestContext
from ...oci.errors import RegistryError
from ..http.networks import network_of
from ..http.request_ids import HEADER, request_id
from .access_log import AccessLog, Exchange
from .tracing import ends

log = structlog.get_logger()


class Answering(Protocol):
    """Answers one request."""

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Raises RegistryError as long as nothing has been sent."""

    async def refuse(
        self, request: web.BaseRequest, exchange: Exchange, error: RegistryError
    ) -> web.StreamResponse:
        """Answers with an error."""


class Exchanges:
    """Begins and ends them."""

    def __init__(self, log: AccessLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    def begin(self, request: web.BaseRequest) -> Exchange:
        """It has to be `answered` next."""
        address = request.remote or ""
        exchange = Exchange(
            context=RequestContext(
                request_id(request.headers.getall(HEADER, ())), network_of(address)
            ),
            method=request.method,
            client=address,
            agent=request.headers.get(hdrs.USER_AGENT, ""),
            arrived=self._clock.monotonic(),
        )
        self._log.begin(exchange)
        return exchange

    async def answered(
        self, request: web.BaseRequest, exchange: Exchange, endpoints: Answering
    ) -> web.StreamResponse:
        try:
            return await endpoints.answer(request, exchange)
        except RegistryError as error:
            return await endpoints.refuse(request, exchange, error)
        except asyncio.CancelledError:
            exchange.left = request.transport is None and not exchange.is_whole
            if request.transport is not None:
                exchange.error = "cut: the mirror is stopping"
            raise
        except Exception:
            log.exception(
                "request_failed_unexpectedly",
                kind=exchange.kind.value,
                request_id=exchange.context.request_id,
            )
            unexpected = RegistryError("the mirror failed in an unexpected way; its log says more")
            return await endpoints.refuse(request, exchange, unexpected)
        finally:
            self._log.note(exchange)
            ends(exchange)
