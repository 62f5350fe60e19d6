"""Manifests: small, whole, verified, asked of the upstream once per digest ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog
from cachetools import LRUCache

from ..asking.negative_cache import NegativeCache
from ..asking.replicas import LONGEST, doubting, doubts
from ..asking.single_flight import SingleFlight
from ..clock import Clock
from ..contracts.content import ContentStore, StoreFull
from ..contracts.context import RequestContext
from ..contracts.events import ContentCommitted
from ..contracts.registry import BytesContent, Outcome
from ..contracts.upstream import Upstream
from ..events import Events
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Unavailable, Unknown, Untrustworthy
from ..oci.manifests import MAX_MANIFEST, media_type_of, read_manifest
from ..oci.reference import Repository
from ..threads import read_aside
from .publishing import publish
from .recently_served import RecentlyServed, needs

log = structlog.get_logger()

_MEMORY_BYTES = 32 << 20  # kept in memory, so that a hit reads no file


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long trouble is waited out, in seconds: with what was promised, and with what was not.

    `lagging`: for how long "there is no such thing" is not believed of what was promised. A pause
    doubles from `pause` on.
    """

    promised: float = 30.0
    other: float = 2.0
    lagging: float = LONGEST
    pause: float = 0.25

    def within(self, promised: bool) -> float:
        return self.promised if promised else self.other

    def doubts(self, promised: bool) -> Iterator[float]:
        return doubts(self.pause, self.lagging if promised else 0.0)


class Manifests:
    """The manifests of one registry, by digest."""

    def __init__(
        self,
        upstream: Upstream,
        store: ContentStore,
        unknown: NegativeCache,
        promises: RecentlyServed,
        clock: Clock,
        hold: RetryPolicy,
        events: Events,
    ) -> None:
        self._upstream = upstream
        self._store = store
        self._unknown = unknown
        self._promises = promises
        self._clock = clock
        self._hold = hold
        self._events = events
        self._memory: LRUCache[Digest, BytesContent] = LRUCache(
            _MEMORY_BYTES, getsizeof=lambda content: len(content.data)
        )
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
        self._unknown.check(repository, digest)
        promised = self._promises.made(digest)
        return await self._fetched(
            context, repository, digest, promised, self._hold.doubts(promised)
        )

    async def named(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        """As `get`, of what a tag was just said to point to: what was said of it before counts no
        more, and that it is missing is for the caller to doubt."""
        found = await self.stored(digest)
        return found or await self._fetched(context, repository, digest, False, iter(()))

    async def _fetched(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        promised: bool,
        pauses: Iterator[float],
    ) -> BytesContent:
        # By repository too: what one may not see says nothing of the others.
        content, joined = await self._fetches.answer(
            context,
            (repository, digest),
            lambda: self._fetch(context, repository, digest, promised, pauses),
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
        pauses: Iterator[float],
    ) -> BytesContent:
        deadline = self._clock.monotonic() + self._hold.within(promised)
        pause = self._hold.pause
        while True:
            try:
                content = await doubting(
                    lambda: self._upstream.manifest(context, repository, digest), pauses
                )
                break
            except Unknown as error:
                self._unknown.note(repository, digest, error)
                raise
            except Unavailable as error:
                wait = max(pause, error.retry_after or 0)
                if self._clock.monotonic() + wait > deadline:
                    raise
                log.info(
                    "manifest_asked_again",
                    digest=str(digest),
                    reason=error.message,
                    request_id=context.request_id,
                )
                await asyncio.sleep(wait)
                pause *= 2
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
                self._events,
            )
        except (StoreFull, OSError, Untrustworthy) as error:
            log.error("manifest_not_stored", digest=str(digest), reason=repr(error))
