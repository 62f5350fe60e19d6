"""The handler of the mirror's names: one for every request. It reads the raw target itself."""

from __future__ import annotations

from aiohttp import hdrs, web

from ...clock import Clock
from ...contracts.events import CredentialsDropped
from ...contracts.tracing import Tracer
from ...events import Events
from ...switch import Switch
from ..http.response_cache import ResponseCache
from ..http.sending import Sender
from .access_log import AccessLog
from .answering import Responder
from .endpoints import Endpoints
from .exchanges import Exchanges
from .serving import Serving

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
        self._clock = clock or Clock()
        self._exchanges = Exchanges(log, self._clock)
        self._response_cache = response_cache
        self._events = events

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = self._exchanges.begin(request)
        if any(name in request.headers for name in _CREDENTIALS):
            self._events.emit(CredentialsDropped())
        with self._serving.use() as use:
            responder = Responder(self._sender, self._clock, use.value.patience)
            endpoints = Endpoints(use, responder, self._response_cache, self._clock, self._tracer)
            return await self._exchanges.answered(request, exchange, endpoints)
