"""Hosted content in an object store: what is pushed is there before the push is answered.

    the file on the disk, whole and proven → a row that says that it may be there (see ShelfRecords)
    → the object → the records of the repository, in a transaction that locks that row

So a row without an object is of a push that was cut, and goes with a collection, and an object
without a row is of nobody. What is on the disk is from then on a copy, evicted as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

from ..clock import Clock
from ..contracts.content import ContentStore
from ..contracts.far_shelf import FarShelf, Kept, ShelfRecords
from ..contracts.files import OpenFile
from ..contracts.hosted import CollectionRecords
from ..contracts.second_tier import (
    FarContent,
    FarFault,
    FarObject,
    SecondTier,
    SecondTierFault,
)
from ..contracts.uploads import Held, HeldContent
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from ..oci.ranges import ByteRange

log = structlog.get_logger()

_REMOVED_WITHIN = 15.0  # seconds that a push waits for the removal of the same content
_ABANDONED_AFTER = 1.0  # seconds, after which it is asked whether that still goes on

# Seconds for which a mark holds whose collector seems to be dead: PostgreSQL may just have lost its
# lock, and the object store may still do what it was asked (`STORES.far_answer`).
_MARK_HOLDS = 60.0

_LOOK = 0.05
_SMALL = 1 << 20  # bytes
_FIRST = ByteRange(0, 1)
_PAGE = 1000  # objects
_SLICE = 500  # pieces of content that are held here
_EVERY = 3600.0  # seconds between two looks at what is held here
_MOST_FAILED = 3  # in a row: the object store is away
_AGAIN = 30.0  # seconds until what was not brought there is tried again
_RETRY_AFTER = 5.0


class BucketShelf:
    """A FarShelf's keeping; and what a collection asks of held content, of all nodes together."""

    is_shared = True

    def __init__(
        self,
        tier: SecondTier,
        content: FarContent,
        records: ShelfRecords,
        store: ContentStore,
        clock: Clock,
        name_of: Callable[[Digest], str],
    ) -> None:
        """`name_of`: the object of a content."""
        self._name_of = name_of
        self._tier = tier
        self._content = content
        self._records = records
        self._store = store
        self._clock = clock

    async def bring_file(self, digest: Digest, file: OpenFile, size: int) -> None:
        await self._hold(digest, size)
        # To find out by putting it costs nothing of a small one.
        there = await self._size_there(digest) if size > _SMALL else None
        if there == size or (there is None and await self._tier.put(digest, file, size)):
            return
        if await self._has_made_way(digest, size) and await self._tier.put(digest, file, size):
            return
        raise Unavailable(
            "the object store, which keeps what is pushed, does not take it now: push it again",
            retry_after=_RETRY_AFTER,
        )

    async def _size_there(self, digest: Digest, range: ByteRange | None = _FIRST) -> int | None:
        """Of the object, by some of its bytes, of which one that is empty has none. Raises
        Unavailable."""
        try:
            stream = await self._tier.get(digest, range)
        except SecondTierFault as error:
            message = f"the object store gives no answer: {error}"
            raise Unavailable(message, retry_after=_RETRY_AFTER) from error
        if stream is None:
            return None
        await stream.close()
        return stream.size

    async def _has_made_way(self, digest: Digest, size: int) -> bool:
        """Whether what is there was not the whole content, and is set aside now."""
        there = await self._size_there(digest, None)
        if there in (None, size):
            return False
        reason = f"it has {there} bytes, not {size}"
        log.error("hosted_content_wrong", digest=str(digest), reason=reason)
        try:
            await self._content.set_aside(digest)
        except FarFault as error:
            log.warning("hosted_content_not_set_aside", digest=str(digest), reason=str(error))
            return False
        return True

    async def bring(self, digest: Digest) -> int | None:
        content = await self._store.open(digest)
        if content is None:
            return await self._size(digest)
        try:
            size = content.descriptor.size or 0
            await self.bring_file(digest, content, size)
            return size
        finally:
            content.close()

    async def _size(self, digest: Digest) -> int | None:
        """Of what is there, which is held from now on. Raises Unavailable."""
        size = await self._size_there(digest, None)
        if size is None:
            return None
        await self._hold(digest, size)
        return size if await self._tier.contains(digest) else None

    async def _hold(self, digest: Digest, size: int) -> None:
        """Raises Unavailable."""
        if await self._records.hold(digest, size, self._clock.wall()):
            return
        log.info("push_waits_for_removal", digest=str(digest))
        began = looked = self._clock.monotonic()
        while not await self._records.hold(digest, size, self._clock.wall()):
            now = self._clock.monotonic()
            if now - began > _REMOVED_WITHIN:
                message = "the same content is just being removed: push it again"
                raise Unavailable(message, retry_after=_RETRY_AFTER)
            if now - looked > _ABANDONED_AFTER:
                looked = now
                await self._records.abandoned(digest, self._clock.wall() - _MARK_HOLDS)
            await asyncio.sleep(_LOOK)

    # For collections, of which one goes on at a time.

    async def release(self, digest: Digest, held_before: float) -> int:
        """Raises FarFault; then it is gone, or goes with the next collection."""
        now = self._clock.wall()
        size = await self._records.begin_removal(digest, held_before, now)
        if size is None:
            return 0
        await self._content.remove([self._name_of(digest)])
        await self._records.end_removal(digest)
        return size

    async def held(self, held_before: float, after: Digest | None, count: int) -> Sequence[Held]:
        if after is None:
            await self._adopt(held_before)
        return await self._records.held_far(held_before, after, count)

    async def keep(self, digests: Collection[Digest]) -> Sequence[Digest]:
        """Brings there what is here of these and not there; gives those that are neither. Raises
        FarFault, Unavailable."""
        there = await self.there(digests)
        lacking = [digest for digest in digests if digest not in there]
        return [digest for digest in lacking if await self.bring(digest) is None]

    async def there(self, digests: Collection[Digest]) -> Collection[Digest]:
        """Raises FarFault."""
        if not digests:
            return ()
        names = {self._name_of(digest): digest for digest in digests}
        last = max(names)
        there: set[Digest] = set()
        after = min(names)[:-1]
        async for one in self._listed(after):
            if one.name in names:
                there.add(names[one.name])
            if one.name >= last:
                break
        return there

    async def _adopt(self, written_before: float) -> None:
        """Rows for objects that have none: their push was cut, or the records are of a backup."""
        found: list[Kept] = []
        adopted = 0
        async for one in self._listed(""):
            if one.digest is not None and one.at < written_before:
                found.append(Kept(one.digest, one.size, one.at))
            if len(found) >= _PAGE:
                adopted += await self._records.adopt(found)
                found = []
        adopted += await self._records.adopt(found)
        if adopted:
            log.warning("hosted_objects_without_records", count=adopted)

    async def _listed(self, after: str) -> AsyncIterator[FarObject]:
        following: str | None = after
        while following is not None:
            page = await self._content.page(following, _PAGE)
            for one in page.objects:
                yield one
            following = page.following


