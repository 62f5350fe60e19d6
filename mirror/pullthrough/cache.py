"""The cache in front of one registry: the stored answer where it may be given, else the upstream's,
verified and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..asking.negative_cache import MOMENT, NegativeCache
from ..asking.replicas import doubting
from ..asking.single_flight import SingleFlight
from ..clock import Clock
from ..contracts.content import ContentStore
from ..contracts.context import RequestContext
from ..contracts.records import Links, NoReferrerLists, ReferrerLists
from ..contracts.registry import BytesContent, FileContent, Outcome, Resolved, TagPage
from ..contracts.tags import TagStore
from ..contracts.upstream import Upstream
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, Unavailable, Unknown, Untrustworthy
from ..oci.patterns import Patterns
from ..oci.reference import Repository
from .fills.fill import Soon
from .fills.table import Fills
from .freshness import Freshness, FreshnessRule, Rules
from .manifests import Manifests, RetryPolicy
from .prefetch import Prefetcher
from .recently_served import RecentlyServed
from .referrers import Referrers
from .revalidation import AnswerPatience
from .tags.pins import Pinned, Pins
from .tags.resolution import TagResolver

_TRIES = 3  # fills that bring wrong bytes, or were given up too soon, before the client is told


class PullThrough:
    """A Reader: the cache in front of one upstream."""

    def __init__(
        self,
        upstream: Upstream,
        store: ContentStore,
        tags: TagStore,
        fills: Fills,
        freshness: Freshness,
        *,
        rules: Sequence[FreshnessRule] = (),
        pins: Pins | None = None,
        scarce: Callable[[], bool] = lambda: False,
        away: Callable[[Repository, str], bool] = lambda repository, tag: False,
        pinned: Patterns | None = None,
        referrers: ReferrerLists | None = None,
        links: Links | None = None,
        clock: Clock | None = None,
        patience: AnswerPatience | None = None,
        hold: RetryPolicy | None = None,
        soon: Soon | None = None,
        prefetcher: Prefetcher | None = None,
    ) -> None:
        """`freshness` is for tags that none of `rules` means; `pins` are the frozen tags of the
        configuration, `pinned` the images that are never evicted. `links` tell which manifests
        that are here may be given as lists of `referrers`; without them, none."""
        clock = clock or Clock()
        self._clock = clock
        self._upstream = upstream
        self._store = store
        self._fills = fills
        self._soon = soon or Soon()
        self._prefetcher = prefetcher
        self._rules = Rules(rules, freshness)
        self._promises = RecentlyServed(store, clock)
        self._unknown = NegativeCache(clock, self._believed)
        self._hold = hold or RetryPolicy()
        patience = patience or AnswerPatience()
        self._manifests = Manifests(
            upstream, store, self._unknown, self._promises, clock, self._hold, fills.events
        )
        self._stats: SingleFlight[tuple[Repository, Digest], Descriptor] = SingleFlight()
        self._tags = TagResolver(
            upstream,
            self._manifests,
            store,
            tags,
            self._rules,
            Pinned(pins or {}, tags, clock),
            pinned or Patterns(()),
            clock,
            patience,
            self._hold,
            scarce,
            away,
            fills.events,
        )
        self._referrers = Referrers(
            upstream,
            referrers or NoReferrerLists(),
            links,
            self._tags,
            self._manifests,
            self._promises,
            self._rules,
            clock,
            patience,
            away,
        )

    async def close(self) -> None:
        if self._prefetcher is not None:
            await self._prefetcher.close()
        await self._stats.close()
        await self._referrers.close()
        await self._tags.close()
        await self._manifests.close()

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        resolved = await self._tags.resolve(context, repository, tag)
        self._promises.name(resolved.descriptor.digest)
        return resolved

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        content = await self._manifests.get(context, repository, digest)
        manifest = await self._promises.make(repository, content)
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
        self._unknown.check(repository, digest)
        found, _ = await self._stats.answer(
            context, (repository, digest), lambda: self._ask_stat(context, repository, digest)
        )
        return found

    async def _ask_stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        pauses = self._hold.doubts(self._promises.made(digest))
        try:
            return await doubting(lambda: self._upstream.stat(context, repository, digest), pauses)
        except Unknown as error:
            self._unknown.note(repository, digest, error)
            raise

    async def blob(
        self, context: RequestContext, repository: Repository, digest: Digest, start: int = 0
    ) -> FileContent:
        content = await self._here(repository, digest)
        if content is not None:
            return content
        self._unknown.check(repository, digest)
        promised = self._promises.made(digest)
        first_byte, pauses = self._hold.within(promised), self._hold.doubts(promised)
        try:
            return await doubting(
                lambda: self._filled(context, repository, digest, start, first_byte), pauses
            )
        except Unknown as error:
            self._unknown.note(repository, digest, error)
            raise

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
        start: int,
        first_byte: float,
    ) -> FileContent:
        """The blob, which is not here, as it comes, or as another has brought it meanwhile."""
        for tries_left in reversed(range(_TRIES)):
            came = self._clock.monotonic()
            fill, outcome = self._fills.join(
                context, digest, self._upstream, repository, first_byte
            )
            if self._prefetcher is not None:
                self._prefetcher.asked(context, repository, digest)
            reader = fill.reader(outcome, repository, start)
            try:
                if start == 0 or await fill.reaches(start, self._soon):
                    await reader.readable(start)
                    return reader
                detour = await self._fills.detours.open(
                    context, self._upstream, repository, digest, start
                )
                if detour is None:
                    return reader
                reader.close()
                return detour
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
                # Given up in the moment in which we came, for the sake of one with less patience.
                mine = outcome is Outcome.FILLED
                if mine or not tries_left or self._clock.monotonic() - came >= first_byte:
                    raise
            except BaseException:
                reader.close()
                raise
            content = await self._here(repository, digest)
            if content is not None:
                return content
        raise AssertionError("the last try returns or raises")

    def has_promised(self, digest: Digest) -> bool:
        """Whether clients were told of it: by a manifest that they have from here, or a tag."""
        return self._promises.made(digest)

    def _believed(self, repository: Repository, digest: Digest) -> float:
        """For how many seconds at most it is believed that this is missing."""
        negative_ttl = self._rules.of(repository, "").negative_ttl
        return min(MOMENT, negative_ttl) if self._promises.made(digest) else negative_ttl

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
