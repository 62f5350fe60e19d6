"""What another node brings, read by this one: who has it, and when to leave who falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque

import structlog
from cachetools import TTLCache

from ...clock import Clock
from ...contracts.events import UpstreamRead, UpstreamRejected
from ...contracts.fleet import SOURCE, Elsewhere, Holder, Nodes, Peers, Wanted, source_of
from ...contracts.second_tier import SecondTierFault, TierStream
from ...events import Events
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.errors import Unavailable
from ...oci.ranges import ByteRange
from ...tasks import ended
from ...times import BODIES, FLEET, STORES, Fleet
from .fetches import Fetch, Fetches

log = structlog.get_logger()

_MOST_ASKED = 16  # nodes for one content, at a time
_MOST_WRONG = 4096
_WRONG_FOR = 600.0  # seconds


class Following:
    """Whom this process follows, and what is known of the others."""

    def __init__(
        self,
        fetches: Fetches,
        peers: Peers,
        nodes: Nodes,
        events: Events,
        clock: Clock,
        times: Fleet = FLEET,
    ) -> None:
        self.fetches = fetches
        self.peers = peers
        self.events = events
        self.clock = clock
        self.times = times
        self._nodes = nodes
        self.following: Counter[Wanted] = Counter()  # streams of each
        # Nodes that are there, as their leases say, and are not reached from here.
        self._apart: set[str] = set()
        self._looked_at = float("-inf")
        self._wrong: TTLCache[tuple[str, Wanted], None] = TTLCache(
            _MOST_WRONG, _WRONG_FOR, clock.monotonic
        )

    async def find(
        self, wanted: Wanted, range: ByteRange | None, patience: float, since: float | None = None
    ) -> Body | Fetch | None:
        """Who brings this content: another node, from `range.start` on; this one, for all; or this
        one for itself (None), where nobody can say, or who does is not reached, or gives nothing of
        it for `patience` seconds. `since`: since when, by the clock, a node that was read from
        until now does not answer."""
        began, away_since, before = self.clock.monotonic(), since, ""
        instead: Holder | None = None
        while True:
            answer = await self.fetches.ask(wanted, instead)
            if not isinstance(answer, Holder):
                return answer
            if before not in ("", answer.url):  # another has taken its place
                began, away_since = self.clock.monotonic(), None
            before = answer.url
            if not self._nodes.knows(answer.url):
                await self._look()
            if not self._may_ask(answer.url, wanted):
                return None
            if not answer.is_here and answer.url not in self._apart:
                self.peers.forgive(answer.url)  # it has a lease by now
            found = await self._given(answer, wanted, range)
            if found is not None:
                return found
            now = self.clock.monotonic()
            if now - began > patience:
                return None
            instead = answer if answer.is_here else None  # it was, and is no more, or is gone
            if instead is not None or self.fetches.fetches(wanted):
                continue
            away_since = (away_since or now) if self.peers.is_away(answer.url) else None
            if away_since is not None and self._is_apart(answer.url, now - away_since):
                return None
            await asyncio.sleep(self.times.again * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)

    async def is_current(self, holder: Holder, wanted: Wanted) -> bool:
        """Whether nobody else is said to bring the content by now, which may be this node. Where
        nobody can say, that its node lives has to do (see Peers)."""
        answer = await self.fetches.ask(wanted)
        return answer is None or (isinstance(answer, Holder) and answer.url == holder.url)

    async def content(
        self, url: str, holder: Holder, wanted: Wanted, range: ByteRange | None
    ) -> TierStream | Elsewhere | None:
        """As Peers.content. A node that is slow to answer is waited for as long as it, or whoever
        has sent us there, is the one that fetches."""
        asked = asyncio.ensure_future(self.peers.content(url, wanted, range))
        try:
            pause = self.times.silent / 2
            while not (await asyncio.wait([asked], timeout=pause))[0]:
                if holder.is_here or not await self.is_current(holder, wanted):
                    await _close(asked)  # it may have come just now
                    return None
                pause = self.times.again
        except BaseException:
            await _close(asked)
            raise
        return asked.result()

    def reject(self, url: str, wanted: Wanted, reason: str) -> None:
        log.error("node_is_wrong", node=url, digest=str(wanted.digest), reason=reason)
        self._wrong[url, wanted] = None
        self.events.emit(UpstreamRejected("", SOURCE))

    async def _look(self) -> None:
        """A node that has just come is known by its lease sooner than by its name."""
        now = self.clock.monotonic()
        if now - self._looked_at < self.times.rests:
            return
        self._looked_at = now
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORES.redis):
                await self._nodes.look()

    def _may_ask(self, url: str, wanted: Wanted) -> bool:
        is_other = url != self._nodes.own and self._nodes.knows(url)
        return is_other and (url, wanted) not in self._wrong

    def _is_apart(self, url: str, away: float) -> bool:
        """Whether a node that has not answered for so many seconds, and holds a lease, lives: that
        of one that died lapses. What was so is so until it answers."""
        if away > self.times.lease + self.times.again and url not in self._apart:
            log.warning("node_is_not_reached", node=url)
            self._apart.add(url)
        return url in self._apart

    async def _given(self, holder: Holder, wanted: Wanted, range: ByteRange | None) -> Body | None:
        """What the holder gives, or one of those to whom it sends us."""
        urls, asked = deque([holder.url]), set[str]()
        while urls and len(asked) < _MOST_ASKED:
            url = urls.popleft()
            if url in asked or not self._may_ask(url, wanted):
                continue
            asked.add(url)
            found = await self.content(url, holder, wanted, range)
            if isinstance(found, Elsewhere):
                others = list(found.urls)[: 4 * _MOST_ASKED]
                random.shuffle(others)
                urls.extend(others)
            elif found is not None:
                self._apart.discard(url)
                return Body(self, wanted, holder, url, found, range.stop if range else None)
        return None


class Body:
    """A StreamContent from another node, until that fails: then `read` raises SecondTierFault."""

    vouched = doubted = False
    kept = True

    def __init__(
        self,
        following: Following,
        wanted: Wanted,
        holder: Holder,
        url: str,
        stream: TierStream,
        stop: int | None,
    ) -> None:
        self.descriptor = Descriptor(OCTET_STREAM, wanted.digest, stream.size)
        self.source = source_of(url)
        self.start = self._position = stream.start
        self.stop = stream.size if stop is None else min(stop, stream.size)
        self._following = following
        self._wanted = wanted
        self._holder = holder
        self._url = url
        self._stream = stream
        self._is_open = True
        following.following[wanted] += 1

    async def read(self) -> bytes:
        if self._position >= self.stop:
            return b""
        clock, times = self._following.clock, self._following.times
        began, pause = clock.monotonic(), times.silent / 2
        while True:
            try:
                async with asyncio.timeout(pause):
                    piece = await self._stream.read()
                break
            except TimeoutError:
                await self._heed_silence(clock.monotonic() - began)
                pause = times.again
        if not piece:
            raise SecondTierFault(f"it ended after {self._position} bytes")
        piece = piece[: self.stop - self._position]
        self._position += len(piece)
        self._following.events.emit(UpstreamRead("", SOURCE, len(piece)))
        return piece

    @property
    def away_since(self) -> float | None:
        """When its node was asked for a sign of life, and gave none; None where it has broken off
        otherwise."""
        following = self._following
        if not following.peers.is_away(self._url):
            return None
        return following.clock.monotonic() - following.times.silent / 2

    def reject(self, reason: str) -> None:
        self._following.reject(self._url, self._wanted, reason)

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            following = self._following.following
            following[self._wanted] -= 1
            if not following[self._wanted]:
                del following[self._wanted]
            await self._stream.close()

    async def _heed_silence(self, seconds: float) -> None:
        """Returns where the node is to be waited for: it fetches, as slowly as the registry gives.
        Raises SecondTierFault, and Unavailable where no registry's silence is borne longer."""
        following = self._following
        if not await following.is_current(self._holder, self._wanted):
            raise SecondTierFault("it was silent, and is not the one that fetches any more")
        if seconds > BODIES.longest:
            raise Unavailable(f"{self.source} is silent, as is the registry")


async def _close(asked: asyncio.Future[TierStream | Elsewhere | None]) -> None:
    """Nobody waits for this any more."""
    asked.cancel()
    await ended([asked])
    if not asked.cancelled() and asked.exception() is None:
        found = asked.result()
        if found is not None and not isinstance(found, Elsewhere):
            await found.close()
