"""A SecondTier in memory, which can be told to be in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mirror.contracts.events import ContentCommitted
from mirror.contracts.files import OpenFile
from mirror.contracts.second_tier import (
    Backlog,
    Due,
    FarFault,
    FarObject,
    FarPage,
    FarStanding,
    SecondTierFault,
)
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.ranges import ByteRange

from .content import MemoryContent, MemoryHit

_PIECE = 1 << 20


@dataclass
class MemoryStream:
    """A TierStream."""

    tier: MemoryTier
    data: bytes
    start: int
    stop: int

    def __post_init__(self) -> None:
        self._position = self.start

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self) -> bytes:
        if self._position > self.start or self.stop - self.start <= _PIECE:
            await self.tier.wait("read")
            if self.tier.fails == "read":
                raise SecondTierFault("told to")
        piece = self.data[self._position : min(self._position + _PIECE, self.stop)]
        self._position += len(piece)
        return piece

    async def close(self) -> None:
        pass


class MemoryTier:
    """`hangs` and `fails`: at "get", "read", "put" or "contains". A stream of several pieces hangs
    and fails at its second one. `takes` False: it is full, or read-only."""

    def __init__(self) -> None:
        self.kept: dict[Digest, bytes] = {}
        self.hangs = self.fails = ""
        self.takes = True
        self.asked = self.puts = 0

    async def wait(self, operation: str) -> None:
        if self.hangs == operation:
            await asyncio.Event().wait()

    async def get(self, digest: Digest, range: ByteRange | None = None) -> MemoryStream | None:
        self.asked += 1
        await self.wait("get")
        if self.fails == "get":
            raise SecondTierFault("told to")
        data = self.kept.get(digest)
        if data is None or (range and range.start >= len(data)):
            return None
        start, stop = (range.start, range.stop) if range else (0, None)
        return MemoryStream(self, data, start, min(stop or len(data), len(data)))

    async def put(self, digest: Digest, file: OpenFile, size: int) -> bool:
        self.puts += 1
        await self.wait("put")
        data = file.pread(size, 0)
        if len(data) < size or not self.takes or self.fails == "put":
            return False
        self.kept[digest] = data
        return True

    async def contains(self, digest: Digest) -> bool:
        await self.wait("contains")
        return digest in self.kept and self.fails != "contains"

    async def close(self) -> None:
        pass


class MemoryFarContent:
    """The FarContent of a MemoryTier. `refuses`: it does nothing that is asked of it. `now`: when
    what has no time in `times` was written."""

    def __init__(self, tier: MemoryTier) -> None:
        self._tier = tier
        self.times: dict[str, float] = {}
        self.others: dict[str, int] = {}  # objects that are none of ours, with their sizes
        self.aside: dict[Digest, bytes] = {}
        self.refuses = False
        self.now = 0.0

    async def page(self, after: str, limit: int) -> FarPage:
        self._check()
        sizes = {str(digest): len(data) for digest, data in self._tier.kept.items()} | self.others
        names = sorted(name for name in sizes if name > after)
        objects = [
            FarObject(
                name,
                None if name in self.others else Digest.parse(name),
                sizes[name],
                self.times.get(name, self.now),
            )
            for name in names[:limit]
        ]
        return FarPage(tuple(objects), names[limit - 1] if len(names) > limit else None)

    async def remove(self, names: Collection[str]) -> int:
        self._check()
        count = 0
        for name in names:
            if name in self.others:
                del self.others[name]
                count += 1
            elif self._tier.kept.pop(Digest.parse(name), None) is not None:
                count += 1
        return count

    async def set_aside(self, digest: Digest) -> None:
        self._check()
        self.aside[digest] = self._tier.kept.pop(digest)

    async def renew(self, digest: Digest) -> None:
        self._check()
        self.times[str(digest)] = self.now

    async def presigned(self, digest: Digest, seconds: int) -> str:
        self._check()
        return f"https://far.example/{digest.hex}?for={seconds}"

    def _check(self) -> None:
        if self.refuses:
            raise FarFault("told to")


class MemoryFar:
    """A FarRecords of a MemoryContent: what the bus says was committed is due."""

    def __init__(self, store: MemoryContent, events: Events) -> None:
        self._store = store
        self._due: dict[Digest, tuple[str, float]] = {}
        self._standing: dict[Digest, FarStanding] = {}
        events.listen(ContentCommitted, self._committed)

    def _committed(self, event: ContentCommitted) -> None:
        self._due[event.digest] = event.repository.registry, float(len(self._due) + 1)
        self._standing[event.digest] = FarStanding.NOT_YET

    def _of(self, source: str) -> list[tuple[float, Digest]]:
        return sorted(
            (
                (came, digest)
                for digest, (its, came) in self._due.items()
                if its == source
                and self._store.is_here(digest)
                and self._standing[digest] is not FarStanding.FAR
            ),
            key=lambda each: each[0],
        )

    def is_far(self, digest: Digest) -> bool:
        return self._store.is_here(digest) and self._standing.get(digest) is FarStanding.FAR

    async def note(self, digest: Digest, standing: FarStanding) -> None:
        self._standing[digest] = standing

    async def given(self, due: Due) -> None:
        before = FarStanding.WRONG if due.is_wrong else FarStanding.NOT_YET
        if self._standing[due.digest] is before:
            self._standing[due.digest] = FarStanding.FAR

    async def sources(self) -> Sequence[str]:
        return [source for source in {its for its, _ in self._due.values()} if self._of(source)]

    async def due(
        self, source: str, newest: bool, passed_over: Collection[Digest], count: int
    ) -> Sequence[Due]:
        found = [each for each in self._of(source) if each[1] not in passed_over]
        chosen = (found[::-1] if newest else found)[:count]
        return [
            Due(
                digest,
                self._store.size(digest),
                came,
                0.0,
                self._standing[digest] is FarStanding.WRONG,
            )
            for came, digest in chosen
        ]

    async def doubt(self, after: str, count: int, noted_before: float) -> str | None:
        return None

    async def backlog(self) -> Backlog:
        return Backlog(sum(len(self._of(source)) for source in await self.sources()), None)

    async def open(self, digest: Digest) -> MemoryHit | None:
        return await self._store.open(digest)
