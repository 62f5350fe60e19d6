"""The handler of hosted names: one for every request."""

from __future__ import annotations

import dataclasses

from aiohttp import web

from ...clock import Clock
from ...contracts.tracing import Tracer
from ..http.response_cache import ResponseCache
from ..http.sending import Sender
from ..v2.access_log import AccessLog
from ..v2.answering import Responder
from ..v2.exchanges import Exchanges
from .endpoints import Endpoints
from .serving import HostedServing


class HostedNames:
    """The handler."""

    def __init__(
        self,
        serving: HostedServing,
        sender: Sender,
        *,
        log: AccessLog,
        response_cache: ResponseCache,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._serving = serving
        self._sender = sender
        self._clock = clock
        self._exchanges = Exchanges(log, clock)
        self._response_cache = response_cache
        self._tracer = tracer

    def limit(self, patience: float) -> None:
        """Of requests that begin from now on."""
        self._serving = dataclasses.replace(self._serving, patience=patience)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = self._exchanges.begin(request)
        serving = self._serving
        responder = Responder(self._sender, self._clock, serving.patience)
        endpoints = Endpoints(serving, responder, self._response_cache, self._clock, self._tracer)
        return await self._exchanges.answered(request, exchange, endpoints)
