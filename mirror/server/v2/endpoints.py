"""The endpoints of the mirror's names (OCI distribution-spec 1.1, "Pull" and "Content Discovery"):
which repository a request means, and what is answered at other paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import hdrs, web

from ...clock import Clock
from ...contracts.registry import Outcome
from ...contracts.tracing import Tracer
from ...oci.errors import RegistryError, Unsupported
from ...switch import Use
from ..http.browsers import is_browser, refuse_pages
from ..http.public_answers import PublicAnswer
from ..http.response_cache import ResponseCache
from .access_log import Exchange
from .answering import Responder
from .failures import failure
from .reading import JSON, Reading, answer_whole
from .serving import Serving
from .target import HEALTH, TargetKind, is_endpoint, parse_path, parse_query, split
from .tracing import begins
from .welcome import welcome

TEXT: Mapping[str, str] = {hdrs.CONTENT_TYPE: "text/plain; charset=utf-8"}
_READS = (hdrs.METH_GET, hdrs.METH_HEAD)


class Endpoints:
    """Answers one request, by what it is served by."""

    def __init__(
        self,
        use: Use[Serving],
        responder: Responder,
        response_cache: ResponseCache,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._use = use
        self._naming = use.value.naming
        self._responder = responder
        self._response_cache = response_cache
        self._still: Callable[[], bool] | None = None
        self._reading = Reading(use.value.registry, responder, self._keep, clock)

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        refuse_pages(request.headers, own_address(request))
        path, raw_query = split(request.raw_path)
        if request.method not in _READS and is_endpoint(path):
            raise Unsupported("a mirror is for reading: push to the registry itself")
        if path in HEALTH:
            exchange.kind, exchange.outcome = TargetKind.PING, Outcome.HIT
            told = b"ok\n"
            if path == "/" and is_browser(request.headers):
                told = welcome(request.headers.get(hdrs.HOST, ""), request.scheme)
            return await self._whole(request, exchange, 200, TEXT, told)
        target = parse_path(path)
        if target.kind is TargetKind.PING:
            if target.before:
                self._naming.base(target.before)
            exchange.kind, exchange.outcome = TargetKind.PING, Outcome.HIT
            return await self._whole(request, exchange, 200, JSON, b"{}")
        query = parse_query(raw_query)
        repository = self._naming.repository(
            target.name, query.get("ns"), request.headers.get(hdrs.HOST, ""), target.before
        )
        self._still = self._use.value.still(repository)
        exchange.kind = target.kind
        exchange.registry, exchange.repository = repository.registry, repository.name
        exchange.reference = str(target.reference)
        if self._tracer is not None:
            begins(self._tracer, exchange, request.headers)
        return await self._reading.answer(request, exchange, repository, target, query)

    async def refuse(
        self, request: web.BaseRequest, exchange: Exchange, error: RegistryError
    ) -> web.StreamResponse:
        exchange.outcome = Outcome.FAILED
        answer = failure(error, exchange.kind, exchange.agent, exchange.context.request_id)
        exchange.error = f"{answer.code}: {error.message}"
        headers = {**JSON, **answer.headers}
        return await self._whole(request, exchange, answer.status, headers, answer.body)

    def _keep(self, answer: PublicAnswer) -> None:
        """Answered from the response cache from now on, if it is still what would be answered."""
        if self._use.is_current:
            self._response_cache.put(answer, self._still)

    async def _whole(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        status: int,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> web.StreamResponse:
        return await answer_whole(self._responder, request, exchange, status, headers, body)


def own_address(request: web.BaseRequest) -> str:
    """The address of this machine that the client is connected to."""
    transport = request.transport
    return str(((transport and transport.get_extra_info("sockname")) or ("",))[0])
