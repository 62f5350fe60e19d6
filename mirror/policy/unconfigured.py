"""The content of a registry that nobody configured, and whose word therefore proves nothing.

It shares the store with the others, so that its digests could open what they hold: whoever runs a
registry can say of any digest that it is there, and list it in any manifest. So what a configured
registry has shown is given through an unconfigured one only after its very bytes came from there.
What none of them has shown is nobody's secret.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

from cachetools import LRUCache

from ..asking.retry_policy import NEVER, RetryPolicy, retrying
from ..asking.single_flight import Sharing, SingleFlight
from ..contracts.content import ContentStore
from ..contracts.context import RequestContext
from ..contracts.records import Links
from ..contracts.registry import (
    FETCHED,
    BytesContent,
    FileContent,
    Outcome,
    Provenance,
    Reader,
)
from ..contracts.upstream import Upstream
from ..frozen import dataclass
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError, Unavailable, Unknown, Untrustworthy
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..threads import aside
from ..times import TROUBLE
from .forwarding import Guarding

_REMEMBERED = 10_000
_PROGRESS = 64 << 10  # bytes of one try
_VAIN = 3  # tries in a row that bring fewer: a proof has an end

Key = tuple[Repository, Digest]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """What registries have shown: `configured` those of the configuration, `others` all others.
    Content that neither names (the links were lost) may be a configured registry's."""

    configured: Links
    others: Links


class UnconfiguredGuard(Guarding):
    """A Reader: the cache of an unconfigured registry, whose word proves nothing.

    `promised` says whether clients were told of a digest: that it is missing is then doubted for
    `lagging` seconds. No blob has more than `largest` bytes.
    """

    lets_through = frozenset({"resolve", "referrers", "tags"})

    def __init__(
        self,
        inner: Reader,
        upstream: Upstream,
        store: ContentStore,
        shown: Shown,
        *,
        promised: Callable[[Repository, Digest], bool] = lambda repository, digest: False,
        lagging: float = TROUBLE.lagging,
        largest: int = 1 << 40,
    ) -> None:
        super().__init__(inner)
        self._promised = promised
        self._lagging = lagging
        self._largest = largest
        self._upstream = upstream
        self._store = store
        self._links = shown.configured
        self._own = shown.others
        self._proven: LRUCache[Key, bool] = LRUCache(_REMEMBERED)
        # Of a whole blob: that takes long, and is not fetched twice for it.
        self._fetches: SingleFlight[Key, None] = SingleFlight(Sharing(silent=None))
        self._coming: SingleFlight[Key, None] = SingleFlight(Sharing(silent=None))

    async def close(self) -> None:
        await self._fetches.close()
        await self._coming.close()

    async def admit(self, context: RequestContext, repository: Repository, method: str) -> None:
        """Tags and lists are the registry's own, and open nothing."""

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        content = await self._inner.manifest(context, repository, digest)
        if content.outcome in FETCHED:
            self._proven[repository, digest] = True
        else:
            await self._prove(context, repository, digest, self._fetch_manifest)
        await self._note(repository, digest)
        return content

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        return await self._doubting(
            context, repository, digest, lambda: self._upstream.stat(context, repository, digest)
        )

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        while True:
            # Before the fill: one that resumes gives out what is there already.
            await self._prove(context, repository, digest, self._fetch_blob)
            content = await self._inner.blob(context, repository, digest, part)
            try:
                if await self._may_give(context, repository, digest, content):
                    return content
            except BaseException:
                content.close()
                raise
            content.close()  # in this very moment another registry has brought it

    async def _may_give(
        self, context: RequestContext, repository: Repository, digest: Digest, content: FileContent
    ) -> bool:
        """Whether this came from here, or is proven, or nobody's. Then it is noted, at once or when
        all of it has come."""
        is_its_own = content.provenance is not Provenance.HERE
        is_proven = (repository, digest) in self._proven
        if not (is_its_own or is_proven or await self._is_nobodys(digest)):
            return False
        if is_proven or content.outcome is Outcome.HIT:
            await self._note(repository, digest)
        else:
            self._coming.begin(
                context,
                (repository, digest),
                lambda: self._whole(repository, digest, content, is_its_own),
            )
        return True

    async def _prove(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        fetch: Callable[[RequestContext, Repository, Digest], Awaitable[None]],
    ) -> None:
        """Returns when this digest may be given through the repository. Raises RegistryError."""
        key = (repository, digest)
        if key in self._proven or await self._is_nobodys(digest):
            return
        if self._coming.is_under_way(key):
            await self._coming.ended(key)
            if key in self._proven or await self._is_nobodys(digest):
                return
        asking = context.lasting(inf)  # a whole blob
        await self._fetches.answer(
            asking,
            key,
            lambda: self._doubting(
                asking, repository, digest, lambda: fetch(asking, repository, digest)
            ),
        )
        self._proven[key] = True

    async def _doubting(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        ask: Callable[[], Awaitable[T]],
    ) -> T:
        """What `ask` gives; what was promised may be missing for a while."""
        doubts = NEVER
        if self._promised(repository, digest):
            doubts = RetryPolicy(pause=TROUBLE.pause, within=self._lagging)
        return await retrying(context, ask, {Unknown: doubts})

    async def _whole(
        self, repository: Repository, digest: Digest, content: FileContent, is_its_own: bool
    ) -> None:
        """Notes what a download has brought once its digest is proven: until then it may be of any
        bytes."""
        with contextlib.suppress(RegistryError):
            await content.proven()
            if is_its_own:
                self._proven[repository, digest] = True
            await self._note(repository, digest)

    async def _is_nobodys(self, digest: Digest) -> bool:
        if await self._links.is_shown(digest):
            return False
        if await self._own.is_shown(digest):
            return True
        content = await self._store.open(digest)
        if content is not None:
            content.close()
        return content is None

    async def _note(self, repository: Repository, digest: Digest) -> None:
        if await self._own.seen(repository, digest) is None:
            await self._own.add(repository, [digest])

    async def _fetch_manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        await self._upstream.manifest(context, repository, digest)  # which verifies it

    async def _fetch_blob(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        """Fetches the whole for proof, and for nothing else: as long as the content that is here,
        or else as the registry announces. Raises RegistryError."""
        size = await self._size(digest)
        hasher, came, vain = digest.hasher(), 0, 0
        while True:
            before = came
            part = ByteRange(came) if came else None
            stream = await self._upstream.blob(context, repository, digest, part)
            try:
                if stream.start != came:
                    raise Untrustworthy(f"{stream.source} does not go on with {digest}")
                most = min(size or stream.descriptor.size or self._largest, self._largest)
                while piece := await stream.read():
                    came += len(piece)
                    if came > most:
                        break
                    await aside(hasher.update, piece)
                    del piece  # as in Download._pump
                if hasher.hexdigest() != digest.hex:
                    stream.reject("a blob sent for proof has another digest")
                    raise Untrustworthy(f"{stream.source} sent other bytes than those of {digest}")
                return
            except Unavailable:  # cut, or its connection is another client's turn
                vain = 0 if came - before >= _PROGRESS else vain + 1
                if came == before or vain > _VAIN:
                    raise
            finally:
                await stream.close()

    async def _size(self, digest: Digest) -> int | None:
        content = await self._store.open(digest)
        if content is None:
            return None
        try:
            return content.descriptor.size
        finally:
            content.close()
