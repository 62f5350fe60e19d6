"""The cache in front of one registry: the stored answer where it may be given, else the upstream's,
verified and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog
from cachetools import LRUCache, TTLCache

from ..interfaces import (
    BytesContent,
    Clock,
    ContentStore,
    FileContent,
    Outcome,
    Resolved,
    StoreFull,
    TagPage,
    TagRecord,
    TagStore,
    TagStoreError,
    Upstream,
)
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.errors import ManifestUnknown, RegistryError, Unavailable, Unknown, Untrustworthy
from ..oci.manifests import MAX_MANIFEST, Manifest, media_type_of, read_manifest
from ..oci.reference import Repository
from .detour import Detour
from .fill import Soon
from .fills import Fills
from .flights import Flights
from .freshness import Freshness, State, age_of, judge
from .patterns import Patterns

log = structlog.get_logger()

_MEMORY_BYTES = 32 << 20  # manifests kept in memory, so that a hit reads no file
_UNKNOWN_FOR = 30.0  # seconds a digest that the upstream does not have is not asked for again
_REJECTED_TRIES = 3  # fills that bring wrong bytes, before the client is told


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a client is held, in seconds.

    `stale`: for the upstream's word on a tag that could be answered stale. `tag`: for a tag that is
    not known here; every client goes elsewhere after a tag's error. `manifest`: for a manifest
    after its tag was answered, when some clients have no second chance.
    """

    stale: float = 0.8
    tag: float = 12.0
    manifest: float = 30.0
    pause: float = 0.25


