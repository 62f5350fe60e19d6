"""Manifests: small, whole, verified, asked of the upstream once per digest ever."""

from __future__ import annotations

from dataclasses import replace

import structlog

from ..asking.retry_policy import NEVER, RetryPolicy, retrying
from ..asking.single_flight import SingleFlight
from ..contracts.content import StoreFull
from ..contracts.context import RequestContext
from ..contracts.events import ContentCommitted
from ..contracts.registry import BytesContent, Outcome
from ..contracts.upstream import Upstream
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError, Unavailable, Unknown, Untrustworthy
from ..oci.manifests import MAX_MANIFEST, media_type_of, read_manifest
from ..oci.reference import Repository
from ..threads import read_aside
from ..times import ANSWERS
from .policy import CachePolicy
from .publishing import publish
from .recently_served import needs
from .shared import Shared

log = structlog.get_logger()


class Manifests:
    """The manifests of one registry, by digest."""

    def __init__(self, upstream: Upstream, shared: Shared, policy: CachePolicy) -> None:
        self._upstream = upstream
        self._shared = shared
        self._policy = policy
        self._store, self._memory = shared.store, shared.manifests
        self._fetches: SingleFlight[tuple[Repository, Digest], BytesContent] = SingleFlight()

    async def close(self) -> None:
        await self._fetches.close()

    async def get(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        """The manifest, from here or from the upstream. Raises RegistryError."""
        found = await self.stored(digest)
        if found is not None:
            return found
        promised = self._shared.served.made(repository, digest)
        believed = self._policy.believed(repository, promised)
        await self._shared.missing.ask(repository, digest, believed)
        doubts = self._policy.trouble.doubts(promised)
        return await self._fetched(context, repository, digest, promised, doubts)

    async def named(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        """As `get`, of what a tag was just said to point to: what was said of it before counts no
        more, and that it is missing is for the caller to doubt."""
        found = await self.stored(digest)
        return found or await self._fetched(context, repository, digest, False, NEVER)

    async def came(self, repository: Repository, content: BytesContent) -> BytesContent:
        """The manifest, which the upstream has just given unasked, or as it is here already."""
        found = await self.stored(content.descriptor.digest)
        if found is None:
            await self._keep(repository, content)
        return found or content

    async def _fetched(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        promised: bool,
        doubts: RetryPolicy,
    ) -> BytesContent:
        asking = context.lasting(ANSWERS.ask)
        # By repository too: what one may not see says nothing of the others.
        content, joined = await self._fetches.answer(
            asking,
            (repository, digest),
            lambda: self._fetch(asking, repository, digest, promised, doubts),
        )
        if joined and content.outcome is Outcome.FILLED:
            return replace(content, outcome=Outcome.JOINED)
        return content

    async def stored(self, digest: Digest) -> BytesContent | None:
        """The manifest, if it is here."""
        content = self._memory.get(digest)
        if content is not None:
            self._store.touch(digest)
            return content
        data = await self._store.read(digest, MAX_MANIFEST)
        if data is None:
            return None
        try:
            media_type = await read_aside(media_type_of, data)
        except Untrustworthy:
            return None  # a blob, asked for as a manifest
        content = BytesContent(Descriptor(media_type, digest, len(data)), data, Outcome.HIT)
        self._memory[digest] = content
        return content

    async def _fetch(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        promised: bool,
        doubts: RetryPolicy,
    ) -> BytesContent:
        def waited_out(error: RegistryError) -> None:
            log.info(
                "manifest_asked_again",
                digest=str(digest),
                reason=error.message,
                request_id=context.request_id,
            )

        try:
            content = await retrying(
                context,
                lambda: self._upstream.manifest(context, repository, digest),
                {Unknown: doubts, Unavailable: self._policy.trouble.trouble(promised)},
                failed=waited_out,
            )
        except Unknown as error:
            promised = self._shared.served.made(repository, digest)
            believed = self._policy.believed(repository, promised)
            self._shared.missing.note(repository, digest, error, believed)
            raise
        await self._keep(repository, content)
        return content

    async def _keep(self, repository: Repository, content: BytesContent) -> None:
        """In memory, and on the disk where that takes it: a full one is no reason to fail."""
        digest = content.descriptor.digest
        self._memory[digest] = replace(content, outcome=Outcome.HIT)
        try:
            manifest = await read_aside(read_manifest, content.data, None)
            await publish(
                self._store.put(digest, content.data, needs(manifest), repository.registry),
                ContentCommitted(
                    digest,
                    len(content.data),
                    repository,
                    (content.source,) if content.source else (),
                    content.descriptor.media_type,
                    needs(manifest),
                ),
                self._shared.events,
            )
        except (StoreFull, OSError, Untrustworthy) as error:
            log.error("manifest_not_stored", digest=str(digest), reason=repr(error))
