"""Content is shared by its digest between all repositories; who may see it is not.

A digest that came through one repository is given through another only when that one has shown it
too: its registry pointed a tag at it, delivered it, or says so when asked with HEAD. So knowing a
digest does not open a private image. Nobody else's word counts: not an accelerator's, which may
answer anything for any digest, and not the tag memory's, which others may write to. The nodes of a
fleet trust one another, by their secret: what one has been shown counts for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from cachetools import LRUCache

from ..asking.negative_cache import MOMENT, NegativeCache
from ..asking.retry_policy import NEVER, RetryPolicy, retrying
from ..asking.single_flight import SingleFlight
from ..clock import Clock
from ..contracts.context import RequestContext
from ..contracts.records import Links
from ..contracts.registry import (
    FETCHED,
    BytesContent,
    FileContent,
    Provenance,
    Reader,
    Resolved,
)
from ..contracts.upstream import Upstream
from ..frozen import dataclass
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, Unavailable, Unknown, Untrustworthy
from ..oci.manifests import read_manifest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..threads import read_aside
from ..times import ANSWERS, TROUBLE
from .forwarding import Guarding

log = structlog.get_logger()

_REMEMBERED = 10_000  # what is further back is read, which takes microseconds
_NEVER = float("-inf")

Key = tuple[Repository, Digest]
Ask = Callable[[RequestContext, Repository, Digest], Awaitable[Descriptor]]


@dataclass(frozen=True, slots=True)
class Proofs:
    """Periods in seconds. A repository that has shown a digest is believed for `good`, one that has
    not is not asked again for `refused` at most. `hold`: how long short trouble is waited out,
    which is not long: what a client was promised is linked already, but for the manifests of an
    index. `lagging`: for how long it is doubted that the repository lacks what was promised.
    `pause`: before the second ask."""

    good: float = 30 * 86400.0
    refused: float = 30.0
    hold: float = TROUBLE.proof
    lagging: float = TROUBLE.lagging
    pause: float = TROUBLE.pause


async def nobody(digest: Digest) -> bool:
    """Only the registry delivers."""
    return False


async def anybody(digest: Digest) -> bool:
    """There are endpoints that are not the registry."""
    return True


class RepositoryVisibility(Guarding):
    """A Reader: a cache, with its store's content only for the repositories that show it.

    `inner` is the cache; `upstream` is what is behind it, and is asked where only it can know.
    `promised` says whether clients were told of a digest, so that it has to be there.
    `strangers` says whether anybody but the registry may deliver this digest: an endpoint that is
    not the registry, a second tier that has it. What is asked for by a bare digest is then proven
    before it is fetched: else whoever makes up a digest, or knows a private one, has a download
    begun that others of this registry would share. What only the registry can deliver is proven by
    its delivery.

    What a manifest refers to is taken for shown where it shows config and layers: a registry
    refuses a manifest whose blobs its repository lacks (MANIFEST_BLOB_UNKNOWN of the
    distribution-spec). An index proves nothing of its manifests, since it may be sparse: those
    are shown by being fetched.
    """

    lets_through = frozenset({"referrers", "tags"})

    def __init__(
        self,
        inner: Reader,
        upstream: Upstream,
        links: Links,
        clock: Clock,
        proofs: Proofs | None = None,
        *,
        strangers: Callable[[Digest], Awaitable[bool]] = nobody,
        promised: Callable[[Repository, Digest], bool] = lambda repository, digest: False,
    ) -> None:
        super().__init__(inner)
        self._strangers = strangers
        self._upstream = upstream
        self._links = links
        self._clock = clock
        self._proofs = proofs or Proofs()
        self._seen: LRUCache[Key, float] = LRUCache(_REMEMBERED)
        self._read: LRUCache[Key, bool] = LRUCache(_REMEMBERED)
        self._promised = promised
        self._refused = NegativeCache(clock)
        self._asks: SingleFlight[Key, Descriptor] = SingleFlight()
        self._firsts: dict[Key, asyncio.Future[None]] = {}
        self._writing: set[asyncio.Future[None]] = set()

    async def close(self) -> None:
        await self._asks.close()
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def admit(self, context: RequestContext, repository: Repository, method: str) -> None:
        """Lists are the upstream's own of this very repository."""

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        resolved = await self._inner.resolve(context, repository, tag)
        digest = resolved.descriptor.digest
        if resolved.vouched:
            await self._note(repository, [digest])
        else:
            await self._prove(context, repository, digest, self._ask_manifest)
        return resolved

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        missed = await self._word(context, repository, digest, self._ask_manifest)
        content = await self._inner.manifest(context, repository, digest)
        is_fetched = content.outcome in FETCHED
        shown: Sequence[Digest] = ()
        if is_fetched and content.vouched:
            shown = [digest]
        elif missed is None:
            await self._prove(context, repository, digest, self._ask_manifest)
        elif is_fetched:
            return content  # an accelerator gave it now; what it refers to is not open by that
        else:
            raise missed
        await self._note_all(repository, content, shown)
        return content

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        asked = await self._prove(context, repository, digest, self._upstream.stat)
        return asked or await self._inner.stat(context, repository, digest)

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        missed = await self._word(context, repository, digest, self._upstream.stat)
        if missed is None and await self._seen_at(repository, digest) is not None:
            return await self._inner.blob(context, repository, digest, part)
        key = (repository, digest)
        first = self._firsts.get(key)
        if first is None:
            self._firsts[key] = asyncio.get_running_loop().create_future()
        try:
            content = await self._inner.blob(context, repository, digest, part)
            try:
                if first is not None:  # it may be just about to note what its fetch shows
                    await asyncio.wait([first])
                if content.provenance is Provenance.VOUCHED:
                    self._note_behind(repository, digest)
                elif missed is None:
                    await self._prove(context, repository, digest, self._upstream.stat)
                elif content.provenance is Provenance.HERE:
                    raise missed
            except BaseException:
                content.close()
                raise
            return content
        finally:
            if first is None:
                self._firsts.pop(key).set_result(None)

    async def _seen_at(self, repository: Repository, digest: Digest) -> float | None:
        key = (repository, digest)
        seen = self._seen.get(key)
        if seen is None and (seen := await self._links.seen(repository, digest)) is not None:
            self._seen[key] = seen
        return seen

    async def _word(
        self, context: RequestContext, repository: Repository, digest: Digest, ask: Ask
    ) -> Unavailable | None:
        """Asks the registry whether the repository shows this digest, before anything is fetched,
        where the fetch would not prove it or would give away what is here: a fill that resumes, or
        that another process runs, gives out what they have brought.

        Returns the error of a registry that cannot be asked: what its other endpoints bring now is
        given all the same, but nothing that is here. Raises any other RegistryError.
        """
        if (
            await self._seen_at(repository, digest) is not None
            or await self._links.is_shown(digest)
            or await self._strangers(digest)
        ):
            try:
                await self._prove(context, repository, digest, ask)
            except Unavailable as error:
                return error
        return None

    async def _prove(
        self, context: RequestContext, repository: Repository, digest: Digest, ask: Ask
    ) -> Descriptor | None:
        """Returns when the repository shows this digest; with what the upstream said, where it was
        asked. Raises RegistryError."""
        key = (repository, digest)
        seen = await self._seen_at(repository, digest)
        if seen is not None and self._clock.wall() - seen < self._proofs.good:
            return None
        self._refused.check(repository, digest, self._refused_for(repository, digest))
        elsewhere = await self._links.seen_elsewhere(repository, digest)
        if elsewhere is not None and self._clock.wall() - elsewhere < self._proofs.good:
            self._seen[key] = elsewhere
            return None
        try:
            asking = context.lasting(ANSWERS.ask)
            found, _ = await self._asks.answer(
                asking, key, lambda: self._ask(asking, repository, digest, ask)
            )
            return found
        except (Unavailable, Untrustworthy) as error:
            if seen is None:
                raise
            log.info(
                "old_link_believed",
                repository=str(repository),
                reason=error.message,
                request_id=context.request_id,
            )
            return None

    async def _ask(
        self, context: RequestContext, repository: Repository, digest: Digest, ask: Ask
    ) -> Descriptor:
        proofs = self._proofs
        doubts = NEVER
        if self._promised(repository, digest):
            doubts = RetryPolicy(pause=proofs.pause, within=proofs.lagging)
        try:
            descriptor = await retrying(
                context,
                lambda: ask(context, repository, digest),
                {
                    Unknown: doubts,
                    Unavailable: RetryPolicy(pause=proofs.pause, within=proofs.hold),
                },
            )
        except (Unknown, Denied) as error:
            believed = self._refused_for(repository, digest)
            self._refused.note(repository, digest, error, believed)
            raise
        log.info(
            "digest_shown",
            repository=str(repository),
            digest=str(digest),
            request_id=context.request_id,
        )
        await self._note(repository, [digest])
        return descriptor

    def _refused_for(self, repository: Repository, digest: Digest) -> float:
        refused = self._proofs.refused
        return min(MOMENT, refused) if self._promised(repository, digest) else refused

    async def _ask_manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        found = await self._upstream.resolve(context, repository, str(digest))
        if found.digest != digest:
            raise Untrustworthy(f"asked for {digest}, the upstream says {found.digest}")
        return found

    async def _note_all(
        self, repository: Repository, content: BytesContent, shown: Sequence[Digest]
    ) -> None:
        """These, and the blobs of the manifest."""
        key = (repository, content.descriptor.digest)
        if key in self._read:
            await self._note(repository, shown)
            return
        try:
            manifest = await read_aside(read_manifest, content.data, None)
        except Untrustworthy:  # a cache gives out none such
            await self._note(repository, shown)
            return
        await self._note(repository, [*shown, *(blob.digest for blob in manifest.blobs)])
        self._read[key] = True

    def _note_behind(self, repository: Repository, digest: Digest) -> None:
        """Writes it down while the blob goes out already. Who asks another process meanwhile, or
        this one after a crash, costs the upstream a HEAD, and no more."""
        self._seen[repository, digest] = self._clock.wall()
        writing = asyncio.ensure_future(self._links.add(repository, [digest]))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def _note(self, repository: Repository, digests: Sequence[Digest]) -> None:
        """Written down before the answer leaves: the next request may meet another process."""
        now = self._clock.wall()
        # Half of the period, so that what is pulled again and again is never asked for again.
        old = now - self._proofs.good / 2
        new = [digest for digest in digests if self._seen.get((repository, digest), _NEVER) <= old]
        if new:
            await self._links.add(repository, new)
            self._seen.update({(repository, digest): now for digest in new})
