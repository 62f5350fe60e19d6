"""The cache in front of one registry: the stored answer where it may be given, else the upstream's,
verified and kept."""

from __future__ import annotations

from ..asking.retry_policy import retrying
from ..asking.single_flight import SingleFlight
from ..contracts.context import RequestContext
from ..contracts.registry import BytesContent, FileContent, Outcome, Resolved, TagPage
from ..contracts.tracing import span
from ..contracts.upstream import Upstream
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, Unavailable, Unknown, Untrustworthy
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..times import ANSWERS
from .manifests import Manifests
from .policy import CachePolicy
from .prefetch import Prefetcher
from .referrers import Referrers
from .shared import Shared
from .small import SmallBlobs
from .tags.resolution import TagResolver

_TRIES = 3  # fills that bring wrong bytes, or were given up too soon, before the client is told
_LEAST_PATIENCE = 0.25  # seconds, with a fill of what took long to be asked for in another way


class PullThrough:
    """A Reader: the cache in front of one upstream."""

    def __init__(
        self,
        upstream: Upstream,
        shared: Shared,
        policy: CachePolicy | None = None,
        prefetcher: Prefetcher | None = None,
    ) -> None:
        self._upstream = upstream
        self._shared = shared
        self._policy = policy or CachePolicy()
        self._prefetcher = prefetcher
        self._store, self._fills, self._served = shared.store, shared.fills, shared.served
        self._stats: SingleFlight[tuple[Repository, Digest], Descriptor] = SingleFlight()
        self._small = SmallBlobs(upstream, shared)
        self._manifests = Manifests(upstream, shared, self._policy)
        self._tags = TagResolver(upstream, self._manifests, shared, self._policy)
        self._referrers = Referrers(upstream, self._tags, self._manifests, shared, self._policy)

    async def close(self) -> None:
        if self._prefetcher is not None:
            await self._prefetcher.close()
        await self._small.close()
        await self._stats.close()
        await self._referrers.close()
        await self._tags.close()
        await self._manifests.close()

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        with span("cache tag", {"registry_mirror.reference": tag}) as step:
            resolved = await self._tags.resolve(context, repository, tag)
            if step is not None:
                step.set(
                    {
                        "registry_mirror.outcome": resolved.outcome.value,
                        "oci.manifest.digest": str(resolved.descriptor.digest),
                    }
                )
        self._served.name(repository.registry, resolved.descriptor.digest)
        return resolved

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        with span("cache manifest", {"oci.manifest.digest": str(digest)}) as step:
            content = await self._manifests.get(context, repository, digest)
            if step is not None:
                step.set(
                    {
                        "registry_mirror.outcome": content.outcome.value,
                        "registry_mirror.bytes": len(content.data),
                    }
                )
        manifest = await self._served.make(repository, content)
        if manifest is not None and self._prefetcher is not None:
            self._prefetcher.know(repository, digest, manifest)
        return content

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        content = await self._store.open(digest)
        if content is not None:
            content.close()
            return content.descriptor
        fill = self._fills.running(repository.registry, digest)
        if fill is not None and fill.size is not None:
            return Descriptor(OCTET_STREAM, digest, fill.size)
        await self._ask_known(repository, digest)
        asking = context.lasting(ANSWERS.ask)
        found, _ = await self._stats.answer(
            asking, (repository, digest), lambda: self._ask_stat(asking, repository, digest)
        )
        return found

    async def _ask_stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        doubts = self._policy.trouble.doubts(self.has_promised(repository, digest))
        try:
            return await retrying(
                context,
                lambda: self._upstream.stat(context, repository, digest),
                {Unknown: doubts},
            )
        except Unknown as error:
            self._note_unknown(repository, digest, error)
            raise

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        with span("cache blob", {"registry_mirror.digest": str(digest)}) as step:
            content = await self._blob(context, repository, digest, part)
            if step is not None:
                step.set({"registry_mirror.outcome": content.outcome.value})
            return content

    async def _blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None,
    ) -> FileContent:
        content = await self._here(repository, digest)
        if content is not None:
            return content
        if part == ByteRange(0):
            part = None
        await self._ask_known(repository, digest)
        promised = self.has_promised(repository, digest)
        trouble = self._policy.trouble
        # Nobody waits for what is fetched ahead: it has no patience of its own.
        first_byte = trouble.within(promised) if context.is_wanted else 0.0
        doubts = trouble.doubts(promised)
        try:
            return await retrying(
                context,
                lambda: self._brought(context, repository, digest, part, first_byte),
                {Unknown: doubts},
            )
        except Unknown as error:
            self._note_unknown(repository, digest, error)
            raise

    async def _brought(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None,
        first_byte: float,
    ) -> FileContent:
        """The blob, which is not here: a small one at once, any other as it comes."""
        if self._prefetcher is not None and context.is_wanted:
            self._prefetcher.asked(context, repository, digest)
        came = self._shared.clock.monotonic()
        small = await self._small.bring(context, repository, digest)
        if small is not None:
            return small
        if first_byte:
            waited = self._shared.clock.monotonic() - came
            first_byte = max(_LEAST_PATIENCE, first_byte - waited)
        return await self._filled(context, repository, digest, part, first_byte)

    async def _here(self, repository: Repository, digest: Digest) -> FileContent | None:
        """The blob, if it is here."""
        if self._prefetcher is None:
            return await self._store.open(digest)
        was_brought = self._prefetcher.has_brought(digest)
        outcome = Outcome.PREFETCHED if was_brought else Outcome.HIT
        content = await self._store.open(digest, outcome)
        if content is not None:
            self._prefetcher.read(repository, digest)
        return content

    async def _filled(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None,
        first_byte: float,
    ) -> FileContent:
        """The blob, which is not here, as it comes, or as another has brought it meanwhile."""
        for tries_left in reversed(range(_TRIES)):
            came = self._shared.clock.monotonic()
            fill, outcome = self._fills.join(
                context, digest, self._upstream, repository, first_byte, part
            )
            if context.is_wanted:
                reader = fill.reader(outcome, repository, part, context.client)
            else:
                reader = fill.reader_ahead(outcome, repository)
            try:
                await reader.readable(reader.start)
                return reader
            except (Unknown, Denied) as error:
                reader.close()
                if fill.repository == repository:
                    raise
                # That another repository has it not, or hides it, says nothing of this one.
                if not tries_left:
                    raise Unavailable(
                        f"{digest} is asked for through repositories that do not show it",
                        retry_after=1,
                    ) from error
            except Untrustworthy:
                reader.close()
                # Nothing was given out yet, and the liar has been marked: ask again elsewhere.
                if not tries_left:
                    raise
            except Unavailable:
                reader.close()
                # The fill that was joined was given up just then, for a client with less patience.
                mine = outcome is Outcome.FILLED
                if mine or not tries_left or self._shared.clock.monotonic() - came >= first_byte:
                    raise
            except BaseException:
                reader.close()
                raise
            content = await self._here(repository, digest)
            if content is not None:
                return content
        raise AssertionError("the last try returns or raises")

    def has_promised(self, repository: Repository, digest: Digest) -> bool:
        """Whether clients were told of it: by a manifest that they have from here, or a tag."""
        return self._served.made(repository, digest)

    async def _ask_known(self, repository: Repository, digest: Digest) -> None:
        """Raises what the upstream said of a missing digest, while that is believed."""
        await self._shared.missing.ask(repository, digest, self._believed(repository, digest))

    def _note_unknown(self, repository: Repository, digest: Digest, error: Unknown) -> None:
        believed = self._believed(repository, digest)
        self._shared.missing.note(repository, digest, error, believed)

    def _believed(self, repository: Repository, digest: Digest) -> float:
        return self._policy.believed(repository, self.has_promised(repository, digest))

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        return await self._referrers.list(context, repository, digest, artifact_type)

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        return await self._upstream.tags(context, repository, count, last)
