"""Room on the disk: reserved as bytes come, made by forgetting what was used longest ago."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import apsw
import structlog

from ...clock import Clock
from ...contracts.content import StoreFull
from ...oci.digest import Digest
from ...threads import Threads
from .async_index import AsyncIndex
from .free_space import FreeSpace
from .index import Arrival, Exceeded
from .ingest_key import IngestKey, PartialKey

log = structlog.get_logger()

T = TypeVar("T")

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a file system that has no room, or of a limit on what there may be."""

_ROUNDS = 64
_BATCH = 64  # pieces that go at a time
_PASSED = 4 * _BATCH  # pieces that do not go, behind which others are looked for

# Room is reserved for more bytes than have come, so that no piece costs a record: three times as
# many as there are, at most so many, and at most this share of all.
_TIMES = 3
_MOST = 8 << 20
_SHARE = 256

_GUESTS = 8  # the share of all that guests may have at the cost of others

_FOR_RECORDS = 4 << 20  # bytes that stay free for the databases beside the content, and
_RECORDS_SHARE = 100  # of a small disk this share

# Eviction for a full disk is in vain when no write finds room by it, and so many bytes of what has
# gone do not come free; after some tries, when this share of all does not. Less says nothing, as
# others write meanwhile. Then nothing is evicted for the disk for so many seconds, each time twice
# as long.
_LOST = 64 << 20
_LOST_SHARE = 512
_TRIES = 3
_VAIN = 10.0
_LONGEST_VAIN = 600.0
_NAMES = 16  # pieces that go where a file system has no name left for another file


@dataclass(frozen=True, slots=True)
class Bounds:
    """In bytes, but for the marks, which are shares of `max_size`.

    `max_size` is a promise: content, and what is reserved for partials, stay within it. Above
    `high` the upkeep evicts down to `low`, so that a fill seldom has to. `min_free` stays free on
    the file system, which may be shared with others. `evicts` False: what is here stays, and what
    finds no room beside it is not kept. A file takes whole blocks of `block` bytes; 0: those of the
    file system.
    """

    max_size: int
    min_free: int = 0
    high: float = 0.98
    low: float = 0.95
    evicts: bool = True
    block: int = 0


@dataclass(frozen=True, slots=True)
class SpaceClaim:
    """Room for `size` bytes in all of a partial, `more` of which are not on the disk yet. It
    will have `total` bytes when it is whole, where that is known. `guest`: see Index."""

    key: PartialKey
    size: int
    more: int
    total: int | None = None
    guest: bool = False


class ForGuests(StoreFull):
    """There is no room for a guest, though there may be for others."""


@dataclass(frozen=True, slots=True)
class _Lack:
    """Bytes that have to go: by the account, and on the disk. `ceiling`: see Index.reserve."""

    account: int
    disk: int
    ceiling: int = 0
    guests: bool = False  # only guests' content may go

    @property
    def bytes(self) -> int:
        return max(self.account, self.disk)


