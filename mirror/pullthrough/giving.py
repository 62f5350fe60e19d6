"""What this node gives to the others of its fleet: what is here, and what comes.

Nothing is fetched for another node, and no third one is asked: so no two wait for one another. And
what a node has from others it gives to none that has as much: of nodes that read from one another
in a ring, each would have to be ahead of the next.
"""

from __future__ import annotations

import asyncio
from math import inf

from ..clock import Clock
from ..contracts.content import ContentStore
from ..contracts.events import ContentCommitted, FillEnded, FillQueued, FillSpilled, PeerFollowing
from ..contracts.fleet import Elsewhere, Holding, Wanted
from ..contracts.registry import FileContent
from ..events import Events
from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from ..oci.ranges import ByteRange
from ..times import FLEET
from .fills.along import Along
from .fills.fill import Fill, FillReader
from .fills.table import Fills

MOST = 8
"""Nodes that read a content from this one as it comes; others read from them."""

_SOON = 16 << 20  # bytes behind what has come: to be waited for, rather than fetched on its own
_LOOK = 0.1  # seconds between two looks at what other processes of this node have brought


@dataclass(frozen=True, slots=True)
class _Node:
    """An Asker: another node, for its clients."""

    client: str
    is_wanted: bool = True
    deadline: float = inf


@dataclass(slots=True)
class Given:
    """Content for another node; `growing`: it is still coming. To be closed."""

    content: FileContent
    size: int
    growing: bool

    def close(self) -> None:
        self.content.close()


class Giving:
    """`processes`: whether there are others of this node, which fetch what this one knows not
    of."""

    def __init__(
        self,
        store: ContentStore,
        fills: Fills,
        holding: Holding,
        events: Events,
        clock: Clock,
        *,
        processes: bool = False,
    ) -> None:
        self._store = store
        self._fills = fills
        self._holding = holding
        self._events = events
        self._along = Along(store, clock) if processes else None
        self._followers: dict[tuple[str, Digest], list[_Following]] = {}
        self._begun: set[tuple[str, Digest]] = set()
        self._change: asyncio.Future[None] | None = None
        events.listen(ContentCommitted, self._changed)
        events.listen(FillQueued, self._begins)
        events.listen(FillEnded, self._ended)
        events.listen(FillSpilled, self._spilled)

    async def content(
        self, wanted: Wanted, part: ByteRange | None, node: str
    ) -> Given | Elsewhere | None:
        """What is here of it, or comes, for this node: a part, None: the whole. None, where there
        is nothing of it, nor will be within `FLEET.small` seconds, nor more than the node says that
        it has. Raises RegistryError where it comes no more."""
        loop = asyncio.get_running_loop()
        came = loop.time()
        while True:
            change = self._next_change()
            content = await self._store.open(wanted.digest)
            if content is not None:
                return Given(content, content.descriptor.size or 0, growing=False)
            fill = await self._running(wanted)
            if fill is not None:
                return await self._follow(wanted, fill, part, node)
            left = came + self._patience(wanted) - loop.time()
            if left <= 0:
                return None
            await asyncio.wait([change], timeout=min(left, _LOOK))

    async def close(self) -> None:
        if self._along is not None:
            await self._along.close()

    def _patience(self, wanted: Wanted) -> float:
        """Seconds for which what has not begun to come is waited for."""
        if (wanted.registry, wanted.digest) in self._begun:
            return 0.0  # and cannot be joined: the disk does not take it
        if self._holding.fetches(wanted):
            return FLEET.small
        return 0.0 if self._along is None else FLEET.beside

    async def _running(self, wanted: Wanted) -> Fill | None:
        fill = self._fills.running(wanted.registry, wanted.digest)
        if fill is None and self._along is not None:
            return await self._along.fill(wanted.registry, wanted.digest)
        return fill

    async def _follow(
        self, wanted: Wanted, fill: Fill, part: ByteRange | None, node: str
    ) -> Given | Elsewhere | None:
        key = (wanted.registry, wanted.digest)
        nodes = dict.fromkeys(each.node for each in self._followers.get(key, ()))
        if node not in nodes and len(nodes) >= MOST:
            return Elsewhere(tuple(nodes))
        start = part.start if part else 0
        if start <= fill.written + _SOON:
            part = None
        reader = self._fills.along(_Node(node), fill, part)
        reader.position = start
        following = _Following(self, key, node, reader)
        try:
            # Whoever holds the lease has it from no other node: what it has will be more.
            patience = None if self._holding.fetches(wanted) else FLEET.silent
            async with asyncio.timeout(patience):
                await reader.readable(start)
                size = await _size(fill)
        except TimeoutError:
            size = None
        except BaseException:
            following.close()
            raise
        if size is None:
            following.close()
            return None
        return Given(following, size, growing=True)

    def begins(self, key: tuple[str, Digest], following: _Following) -> None:
        self._followers.setdefault(key, []).append(following)
        self._events.emit(PeerFollowing(1))

    def ends(self, key: tuple[str, Digest], following: _Following) -> None:
        followers = self._followers[key]
        followers.remove(following)
        if not followers:
            del self._followers[key]
        self._events.emit(PeerFollowing(-1))

    def _begins(self, event: FillQueued) -> None:
        self._begun.add((event.repository.registry, event.digest))
        self._changed(event)

    def _spilled(self, event: FillSpilled) -> None:
        """Through memory, the slowest reader holds up all: other nodes go on where there is
        room."""
        key = (event.repository.registry, event.digest)
        for following in list(self._followers.get(key, ())):
            following.cut()

    def _ended(self, event: FillEnded) -> None:
        self._begun.discard((event.repository.registry, event.digest))
        self._changed(event)

    def _changed(self, _: object) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
        self._change = None

    def _next_change(self) -> asyncio.Future[None]:
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        return self._change


class _Following:
    """A FileContent: the reader of a fill, which counts as long as it reads."""

    def __init__(
        self, giving: Giving, key: tuple[str, Digest], node: str, reader: FillReader
    ) -> None:
        self.node = node
        self._giving, self._key = giving, key
        self._reader = reader
        self._is_open = True
        self.descriptor = reader.descriptor
        self.outcome, self.provenance = reader.outcome, reader.provenance
        self.proven, self.fileno, self.pread = reader.proven, reader.fileno, reader.pread
        self.damaged = reader.damaged
        giving.begins(key, self)

    async def readable(self, beyond: int) -> int:
        if not self._is_open:
            raise Unavailable("the disk takes no more here", retry_after=1)
        limit = await self._reader.readable(beyond)
        if not self._is_open:
            raise Unavailable("the disk takes no more here", retry_after=1)
        return limit

    def cut(self) -> None:
        """It is given no more, and holds up nobody."""
        if self._is_open:
            self._is_open = False
            self._reader.close()
            self._giving.ends(self._key, self)

    def close(self) -> None:
        self.cut()


async def _size(fill: Fill) -> int | None:
    """Of the whole, once it is known; None where that is for `FLEET.small` seconds not so."""
    try:
        async with asyncio.timeout(FLEET.small):
            while fill.size is None and not fill.is_over:
                await fill.next_change()
    except TimeoutError:
        return None
    return fill.size
