"""The handler of the mirror's port: one for every request. It reads the raw target itself, and all
that goes wrong is answered here."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import hdrs, web

from ...clock import Clock
from ...contracts.context import RequestContext
from ...contracts.events import CredentialsDropped
from ...contracts.tracing import Tracer
from ...events import Events
from ...oci.errors import RegistryError
from ...switch import Switch
from ..http.networks import network_of
from ..http.request_ids import HEADER, request_id
from ..http.response_cache import ResponseCache
from ..http.sending import Sender
from .access_log import AccessLog, Exchange
from .answering import Responder
from .endpoints import Endpoints
from .serving import Serving
from .tracing import ends

log = structlog.get_logger()

_CREDENTIALS = (hdrs.AUTHORIZATION, hdrs.PROXY_AUTHORIZATION, hdrs.COOKIE)


class V2:
    """The handler. Never answers 401, and `/v2/` with 200 at once: a Docker daemon meets a
    challenge with its user's Docker Hub password."""

    def __init__(
        self,
        serving: Switch[Serving],
        sender: Sender,
        *,
        log: AccessLog,
        response_cache: ResponseCache,
        events: Events,
        clock: Clock | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._serving = serving
        self._sender = sender
        self._log = log
        self._response_cache = response_cache
        self._events = events
        self._clock = clock or Clock()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
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
        if any(name in request.headers for name in _CREDENTIALS):
            self._events.emit(CredentialsDropped())
        with self._serving.use() as use:
            responder = Responder(self._sender, self._clock, use.value.patience)
            endpoints = Endpoints(use, responder, self._response_cache, self._clock, self._tracer)
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
                unexpected = RegistryError(
                    "the mirror failed in an unexpected way; its log says more"
                )
                return await endpoints.refuse(request, exchange, unexpected)
            finally:
                self._log.note(exchange)
                ends(exchange)