class SpaceManager:
    """Reserves room, and evicts to make it.

    `evict` removes pieces of content, and returns how many bytes of it were recorded; `settle`
    records the latest uses, so that what was used a moment ago is not taken for old.
    """

    def __init__(
        self,
        root: Path,
        bounds: Bounds,
        async_index: AsyncIndex,
        clock: Clock,
        evict: Callable[[Sequence[Digest]], Awaitable[int]],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self.bounds = bounds
        self.index = async_index
        self._root = root
        self._async_index = async_index
        self._clock = clock
        self._evict = evict
        self._settle = settle
        self._evicting = asyncio.Lock()
        # Since there was room on the disk last: how often it was evicted for. Bytes before the
        # first time: what others have on the disk, less the whole of it, and what was reserved.
        self._tries = self._elsewhere = self._coming = 0
        self._vain_until = 0.0
        self._vain_for = _VAIN

    def ahead(self, there: int) -> int:
        """Bytes for which room is reserved beyond those that are there."""
        return min(_MOST, self.bounds.max_size // _SHARE, _TIMES * there)

    def disk(self) -> FreeSpace:
        """What the file system has left. Raises OSError."""
        return FreeSpace.at(self._root)

    def refuse_larger(self, size: int) -> None:
        """Raises StoreFull where so many bytes could never be kept."""
        if size > self.bounds.max_size:
            raise StoreFull(f"{size} bytes are more than the whole cache may hold")

    async def reserve(self, claim: SpaceClaim) -> None:
        """Reserves the room. Raises StoreFull when eviction cannot make it, or could not make it
        for the whole; OSError."""
        if await self._async_index.here(self._take, claim) is None:
            if claim.more:
                self._gained()
            return
        async with self._evicting:
            await self._make_for(claim)

    def reserve_here(self, claim: SpaceClaim) -> bool:
        """As `reserve`, in this thread, which is not the event loop's; False where something would
        have to be evicted. Blocking; raises StoreFull, OSError."""
        if self._take(claim) is not None:
            return False
        if claim.more:
            self._gained()
        return True

    def admit(self, arrivals: Sequence[Arrival], now: float) -> bool:
        """Records content that will be visible in a moment, if there is room for all of it now.
        Blocking; raises StoreFull, OSError."""
        index, size = self._async_index.index, sum(each.size for each in arrivals)
        claim = SpaceClaim(
            IngestKey(arrivals[0].digest), size, size, guest=any(each.guest for each in arrivals)
        )
        return self._take(claim, record=lambda: index.admit(arrivals, now)) is None

    async def keep(self, key: PartialKey, size: int) -> None:
        """Reserves what is on the disk of a partial whose writer has stopped."""
        await self._async_index.note(self._async_index.index.keep, key, size)

    async def make_once(self, size: int) -> bool:
        """Evicts for a write that the disk has refused, though it seemed to have the room (it was
        taken meanwhile, or there is a quota); whether anything went."""
        if self._clock.monotonic() < self._vain_until:
            return False
        async with self._evicting:
            return await self.make(size) > 0

    async def release(self, key: PartialKey) -> None:
        await self._async_index.note(self._async_index.index.release, key)

    async def make(self, wanted: int, guests: bool = False) -> int:
        """Evicts so many bytes at least, if there are as many; returns how many went. `guests`:
        only of theirs."""
        if wanted <= 0 or not self.bounds.evicts:
            return 0
        gone, passed = 0, set[Digest]()
        try:
            await self._settle()
            await self._async_index.ask(self._async_index.index.has_clock, self._clock.wall())
            while gone < wanted and len(passed) < _PASSED:
                if not (batch := await self._oldest(wanted - gone, guests, passed)):
                    break
                went = await self._evict(batch)
                if not went:  # another process may have evicted the same
                    passed.update(batch)
                gone += went
        except (OSError, apsw.Error) as error:  # a disk that takes nothing, a damaged index
            log.error("cannot_evict", reason=str(error))
        if gone:
            log.info("evicted", bytes=gone, wanted=wanted)
        return gone

    async def _make_on_disk(self, wanted: int, guests: bool = False) -> int:
        """As `make`. Where the disk does not gain by it, nothing is evicted for it for a while:
        others take what comes free, or have open what was evicted. Raises StoreFull then,
        and OSError."""
        lost = await self._lost()
        if self._clock.monotonic() < self._vain_until:
            raise StoreFull("the disk is full, and what is evicted does not come free")
        self._tries += 1
        gone = await self.make(wanted, guests)
        if not gone:
            self._in_vain(lost)
        return gone

    async def _lost(self) -> int:
        """Bytes that went from the account since the first try, and did not come free; what other
        fills take of them is in the account. Where they are too many, it is in vain. Raises
        StoreFull, OSError."""
        try:
            usage = await self._async_index.ask(self._async_index.index.usage)
        except apsw.Error as error:
            raise StoreFull(f"the account of the content cannot be read: {error}") from error
        elsewhere = -FreeSpace.at(self._root).free - usage.content_bytes - usage.reserved_bytes
        if not self._tries:
            self._elsewhere, self._coming = elsewhere, usage.reserved_bytes
        lost = elsewhere - self._elsewhere
        # What had been reserved before may have been written meanwhile.
        few = self.bounds.max_size // _LOST_SHARE + self._coming
        if lost > (min(few, _LOST) if self._tries >= _TRIES else _LOST):
            self._in_vain(lost)
        return lost

    def _gained(self) -> None:
        """There was room on the disk: what is evicted comes free, for this claim or for another."""
        self._tries = 0
        self._vain_for = _VAIN

    def _in_vain(self, lost: int) -> None:
        log.error("eviction_frees_nothing", tries=self._tries, lost=lost)
        self._tries = 0
        self._vain_until = self._clock.monotonic() + self._vain_for
        self._vain_for = min(2 * self._vain_for, _LONGEST_VAIN)

    async def _oldest(self, wanted: int, guests: bool, passed: Set[Digest]) -> list[Digest]:
        """Of what may go and was not `passed`, as much as makes so many bytes, or a batch."""
        index = self._async_index.index
        found, size = list[Digest](), 0
        for entry in await self._async_index.ask(index.oldest, _BATCH + len(passed), guests):
            if size >= wanted or len(found) == _BATCH:
                break
            if entry.digest not in passed:
                found.append(entry.digest)
                size += index.taken(entry.size)
        return found

    async def making_names(self, files: Threads, work: Callable[..., T], *arguments: object) -> T:
        """Does `work` on one of these threads; where the file system takes no other file, something
        is evicted for it."""
        try:
            return await files.run(work, *arguments)
        except OSError as error:
            if error.errno not in FULL or not await self.make_names():
                raise
        return await files.run(work, *arguments)

    async def make_names(self) -> bool:
        """Evicts where the file system takes no other file; whether it may take one now."""
        async with self._evicting:
            if not self.bounds.evicts or self._clock.monotonic() < self._vain_until:
                return False
            before = FreeSpace.at(self._root)
            try:
                await self._settle()
                batch = await self._async_index.ask(self._async_index.index.oldest, _NAMES)
                gone = await self._evict([entry.digest for entry in batch])
            except (OSError, apsw.Error) as error:
                log.error("cannot_evict", reason=str(error))
                return False
            now = FreeSpace.at(self._root)
            log.info("evicted", bytes=gone, pieces=len(batch), wanted="names of files")
            if (now.files or 0) <= (before.files or 0) and now.free <= before.free:
                self._in_vain(gone)
            return bool(batch)

    async def tidy(self) -> None:
        """Brings the content below the high-water mark, and the disk above its floor."""
        usage = await self._async_index.ask(self._async_index.index.usage)
        used = usage.content_bytes + usage.reserved_bytes
        if used > self.bounds.high * self.bounds.max_size:
            await self.make(used - int(self.bounds.low * self.bounds.max_size))
        if self.bounds.min_free:
            lacking = self.bounds.min_free - FreeSpace.at(self._root).free
            evictable = await self._async_index.ask(self._async_index.index.evictable)
            # What the content cannot give is others': it is not thrown away for that.
            if 0 < lacking <= evictable:
                with contextlib.suppress(StoreFull):
                    await self._make_on_disk(lacking)
            elif lacking <= 0:
                self._gained()

    # Inside.

    def _take(
        self, claim: SpaceClaim, ceiling: int = 0, record: Callable[[], None] | None = None
    ) -> _Lack | None:
        """Reserves the room, or does as `record` says; or tells what is lacking. Blocking; raises
        StoreFull where it cannot be had, not even by eviction; OSError."""
        space = FreeSpace.at(self._root)
        self._async_index.index.database.look(now=True)
        try:
            return self._async_index.ask_here(self._take_of, space, claim, ceiling, record)
        except apsw.FullError:
            return _Lack(0, _for_records(space), guests=claim.guest)
        except (apsw.Error, OSError) as error:
            raise StoreFull(f"the account of the content takes no record: {error}") from error

    def _take_of(
        self, space: FreeSpace, claim: SpaceClaim, ceiling: int, record: Callable[[], None] | None
    ) -> _Lack | None:
        index = self._async_index.index
        free = space.free - floor_of(self.bounds, space)
        self._refuse_impossible(claim, free)
        guests = claim.guest and index.guests() + claim.more > self._guests_share
        if claim.more > free:
            return _Lack(0, claim.more - free, guests=guests)
        if index.is_away:
            raise StoreFull("the account of the content cannot be written")
        try:
            if record is not None:
                record()
            else:
                index.reserve(claim.key, claim.size, claim.total, ceiling, guest=claim.guest)
        except Exceeded as more:
            return _Lack(more.lacking, 0, more.there, guests)
        return None

    def _refuse_impossible(self, claim: SpaceClaim, free: int) -> None:
        """What would not suffice is not evicted for nothing. Raises StoreFull, apsw.Error."""
        index = self._async_index.index
        size = max(claim.size, claim.total or 0)
        self.refuse_larger(size)
        others = index.others(claim.key)
        on_disk = size - (claim.size - claim.more) - free
        lacking = max(others + index.taken(size) - self.bounds.max_size, on_disk)
        if lacking <= 0:
            return
        evictable = index.evictable() if self.bounds.evicts else 0
        if lacking > evictable:
            raise StoreFull(
                f"no room for {size} bytes: {lacking} are lacking "
                + ("on the disk" if lacking == on_disk else "in the cache")
                + f", and of what is here {evictable} may be evicted"
            )
        if claim.guest:
            allowed = max(0, self._guests_share - index.guests()) + index.evictable(guests=True)
            if lacking > allowed:
                raise ForGuests(f"no room for {size} bytes of a source that is not trusted")

    async def _make_for(self, claim: SpaceClaim) -> None:
        """Evicts until the room is reserved. Raises as `reserve`."""
        ceiling, gone = 0, 1
        for _ in range(_ROUNDS):
            lack = await self._async_index.here(self._take, claim, ceiling)
            if lack is None:
                self._gained()
                return
            if not gone:
                raise StoreFull(f"{lack.bytes} bytes are lacking, and eviction does not make them")
            ceiling = max(ceiling, lack.ceiling)
            if lack.disk:
                gone = await self._make_on_disk(lack.disk, lack.guests)
            else:
                gone = await self.make(lack.account, lack.guests)
        raise StoreFull(f"no room for {claim.size} bytes: others take what eviction gives")

    @property
    def _guests_share(self) -> int:
        return self.bounds.max_size // _GUESTS


def floor_of(bounds: Bounds, space: FreeSpace) -> int:
    """Bytes that stay free on the disk."""
    return bounds.min_free + _for_records(space)


def _for_records(space: FreeSpace) -> int:
    return min(_FOR_RECORDS, space.total // _RECORDS_SHARE)