class PullThrough:
    """A Registry: the cache in front of one upstream."""

    def __init__(
        self,
        upstream: Upstream,
        store: ContentStore,
        tags: TagStore,
        fills: Fills,
        freshness: Freshness,
        *,
        pinned: Patterns | None = None,
        clock: Clock | None = None,
        waits: Waits | None = None,
        soon: Soon | None = None,
    ) -> None:
        self._upstream = upstream
        self._store = store
        self._tags = tags
        self._fills = fills
        self._freshness = freshness
        self._pinned = pinned or Patterns(())
        self._clock = clock or Clock()
        self._waits = waits or Waits()
        self._soon = soon or Soon()
        self._manifests: LRUCache[Digest, BytesContent] = LRUCache(
            _MEMORY_BYTES, getsizeof=lambda content: len(content.data)
        )
        self._unknown: TTLCache[tuple[Repository, Digest], Unknown] = TTLCache(
            10_000, _UNKNOWN_FOR, self._clock.monotonic
        )
        self._checks: Flights[tuple[Repository, str], Resolved] = Flights()
        self._fetches: Flights[Digest, BytesContent] = Flights()

    async def close(self) -> None:
        await self._checks.close()
        await self._fetches.close()

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        record = await self._recall(repository, tag)
        now = self._clock.wall()
        state = judge(record, now, self._freshness)
        if state is State.FRESH and record is not None and record.descriptor is None:
            raise ManifestUnknown(f"{repository}:{tag} is not known upstream")
        known = await self._known(record)
        if state is State.FRESH and known is not None:
            return Resolved(known, Outcome.HIT, _age(record, now))
        check, joined = self._checks.join(
            (repository, tag), lambda: self._check(repository, tag, record)
        )
        if known is None or state is State.EXPIRED:
            resolved = await self._within(self._waits.tag, check, f"{repository}:{tag}")
            if joined and resolved.outcome is Outcome.FILLED:
                return replace(resolved, outcome=Outcome.JOINED)
            return resolved
        try:
            return await self._within(self._waits.stale, check, f"{repository}:{tag}")
        except Unknown:
            raise
        except RegistryError as error:
            log.info("answered stale", image=f"{repository}:{tag}", reason=error.message)
            return Resolved(known, Outcome.STALE, _age(record, now))

    async def manifest(self, repository: Repository, digest: Digest) -> BytesContent:
        found = await self._stored_manifest(digest)
        if found is not None:
            return found
        self._refuse_if_unknown(repository, digest)
        fetch, joined = self._fetches.join(digest, lambda: self._fetch(repository, digest))
        content = await asyncio.shield(fetch)
        return replace(content, outcome=Outcome.JOINED) if joined else content

    async def stat(self, repository: Repository, digest: Digest) -> Descriptor:
        content = await self._store.open(digest)
        if content is not None:
            content.close()
            return content.descriptor
        fill = self._fills.running(digest)
        if fill is not None and fill.size is not None:
            return Descriptor(OCTET_STREAM, digest, fill.size)
        self._refuse_if_unknown(repository, digest)
        try:
            return await self._upstream.stat(repository, digest)
        except Unknown as error:
            self._unknown[repository, digest] = error
            raise

    async def blob(self, repository: Repository, digest: Digest, start: int = 0) -> FileContent:
        for tries_left in reversed(range(_REJECTED_TRIES)):
            content = await self._store.open(digest)
            if content is not None:
                return content
            self._refuse_if_unknown(repository, digest)
            fill, outcome = self._fills.join(digest, self._upstream, repository)
            reader = fill.reader(outcome)
            try:
                if start == 0 or await fill.reaches(start, self._soon):
                    await reader.readable(start)
                    return reader
                detour = await Detour.open(self._upstream, repository, digest, start)
                if detour is None:
                    return reader
                reader.close()
                return detour
            except Unknown as error:
                reader.close()
                self._unknown[repository, digest] = error
                raise
            except Untrustworthy:
                reader.close()
                # Nothing was given out yet, and the liar has been marked: ask again elsewhere.
                if not tries_left:
                    raise
            except BaseException:
                reader.close()
                raise
        raise AssertionError("the last try returns or raises")

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None = None
    ) -> BytesContent:
        return await self._upstream.referrers(repository, digest, artifact_type)

    async def tags(
        self, repository: Repository, count: int | None = None, last: str | None = None
    ) -> TagPage:
        return await self._upstream.tags(repository, count, last)

    # Tags.

    async def _check(self, repository: Repository, tag: str, record: TagRecord | None) -> Resolved:
        """Asks the upstream what the tag points to, and has that manifest in hand."""
        try:
            try:
                descriptor = await self._upstream.resolve(repository, tag)
            except Unknown:
                if record is None or record.descriptor is None:
                    raise
                # It was there: one word is not enough to take it away from everybody.
                descriptor = await self._upstream.resolve(repository, tag)
        except Unknown:
            negative = TagRecord(None, self._clock.wall())
            await self._remember(repository, tag, negative, self._freshness.negative_ttl)
            raise
        content = await self._stored_manifest(descriptor.digest)
        if content is None:
            fetch, _ = self._fetches.join(
                descriptor.digest, lambda: self._fetch(repository, descriptor.digest)
            )
            content = await asyncio.shield(fetch)
        await self._remember(
            repository,
            tag,
            TagRecord(content.descriptor, self._clock.wall()),
            self._freshness.keep_for,
        )
        if self._pinned.match(repository, tag):
            await self._store.pin(f"{repository}:{tag}", content.descriptor.digest)
        same = record is not None and record.descriptor == content.descriptor
        return Resolved(content.descriptor, Outcome.REVALIDATED if same else Outcome.FILLED)

    async def _known(self, record: TagRecord | None) -> Descriptor | None:
        """What the record points to, if its manifest is in hand."""
        if record is None or record.descriptor is None:
            return None
        content = await self._stored_manifest(record.descriptor.digest)
        return content.descriptor if content else None

    async def _recall(self, repository: Repository, tag: str) -> TagRecord | None:
        try:
            return await self._tags.get(repository, tag)
        except TagStoreError:
            return None

    async def _remember(
        self, repository: Repository, tag: str, record: TagRecord, keep_for: float
    ) -> None:
        try:
            await self._tags.put(repository, tag, record, keep_for)
        except TagStoreError as error:
            log.warning("tag not remembered", image=f"{repository}:{tag}", reason=str(error))

    async def _within(self, seconds: float, check: asyncio.Task[Resolved], image: str) -> Resolved:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(check)
        except TimeoutError:
            raise Unavailable(
                f"the upstream said nothing of {image} within {seconds:g} s", retry_after=5
            ) from None

    # Manifests.

    async def _stored_manifest(self, digest: Digest) -> BytesContent | None:
        content = self._manifests.get(digest)
        if content is not None:
            self._store.touch(digest)
            return content
        data = await self._store.read(digest, MAX_MANIFEST)
        if data is None:
            return None
        try:
            media_type = media_type_of(data)
        except Untrustworthy:
            return None  # a blob, asked for as a manifest
        content = BytesContent(Descriptor(media_type, digest, len(data)), data, Outcome.HIT)
        self._manifests[digest] = content
        return content

    async def _fetch(self, repository: Repository, digest: Digest) -> BytesContent:
        """Has the manifest from the upstream; short trouble is waited out, and never shown."""
        deadline = self._clock.monotonic() + self._waits.manifest
        pause = self._waits.pause
        while True:
            try:
                content = await self._upstream.manifest(repository, digest)
                break
            except Unknown as error:
                self._unknown[repository, digest] = error
                raise
            except Unavailable as error:
                wait = max(pause, error.retry_after or 0)
                if self._clock.monotonic() + wait > deadline:
                    raise
                log.info("manifest asked again", digest=str(digest), reason=error.message)
                await asyncio.sleep(wait)
                pause *= 2
        await self._keep(content)
        return content

    async def _keep(self, content: BytesContent) -> None:
        digest = content.descriptor.digest
        self._manifests[digest] = replace(content, outcome=Outcome.HIT)
        try:
            partial = await self._store.partial(digest)
            if partial is None:  # another process is just writing it
                return
            try:
                await partial.announce(len(content.data))
                if partial.offset < len(content.data):
                    await partial.append([content.data[partial.offset :]])
                await partial.commit(_needs(read_manifest(content.data, None)))
            finally:
                await partial.suspend()
        except (StoreFull, OSError, Untrustworthy) as error:
            log.error("manifest not stored", digest=str(digest), reason=repr(error))

    def _refuse_if_unknown(self, repository: Repository, digest: Digest) -> None:
        error = self._unknown.get((repository, digest))
        if error is not None:
            raise error.with_traceback(None)


def _age(record: TagRecord | None, now: float) -> float:
    return age_of(record, now) if record is not None else 0.0


def _needs(manifest: Manifest) -> Sequence[Digest]:
    """What a manifest needs to be of use; foreign layers come from elsewhere."""
    children = (child.descriptor.digest for child in manifest.children)
    return (*children, *(blob.digest for blob in manifest.blobs))
