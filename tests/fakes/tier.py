"""A SecondTier in memory, which can be told to be in trouble."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mirror.contracts.files import OpenFile
from mirror.contracts.second_tier import SecondTierFault
from mirror.oci.digest import Digest
from mirror.oci.ranges import ByteRange

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
    and fails at its second one. `takes` False: it is full, or read-only. Failed asks are absence:
    that is the contract."""

    def __init__(self) -> None:
        self.kept: dict[Digest, bytes] = {}
        self.hangs = self.fails = ""
        self.takes = True
        self.asked = 0

    async def wait(self, operation: str) -> None:
        if self.hangs == operation:
            await asyncio.Event().wait()

    async def get(self, digest: Digest, range: ByteRange | None = None) -> MemoryStream | None:
        self.asked += 1
        await self.wait("get")
        data = self.kept.get(digest)
        if data is None or self.fails == "get" or (range and range.start >= len(data)):
            return None
        start, stop = (range.start, range.stop) if range else (0, None)
        return MemoryStream(self, data, start, min(stop or len(data), len(data)))

    async def put(self, digest: Digest, file: OpenFile, size: int) -> bool:
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
