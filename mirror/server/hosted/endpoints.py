"""The endpoints of hosted names: who asks, what for, and what is answered."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from aiohttp import hdrs, web

from ...clock import Clock
from ...contracts.context import ANONYMOUS
from ...contracts.identity import Refusal
from ...contracts.registry import Outcome
from ...contracts.tracing import Tracer
from ...oci.digest import Digest
from ...oci.errors import ManifestUnknown, RegistryError, TagInvalid, Unauthorized, Unsupported
from ...oci.reference import Repository
from ..http.aiohttp_parts import speaks_tls
from ..http.browsers import is_browser, refuse_pages
from ..http.public_answers import PublicAnswer
from ..http.response_cache import ResponseCache
from ..v2.access_log import Exchange
from ..v2.answering import Responder
from ..v2.deadlines import in_time, with_deadline
from ..v2.endpoints import TEXT, own_address
from ..v2.reading import JSON, Reading, answer_whole
from ..v2.target import (
    HEALTH,
    Target,
    TargetKind,
    parse_artifact_type,
    parse_count,
    parse_marker,
    parse_query,
    split,
)
from ..v2.tracing import begins
from .bodies import RequestBody
from .failures import failure
from .pushing import Pushing
from .referrers import page
from .serving import HostedServing, Page
from .target import methods_of, parse_hosted

_MOST_LISTED = 1000
"""Tags, or repositories, in an answer to who names no number."""

_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")


class Endpoints:
    """Answers one request."""

    def __init__(
        self,
        serving: HostedServing,
        responder: Responder,
        response_cache: ResponseCache,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._serving = serving
        self._registry = serving.registry
        self._responder = responder
        self._response_cache = response_cache
        self._clock = clock
        self._tracer = tracer
        self._methods: tuple[str, ...] = ()

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        path, raw_query = split(request.raw_path)
        site = self._serving.sites.get(path.split("/", 2)[1])
        if site is not None:
            await self._authenticate(request, exchange)
            return await site(request, exchange)
        page = self._serving.page
        if page is not None and _is_for_people(request, path):
            return await self._shown(request, exchange, page)
        if path in HEALTH:
            exchange.kind, exchange.outcome = TargetKind.PING, Outcome.HIT
            return await self._whole(request, exchange, 200, TEXT, b"ok\n")
        refuse_pages(request.headers, own_address(request))
        target = _target(request.method, path)
        exchange.kind = target.kind
        self._methods = methods_of(target)
        await self._authenticate(request, exchange)
        if request.method not in self._methods:
            raise Unsupported(f"{target.kind} is not asked for in this way")
        query = parse_query(raw_query)
        if target.kind is TargetKind.PING:
            return await self._ping(request, exchange)
        if target.kind is TargetKind.CATALOG:
            return await self._catalog(request, exchange, query)
        repository = Repository(self._serving.name, target.name)
        exchange.registry, exchange.repository = repository.registry, repository.name
        if target.kind is not TargetKind.UPLOAD:  # whose id nobody else is to know
            exchange.reference = str(target.reference)
        if self._tracer is not None:
            begins(self._tracer, exchange, request.headers)
        return await self._of_repository(request, exchange, repository, target, query)

    async def _of_repository(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        repository: Repository,
        target: Target,
        query: Mapping[str, str],
    ) -> web.StreamResponse:
        body = RequestBody(request, self._serving.patience, self._serving.receiver)
        pushing = Pushing(self._registry, self._responder, request, exchange, body)
        match target.kind, request.method:
            case TargetKind.UPLOAD, hdrs.METH_POST:
                return await pushing.begin(repository, query)
            case TargetKind.UPLOAD, hdrs.METH_PATCH:
                return await pushing.append(repository, str(target.reference))
            case TargetKind.UPLOAD, hdrs.METH_PUT:
                return await pushing.finish(repository, str(target.reference), query)
            case TargetKind.UPLOAD, hdrs.METH_DELETE:
                return await pushing.cancel(repository, str(target.reference))
            case TargetKind.UPLOAD, _:
                return await pushing.status(repository, str(target.reference))
            case _, hdrs.METH_PUT:
                return await pushing.put_manifest(repository, target.reference)
            case _, hdrs.METH_DELETE:
                return await pushing.delete(repository, target)
        if target.kind is TargetKind.REFERRERS:
            return await self._referrers(request, exchange, repository, target, query)
        still = self._serving.marks.still(repository.name)
        reading = Reading(self._registry, self._responder, self._keep(still), self._clock)
        if target.kind is TargetKind.TAGS:
            query = {"n": str(_MOST_LISTED), **query}
        return await reading.answer(request, exchange, repository, target, query)

    async def _referrers(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        repository: Repository,
        target: Target,
        query: Mapping[str, str],
    ) -> web.StreamResponse:
        kind = parse_artifact_type(query.get("artifactType"))
        count, last = parse_count(query.get("n")), parse_marker(query.get("last"))
        context = with_deadline(exchange.context, target.kind, is_head=False)
        subject = target.reference
        assert isinstance(subject, Digest)  # noqa: S101 - see parse_path
        content = await in_time(
            context, self._registry.referrers(context, repository, subject, kind)
        )
        exchange.outcome = content.outcome
        data, following = page(content.data, last, count)
        headers: dict[str, str] = {hdrs.CONTENT_TYPE: content.descriptor.media_type}
        if kind is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        if following is not None:
            fields = {"artifactType": kind, "n": count, "last": following}
            asked = urlencode({name: value for name, value in fields.items() if value})
            place = f"/v2/{repository.name}/referrers/{subject}"
            headers[hdrs.LINK] = f'<{place}?{asked}>; rel="next"'
        return await self._whole(request, exchange, 200, headers, data)

    async def _authenticate(self, request: web.BaseRequest, exchange: Exchange) -> None:
        """Finds out who asks. Raises Unauthorized for a login that is none."""
        found = await self._serving.authenticator.authenticate(
            request.headers.get(hdrs.AUTHORIZATION), exchange.context.client
        )
        if isinstance(found, Refusal):
            raise Unauthorized(found.reason, retry_after=found.retry_after or None)
        exchange.context = dataclasses.replace(exchange.context, principal=found)

    async def _shown(
        self, request: web.BaseRequest, exchange: Exchange, page: Page
    ) -> web.StreamResponse:
        exchange.outcome = Outcome.HIT
        answer = await page(request, exchange.context)
        body = answer.body if isinstance(answer.body, bytes) else None
        return await self._responder.whole(request, exchange, answer.status, answer.headers, body)

    async def _ping(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Where clients begin to log in: only for who has done so."""
        if exchange.context.principal == ANONYMOUS:
            raise Unauthorized("log in first")
        exchange.outcome = Outcome.HIT
        return await self._whole(request, exchange, 200, JSON, b"{}")

    async def _catalog(
        self, request: web.BaseRequest, exchange: Exchange, query: Mapping[str, str]
    ) -> web.StreamResponse:
        count, last = parse_count(query.get("n")), parse_marker(query.get("last"))
        page = await self._registry.repositories(
            exchange.context, self._serving.name, _MOST_LISTED if count is None else count, last
        )
        exchange.outcome = Outcome.HIT
        headers = dict(JSON)
        if page.last is not None:
            following = urlencode({"n": count or _MOST_LISTED, "last": page.last})
            headers[hdrs.LINK] = f'</v2/_catalog?{following}>; rel="next"'
        body = json.dumps({"repositories": [each.name for each in page.repositories]}).encode()
        return await self._whole(request, exchange, 200, headers, body)

    async def refuse(
        self, request: web.BaseRequest, exchange: Exchange, error: RegistryError
    ) -> web.StreamResponse:
        exchange.outcome = Outcome.FAILED
        challenge = ""
        if isinstance(error, Unauthorized):
            wrong = _wrong_with_token(request, error)
            challenge = self._serving.challenge(error.scope, self._origin(request), wrong)
        answer = failure(
            error,
            exchange.kind,
            exchange.context.request_id,
            methods=self._methods,
            challenge=challenge,
        )
        exchange.error = f"{answer.code}: {error.message}"
        headers = {**JSON, **answer.headers}
        return await self._whole(request, exchange, answer.status, headers, answer.body)

    def _origin(self, request: web.BaseRequest) -> str:
        """What the client calls this registry. Its Host may be anything."""
        if self._serving.url is not None:
            return self._serving.url.rstrip("/")
        scheme = "https" if speaks_tls(request) else "http"
        host = request.headers.get(hdrs.HOST, "").strip(" \t")
        return f"{scheme}://{host if _HOST.fullmatch(host) else own_address(request)}"

    def _keep(self, still: Callable[[], bool]) -> Callable[[PublicAnswer], None]:
        """Answered from the response cache as long as nothing changes in the repository."""
        return lambda answer: self._response_cache.put(answer, still)

    async def _whole(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        status: int,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> web.StreamResponse:
        return await answer_whole(self._responder, request, exchange, status, headers, body)


def _target(method: str, path: str) -> Target:
    """Raises what parse_hosted does. A tag that can be none is not there for who reads it: 404, as
    the specification's conformance suite asks; who would write it is told what is wrong."""
    try:
        return parse_hosted(path)
    except TagInvalid as error:
        if method in (hdrs.METH_GET, hdrs.METH_HEAD):
            raise ManifestUnknown(error.message) from error
        raise


def _is_for_people(request: web.BaseRequest, path: str) -> bool:
    """Not the registry's, and no question of whether it is there: that is told from a person's by
    what a browser says of itself."""
    if path == "/v2" or path.startswith("/v2/"):
        return False
    return path not in HEALTH or (path == "/" and is_browser(request.headers))


def _wrong_with_token(request: web.BaseRequest, error: Unauthorized) -> str:
    """By this clients tell a token that is of no use from none (RFC 6750, 3.1)."""
    scheme = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")[0]
    if scheme.lower() != "bearer":
        return ""
    return "insufficient_scope" if error.scope else "invalid_token"
