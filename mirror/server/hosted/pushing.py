"""What clients push and delete (OCI distribution-spec 1.1, "Push" and "Content Management").

Locations are relative: behind a proxy that speaks TLS, clients refuse one with http (Helm, oras).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from aiohttp import hdrs, web

from ...contracts.registry import Body, Outcome
from ...oci.digest import Digest
from ...oci.errors import RegistryError, SizeInvalid, UploadRangeInvalid
from ...oci.manifests import MAX_MANIFEST
from ...oci.reference import Repository
from ...times import DEADLINES
from ..v2.access_log import Exchange
from ..v2.answering import Responder
from ..v2.deadlines import in_time
from ..v2.reading import answer_whole
from ..v2.target import Target
from .bodies import AnnouncedBody, RequestBody
from .failures import failure
from .serving import Registry
from .target import parse_content_range, parse_digest

T = TypeVar("T")

_UUID = "Docker-Upload-UUID"
_DIGEST = "Docker-Content-Digest"
_NOTHING: Mapping[str, str] = {hdrs.CONTENT_LENGTH: "0"}


class Pushing:
    """Answers one request, for who may do what it asks."""

    def __init__(
        self,
        registry: Registry,
        responder: Responder,
        request: web.BaseRequest,
        exchange: Exchange,
        body: RequestBody,
    ) -> None:
        self._registry = registry
        self._responder = responder
        self._request = request
        self._exchange = exchange
        self._context = exchange.context
        self._body = body

    async def _asked(self, answer: Awaitable[T]) -> T:
        """What the registry answers, in a time that does not count that of a body."""
        return await in_time(self._context.lasting(DEADLINES.push), answer)

    # Uploads.

    async def begin(self, repository: Repository, query: Mapping[str, str]) -> web.StreamResponse:
        """POST: a session; or the blob itself, mounted from another repository, or in this very
        request."""
        mounted = query.get("mount")
        if mounted and await self._mounted(repository, Digest.parse(mounted), query.get("from")):
            return await self._created(repository, Digest.parse(mounted))
        digest = parse_digest(query.get("digest"), "digest") if "digest" in query else None
        session = await self._asked(self._registry.begin_upload(self._context, repository))
        if digest is None:
            return await self._state(202, repository, session, 0)
        try:
            return await self._finished(repository, session, digest, 0)
        except RegistryError:
            # Nobody was told of the session: nobody can go on with it.
            with contextlib.suppress(RegistryError):
                await self._asked(self._registry.cancel_upload(self._context, repository, session))
            raise

    async def _mounted(self, repository: Repository, digest: Digest, given: str | None) -> bool:
        source = Repository(repository.registry, given) if given else None
        return await self._asked(self._registry.mount(self._context, repository, digest, source))

    async def append(self, repository: Repository, session: str) -> web.StreamResponse:
        """PATCH: a chunk."""
        try:
            size = await self._append(repository, session)
        except UploadRangeInvalid as error:
            return await self._out_of_order(repository, session, error)
        return await self._state(202, repository, session, size)

    async def finish(
        self, repository: Repository, session: str, query: Mapping[str, str]
    ) -> web.StreamResponse:
        """PUT: the last chunk, if there is one, and what all of it has to be."""
        digest = parse_digest(query.get("digest"), "digest")
        try:
            return await self._finished(repository, session, digest, None)
        except UploadRangeInvalid as error:
            return await self._out_of_order(repository, session, error)

    async def status(self, repository: Repository, session: str) -> web.StreamResponse:
        size = await self._asked(self._registry.uploaded(self._context, repository, session))
        return await self._state(204, repository, session, size)

    async def cancel(self, repository: Repository, session: str) -> web.StreamResponse:
        await self._asked(self._registry.cancel_upload(self._context, repository, session))
        return await self._done(204, {})

    async def _finished(
        self, repository: Repository, session: str, digest: Digest, start: int | None
    ) -> web.StreamResponse:
        if not self._body.is_empty:
            await self._append(repository, session, start)
        await self._asked(self._registry.finish_upload(self._context, repository, session, digest))
        return await self._created(repository, digest)

    async def _append(self, repository: Repository, session: str, start: int | None = None) -> int:
        """Returns how many bytes the session has."""
        chunk = parse_content_range(self._request.headers.get(hdrs.CONTENT_RANGE))
        body: Body = self._body
        if chunk is not None:
            start, length = chunk.start, chunk.stop - chunk.start
            if body.size is None:
                body = AnnouncedBody(body, length)
            elif body.size != length:
                raise SizeInvalid(f"Content-Range says {length} bytes, Content-Length {body.size}")
        return await self._registry.append(self._context, repository, session, start, body)

    async def _created(self, repository: Repository, digest: Digest) -> web.StreamResponse:
        self._exchange.reference = str(digest)
        location = f"/v2/{repository.name}/blobs/{digest}"
        return await self._done(201, {hdrs.LOCATION: location, _DIGEST: str(digest)})

    async def _state(
        self, status: int, repository: Repository, session: str, size: int
    ) -> web.StreamResponse:
        return await self._done(status, _session(repository, session, size))

    async def _out_of_order(
        self, repository: Repository, session: str, error: UploadRangeInvalid
    ) -> web.StreamResponse:
        """What there is, from which the client may go on."""
        exchange = self._exchange
        exchange.outcome = Outcome.FAILED
        told = failure(error, exchange.kind, self._context.request_id)
        exchange.error = f"{told.code}: {error.message}"
        headers = {
            hdrs.CONTENT_TYPE: "application/json",
            **told.headers,
            **_session(repository, session, error.size),
            hdrs.CONTENT_LENGTH: str(len(told.body)),
        }
        return await answer_whole(
            self._responder, self._request, exchange, told.status, headers, told.body
        )

    # Manifests, and what is deleted.

    async def put_manifest(
        self, repository: Repository, reference: str | Digest
    ) -> web.StreamResponse:
        data = await self._body.whole(MAX_MANIFEST)
        media_type = self._request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip(" \t")
        stored = await self._asked(
            self._registry.put_manifest(self._context, repository, reference, data, media_type)
        )
        digest = stored.descriptor.digest
        self._exchange.digest = str(digest)
        headers = {
            hdrs.LOCATION: f"/v2/{repository.name}/manifests/{digest}",
            _DIGEST: str(digest),
        }
        if stored.subject is not None:
            headers["OCI-Subject"] = str(stored.subject)
        return await self._done(201, headers)

    async def delete(self, repository: Repository, target: Target) -> web.StreamResponse:
        """DELETE of a tag, a manifest or a blob."""
        reference, registry = target.reference, self._registry
        if not isinstance(reference, Digest):
            await self._asked(registry.delete_tag(self._context, repository, reference))
        elif target.is_manifest:
            await self._asked(registry.delete_manifest(self._context, repository, reference))
        else:
            await self._asked(registry.delete_blob(self._context, repository, reference))
        return await self._done(202, {})

    async def _done(self, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        self._exchange.outcome = Outcome.CHANGED
        length = {} if status == 204 else _NOTHING  # RFC 9110, 8.6
        return await answer_whole(
            self._responder,
            self._request,
            self._exchange,
            status,
            {**length, **headers},
            None,
        )


def _session(repository: Repository, session: str, size: int) -> dict[str, str]:
    """Where a session goes on. Of one that is empty, Range is as that of one byte: Docker's
    registry answers so, and the grammar has no other."""
    return {
        hdrs.LOCATION: f"/v2/{repository.name}/blobs/uploads/{session}",
        hdrs.RANGE: f"0-{max(0, size - 1)}",
        _UUID: session,
    }
