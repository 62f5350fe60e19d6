"""What is answered of what a Reader has: manifests, blobs, lists of tags and of referrers (OCI
distribution-spec 1.1, "Pull" and "Content Discovery").

What is stored is served as it is: every Accept header that clients send allows it, so nothing is
negotiated, converted or compressed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from aiohttp import hdrs, web

from ...clock import Clock
from ...contracts.registry import BytesContent, Outcome, Reader, Redirected, Resolved, TagPage
from ...oci.digest import Digest
from ...oci.errors import NameUnknown
from ...oci.ranges import ContentRange
from ...oci.reference import Repository
from ..http.public_answers import Asked, PublicAnswer, public_answer
from ..http.request_ids import HEADER
from ..http.response_cache import LARGEST
from .access_log import Exchange
from .answering import Responder, in_memory
from .conditions import asked, etag, not_modified, wanted
from .deadlines import in_time, with_deadline
from .target import Target, TargetKind, parse_artifact_type, parse_count, parse_marker

COMMON: Mapping[str, str] = {
    "Docker-Distribution-Api-Version": "registry/2.0",
    "Server": "registry-mirror",
    "X-Content-Type-Options": "nosniff",  # a browser is not to make a page of somebody's blob
}

JSON: Mapping[str, str] = {hdrs.CONTENT_TYPE: "application/json"}

Keep = Callable[[PublicAnswer], None]
"""Is given what anybody may have who asks the same."""

# RFC 9211. What is stale was served from here in spite of its age.
_CACHE_STATUS = {
    Outcome.HIT: "hit",
    Outcome.PREFETCHED: "hit",
    Outcome.REVALIDATED: "fwd=stale; detail=unchanged",
    Outcome.STALE: "hit; detail=stale",
    Outcome.FILLED: "fwd=miss",
    Outcome.JOINED: "fwd=miss; collapsed",
    Outcome.PASSED: "fwd=bypass",
}
_FETCHED = (Outcome.FILLED, Outcome.JOINED)


class Reading:
    """Answers requests by what `registry` has."""

    def __init__(self, registry: Reader, responder: Responder, keep: Keep, clock: Clock) -> None:
        self._registry = registry
        self._responder = responder
        self._keep = keep
        self._clock = clock

    async def answer(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        repository: Repository,
        target: Target,
        query: Mapping[str, str],
    ) -> web.StreamResponse:
        """GET, or HEAD, of this target of the repository. Raises RegistryError, as long as nothing
        has been sent."""
        is_head = request.method == hdrs.METH_HEAD
        exchange.context = context = with_deadline(exchange.context, target.kind, is_head=is_head)
        match target:
            case Target(TargetKind.BLOB, _, Digest() as digest) if is_head:
                return await self._stat(request, exchange, repository, digest)
            case Target(TargetKind.BLOB, _, Digest() as digest):
                return await self._blob(request, exchange, repository, digest)
            case Target(TargetKind.MANIFEST, _, Digest() as digest):
                content = await in_time(
                    context, self._registry.manifest(context, repository, digest)
                )
                return await self._manifest(request, exchange, content, None)
            case Target(TargetKind.TAG, _, str() as tag):
                resolved = await in_time(context, self._registry.resolve(context, repository, tag))
                digest = resolved.descriptor.digest
                content = await in_time(
                    context, self._registry.manifest(context, repository, digest)
                )
                return await self._manifest(request, exchange, content, resolved)
            case Target(TargetKind.TAGS):
                return await self._tags(request, exchange, repository, target, query)
            case Target(TargetKind.REFERRERS, _, Digest() as digest):
                return await self._referrers(request, exchange, repository, digest, query)
        raise NameUnknown("there is no such endpoint")

    async def _manifest(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        content: BytesContent,
        resolved: Resolved | None,
    ) -> web.StreamResponse:
        exchange.outcome = _outcome(content, resolved)
        digest = content.descriptor.digest
        headers = {
            hdrs.CONTENT_TYPE: content.descriptor.media_type,
            **_validators(digest),
            **_provenance(exchange.outcome),
        }
        if resolved is not None:
            exchange.digest, exchange.age = str(digest), resolved.age
            headers |= _age(resolved.outcome, resolved.age, "what this tag points to")
        if exchange.outcome is Outcome.HIT and (resolved is None or resolved.fresh_for > 0):
            life = None
            if resolved is not None:
                since = self._clock.monotonic() - exchange.arrived
                life = min(resolved.fresh_for, 1 - resolved.age % 1) - since
            self._prepare(request, exchange, headers, content.data, headers, life)
        if _matches(request, digest):
            return await self._whole(request, exchange, 304, headers, None)
        return await self._whole(request, exchange, 200, headers, content.data)

    async def _stat(
        self, request: web.BaseRequest, exchange: Exchange, repository: Repository, digest: Digest
    ) -> web.StreamResponse:
        """HEAD of a blob, and GET by whom has it already: nothing is fetched for it."""
        context = exchange.context
        descriptor = await in_time(context, self._registry.stat(context, repository, digest))
        exchange.outcome = Outcome.PASSED
        headers = {hdrs.ACCEPT_RANGES: "bytes", **_validators(digest)}
        if _matches(request, digest):
            return await self._whole(request, exchange, 304, headers, None)
        headers[hdrs.CONTENT_TYPE] = descriptor.media_type
        if descriptor.size is not None:
            headers[hdrs.CONTENT_LENGTH] = str(descriptor.size)
        return await self._whole(request, exchange, 200, headers, None)

    async def _blob(
        self, request: web.BaseRequest, exchange: Exchange, repository: Repository, digest: Digest
    ) -> web.StreamResponse:
        if _matches(request, digest):
            return await self._stat(request, exchange, repository, digest)
        part = asked(request.headers.get(hdrs.RANGE), request.headers.get(hdrs.IF_RANGE), digest)
        context = exchange.context
        content = await in_time(context, self._registry.blob(context, repository, digest, part))
        try:
            exchange.outcome = content.outcome
            if isinstance(content, Redirected):
                return await self._redirect(request, exchange, content)
            size = content.descriptor.size
            status, start, stop = 200, 0, size
            headers = {
                hdrs.CONTENT_TYPE: content.descriptor.media_type,
                hdrs.ACCEPT_RANGES: "bytes",
                **_validators(digest),
                **_provenance(exchange.outcome),
            }
            part = wanted(
                request.headers.get(hdrs.RANGE), request.headers.get(hdrs.IF_RANGE), digest, size
            )
            if part is not None and part.stop is not None:
                status, start, stop = 206, part.start, part.stop
                headers[hdrs.CONTENT_RANGE] = str(ContentRange(start, stop, size))
            elif exchange.outcome is Outcome.HIT and size is not None and size <= LARGEST:
                data = in_memory(content, size)
                if data is not None:
                    self._prepare(request, exchange, headers, data, None, None)
                    return await answer_whole(
                        self._responder, request, exchange, status, headers, data
                    )
            return await self._responder.content(
                request, exchange, status, head_of(exchange, headers), content, start, stop
            )
        finally:
            content.close()

    async def _redirect(
        self, request: web.BaseRequest, exchange: Exchange, content: Redirected
    ) -> web.StreamResponse:
        """A URL that is good for one client for a while: nobody keeps the answer. Other than 302
        and 303, 307 lets no client ask in another way (RFC 9110, section 15.4.8)."""
        headers = {
            hdrs.LOCATION: content.location,
            hdrs.CACHE_CONTROL: "no-store",
            "Docker-Content-Digest": str(content.descriptor.digest),
        }
        return await self._whole(request, exchange, 307, headers, b"")

    async def _tags(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        repository: Repository,
        target: Target,
        query: Mapping[str, str],
    ) -> web.StreamResponse:
        count, last = parse_count(query.get("n")), parse_marker(query.get("last"))
        # The specification wants nothing for n=0, and no Link header.
        page = TagPage(())
        if count != 0:
            context = exchange.context
            page = await in_time(context, self._registry.tags(context, repository, count, last))
        exchange.outcome = Outcome.PASSED
        headers: dict[str, str] = {**JSON, **_provenance(exchange.outcome)}
        if page.last is not None:
            fields = {"n": count, "last": page.last, "ns": query.get("ns")}
            following = urlencode({key: value for key, value in fields.items() if value})
            headers[hdrs.LINK] = f'<{target.base}/{target.name}/tags/list?{following}>; rel="next"'
        body = json.dumps({"name": target.name, "tags": list(page.tags)}).encode()
        return await self._whole(request, exchange, 200, headers, body)

    async def _referrers(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        repository: Repository,
        digest: Digest,
        query: Mapping[str, str],
    ) -> web.StreamResponse:
        artifact_type = parse_artifact_type(query.get("artifactType"))
        context = exchange.context
        content = await in_time(
            context, self._registry.referrers(context, repository, digest, artifact_type)
        )
        exchange.outcome = content.outcome
        headers = {
            hdrs.CONTENT_TYPE: content.descriptor.media_type,
            **_provenance(exchange.outcome),
            **_age(exchange.outcome, content.age, "who refers to this digest"),
        }
        if artifact_type is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        return await self._whole(request, exchange, 200, headers, content.data)

    def _prepare(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        headers: Mapping[str, str],
        body: bytes,
        not_modified: Mapping[str, str] | None,
        life: float | None,
    ) -> None:
        """What was answered here is kept for others, where anybody may have it."""
        answer = public_answer(
            exchange.context,
            Asked(
                request.raw_path,
                request.headers.get(hdrs.HOST, ""),
                exchange.kind,
                exchange.registry,
                exchange.repository,
                exchange.reference,
            ),
            {**COMMON, **headers},
            body,
            None if not_modified is None else {**COMMON, **not_modified},
            life,
        )
        if answer is not None:
            self._keep(answer)

    async def _whole(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        status: int,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> web.StreamResponse:
        return await answer_whole(self._responder, request, exchange, status, headers, body)


async def answer_whole(
    responder: Responder,
    request: web.BaseRequest,
    exchange: Exchange,
    status: int,
    headers: Mapping[str, str],
    body: bytes | None,
) -> web.StreamResponse:
    """See Responder.whole; with the headers that all answers have."""
    return await responder.whole(request, exchange, status, head_of(exchange, headers), body)


def head_of(exchange: Exchange, headers: Mapping[str, str]) -> dict[str, str]:
    """All headers of an answer that goes the ordinary way."""
    return {**COMMON, **headers, HEADER: exchange.context.request_id}


def _matches(request: web.BaseRequest, digest: Digest) -> bool:
    return not_modified(request.headers.getall(hdrs.IF_NONE_MATCH, []), digest)


def _validators(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(digest), hdrs.ETAG: etag(digest)}


def _outcome(content: BytesContent, resolved: Resolved | None) -> Outcome:
    """Of a tag's two steps, the one that went further away."""
    if resolved is None:
        return content.outcome
    known = resolved.outcome in (Outcome.HIT, Outcome.REVALIDATED)
    return content.outcome if known and content.outcome in _FETCHED else resolved.outcome


def _provenance(outcome: Outcome) -> dict[str, str]:
    """Where the answer comes from."""
    if outcome not in _CACHE_STATUS:
        return {}
    return {"Cache-Status": f"registry-mirror; {_CACHE_STATUS[outcome]}"}


def _age(outcome: Outcome, seconds: float, what: str) -> dict[str, str]:
    """How old the upstream's word is, of what it may change its mind on: a tag, a list. What a
    digest names is good for ever."""
    age = max(0, int(seconds))
    headers: dict[str, str] = {hdrs.AGE: str(age)}
    if outcome is Outcome.STALE:
        headers["Warning"] = (
            f'299 - "older than its TTL: {what} was last confirmed {age} seconds ago"'
        )
    return headers
