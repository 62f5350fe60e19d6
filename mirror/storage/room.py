"""Room on the disk: promised before bytes come, made by forgetting what was used longest ago."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import structlog

from ..interfaces import Entry, StoreFull
from ..oci.digest import Digest
from .coming import Coming
from .index import Ledger

log = structlog.get_logger()

_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """In bytes, but for the marks, which are shares of `max_size`.

    `max_size` is a promise: content and what is set aside for coming content stay within it. Above
    `high` the upkeep evicts down to `low`, so that a fill seldom has to. `min_free` stays free on
    the file system, which may be shared with others.
    """

    max_size: int
    min_free: int = 0
    high: float = 0.98
    low: float = 0.95


class Room:
    """Reserves, and evicts to make room. `evict` removes one piece of content; `settle` records
    the latest uses, so that what was used a moment ago is not taken for old."""

    def __init__(
        self,
        root: Path,
        bounds: Bounds,
        ledger: Ledger,
        evict: Callable[[Digest], Awaitable[None]],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self.bounds = bounds
        self._root = root
        self._ledger = ledger
        self._evict = evict
        self._settle = settle

    async def reserve(self, coming: Coming, size: int, more: int, total: int | None) -> None:
        """Sets aside `size` bytes for what is coming, of which `more` are not on the disk yet.

        Raises StoreFull when eviction cannot make the room.
        """
        if size > self.bounds.max_size:
            raise StoreFull(f"{size} bytes are more than the whole cache may hold")
        for _ in range(_ROUNDS):
            lacking = await self._ledger.here(self.take, coming, size, more, total)
            if lacking <= 0:
                return
            # What would not suffice is not evicted for nothing.
            if lacking > await self._evictable() or not await self.make(lacking):
                break
        raise StoreFull(f"no room for {size} bytes: everything else is pinned or being filled")

    def take(self, coming: Coming, size: int, more: int, total: int | None) -> int:
        """As `reserve`, but nothing is evicted: returns how many bytes are lacking, if any.
        Blocking."""
        return self._note(more, self._ledger.index.reserve, coming, size, total)

    def admit(self, digest: Digest, size: int, now: float, needs: Sequence[Digest]) -> int:
        """As `take`, for content that will be visible in a moment, and records it. Blocking."""
        return self._note(size, self._ledger.index.admit, digest, size, now, needs)

    async def release(self, coming: Coming) -> None:
        await self._ledger.note(self._ledger.index.release, coming)

    async def make(self, wanted: int) -> int:
        """Evicts at least `wanted` bytes, if there are as many; returns how many went."""
        if wanted <= 0:
            return 0
        await self._settle()
        gone = 0
        while gone < wanted:
            try:
                oldest: list[Entry] = await self._ledger.ask(self._ledger.index.oldest)
                for entry in oldest:
                    if gone >= wanted:
                        break
                    await self._evict(entry.digest)
                    gone += entry.size
            except (OSError, apsw.Error) as error:  # a disk that takes nothing, a damaged index
                log.error("cannot evict", reason=str(error))
                break
            if not oldest:
                break
        if gone:
            log.info("evicted", bytes=gone, wanted=wanted)
        return gone

    async def _evictable(self) -> int:
        try:
            return await self._ledger.ask(self._ledger.index.evictable)
        except (OSError, apsw.Error) as error:
            log.error("index does not answer", reason=str(error))
            return 0

    async def tidy(self) -> None:
        """Brings the content below the high-water mark, and the disk above its floor."""
        usage = await self._ledger.ask(self._ledger.index.usage)
        used = usage.content_bytes + usage.reserved_bytes
        excess = 0
        if used > self.bounds.high * self.bounds.max_size:
            excess = used - int(self.bounds.low * self.bounds.max_size)
        await self.make(max(excess, -self._free()))

    def _note(self, more: int, record: Callable[..., None], *arguments: object) -> int:
        lacking = more - self._free()
        if lacking > 0:
            return lacking
        try:
            self._ledger.note_here(record, *arguments)
        except StoreFull as full:
            return int(full.args[0])
        return 0

    def _free(self) -> int:
        """Bytes that may still be written before the floor is reached."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize - self.bounds.min_free