class HeldHere:
    """What is held on this node's disk, as it was pushed before there was an object store, or a
    push of it was cut: brought there, and from then on a copy. `grace`: seconds, after which what
    no record needs is nobody's; not in the first hour, in which records may be put back out of a
    backup."""

    def __init__(
        self,
        shelf: FarShelf,
        held: HeldContent,
        records: CollectionRecords,
        clock: Clock,
        grace: Callable[[], float],
    ) -> None:
        self._shelf = shelf
        self._held = held
        self._records = records
        self._clock = clock
        self._grace = grace
        self._began = clock.monotonic()

    async def run(self) -> None:
        """For ever."""
        while True:
            pause = _EVERY
            try:
                await self.look()
            except Exception as error:  # the disk, the records, or the object store
                log.warning("hosted_content_still_held", reason=str(error))
                pause = _AGAIN
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Once at all of it. Raises what the shelf, the records or the disk have raised last: after
        some in a row no more is tried."""
        brought = Tally()
        async for one, is_needed in self._pieces():
            try:
                if is_needed:
                    await self._bring(one, brought)
                elif self._may_release and one.held_at < (before := self._in_grace()):
                    await self._held.release(one.digest, before)
            except Exception as error:
                brought.failed(error)
        if brought.count:
            log.info("hosted_content_brought_far", count=brought.count, bytes=brought.size)
        if brought.error is not None:
            raise brought.error

    @property
    def _may_release(self) -> bool:
        return self._clock.monotonic() - self._began >= _EVERY

    def _in_grace(self) -> float:
        """What was held since then may be of a push that is under way."""
        return self._clock.wall() - self._grace()

    async def _bring(self, one: Held, brought: Tally) -> None:
        if await self._shelf.bring(one.digest) is not None:
            await self._held.let_go(one.digest)
            brought.came(one.size)
            if brought.count % _SLICE == 0:
                log.info("hosted_content_goes_far", count=brought.count, bytes=brought.size)

    async def _pieces(self) -> AsyncIterator[tuple[Held, bool]]:
        """What is held here, and whether any record needs it."""
        after: Digest | None = None
        while page := await self._held.held(float("inf"), after, _SLICE):
            after = page[-1].digest
            needed = set(await self._records.needed([one.digest for one in page]))
            for one in page:
                yield one, one.digest in needed


@dataclass(slots=True)
class Tally:
    """What one look has brought. `error`: the last one."""

    count: int = 0
    size: int = 0
    error: Exception | None = None
    _in_a_row: int = 0

    def came(self, size: int) -> None:
        self.count, self.size, self._in_a_row = self.count + 1, self.size + size, 0

    def failed(self, error: Exception) -> None:
        """Raises it where it is one of too many."""
        self.error, self._in_a_row = error, self._in_a_row + 1
        if self._in_a_row >= _MOST_FAILED:
            raise error
