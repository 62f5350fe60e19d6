"""A fleet in memory: leases that nobody has to renew, and nodes that give what they have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.contracts.content import ContentStore
from mirror.contracts.fleet import Elsewhere, Holder, Wanted
from mirror.contracts.registry import FileContent, Outcome
from mirror.contracts.second_tier import SecondTierFault
from mirror.oci.errors import RegistryError
from mirror.oci.ranges import ByteRange
from mirror.pullthrough.fills.table import Fills

_PIECE = 1 << 16


@dataclass
class MemoryNode:
    """What a node of the fleet has and fetches. It `answers`, or hangs until it does."""

    store: ContentStore
    fills: Fills
    fetches: Callable[[Wanted], bool] = lambda wanted: False
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    others: tuple[str, ...] = ()  # to which it sends everybody
    lies: bool = False

    def __post_init__(self) -> None:
        self.answers.set()


@dataclass
class MemoryRedis:
    """Who has what. `away`: it does not answer. Killed nodes have no leases."""

    held: dict[Wanted, Holder] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    def kill(self, url: str) -> None:
        self.held = {
            wanted: holder
            for wanted, holder in self.held.items()
            if holder.url != url or holder.is_here
        }


@dataclass(eq=False)
class MemoryLease:
    redis: MemoryRedis
    wanted: Wanted
    holder: Holder

    @property
    def is_lost(self) -> bool:
        return self.redis.held.get(self.wanted) != self.holder

    async def has_come(self) -> None:
        if self.redis.held.get(self.wanted, self.holder) == self.holder:
            self.redis.held[self.wanted] = Holder(self.holder.url, is_here=True)

    async def give_back(self) -> None:
        if self.redis.held.get(self.wanted) == self.holder:
            del self.redis.held[self.wanted]


class MemoryLeases:
    """The Leases of one node."""

    def __init__(self, redis: MemoryRedis, own: str) -> None:
        self._redis = redis
        self._own = own

    async def ask(
        self, wanted: Wanted, instead: Holder | None = None
    ) -> MemoryLease | Holder | None:
        self._redis.asked += 1
        await asyncio.sleep(0)
        if self._redis.away:
            return None
        held = self._redis.held.get(wanted)
        if held is not None and held != instead and held.url != self._own:
            return held
        own = self._redis.held[wanted] = Holder(self._own)
        return MemoryLease(self._redis, wanted, own)

    async def close(self) -> None:
        pass


class MemoryStream:
    """A TierStream over what a node has, or what comes there."""

    def __init__(self, node: MemoryNode, content: FileContent, start: int, stop: int) -> None:
        assert content.descriptor.size is not None
        self.size = content.descriptor.size
        self.start = self._position = start
        self._stop = stop
        self._node = node
        self._content = content
        self._is_open = True

    async def read(self) -> bytes:
        await self._node.answers.wait()
        if not self._is_open:
            raise SecondTierFault("killed")
        if self._position >= self._stop:
            return b""
        try:
            limit = await self._content.readable(self._position)
        except RegistryError as error:
            raise SecondTierFault(error.message) from None
        count = min(limit, self._stop, self._position + _PIECE) - self._position
        piece = self._content.pread(count, self._position)
        self._position += len(piece)
        return bytes(len(piece)) if self._node.lies else piece

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._content.close()


class MemoryPeers:
    """`nodes` by their URLs. Those that are missing are away."""

    def __init__(self, nodes: dict[str, MemoryNode]) -> None:
        self.nodes = nodes
        self.asked: list[tuple[str, ByteRange | None]] = []
        self.streams: list[tuple[str, MemoryStream]] = []

    async def content(
        self, url: str, wanted: Wanted, range: ByteRange | None = None
    ) -> MemoryStream | Elsewhere | None:
        self.asked.append((url, range))
        if (node := self.nodes.get(url)) is None:
            return None
        await node.answers.wait()
        if node.others:
            return Elsewhere(node.others)
        content: FileContent | None = await node.store.open(wanted.digest)
        while content is None:
            fill = node.fills.running(wanted.registry, wanted.digest)
            if fill is not None and fill.size is not None:
                content = fill.reader(Outcome.JOINED, fill.repository)
            elif fill is None and not node.fetches(wanted):
                return None
            else:
                await asyncio.sleep(0.01)
                content = await node.store.open(wanted.digest)
        start = range.start if range else 0
        stop = content.descriptor.size or 0
        if range is not None and range.stop is not None:
            stop = min(stop, range.stop)
        stream = MemoryStream(node, content, start, stop)
        self.streams.append((url, stream))
        return stream

    def is_away(self, url: str) -> bool:
        return url not in self.nodes

    def forgive(self, url: str) -> None:
        pass

    async def kill(self, url: str) -> None:
        self.nodes.pop(url, None)
        for node, stream in self.streams:
            if node == url:
                await stream.close()

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class ListedNodes:
    own: str
    urls: frozenset[str]

    def knows(self, url: str) -> bool:
        return url in self.urls

    async def look(self) -> None:
        pass

    def url_of(self, mark: str) -> str | None:
        return None
