"""The second tier in front of an upstream, and behind the disk.

Content that a registry's repository shows is asked of the tier before it is asked of the upstream,
as one more endpoint that nobody vouches for: its bytes are proven before they count, though clients
get them meanwhile, but for the end. What is in the tier came through any repository, so it opens
nothing: it counts as content that was here.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from cachetools import TTLCache

from ..clock import Clock
from ..contracts.context import Asker
from ..contracts.events import (
    SecondTierAsked,
    SecondTierWrong,
    UpstreamRead,
    UpstreamRejected,
)
from ..contracts.registry import BytesContent
from ..contracts.second_tier import (
    Due,
    FarContent,
    FarFault,
    SecondTier,
    SecondTierFault,
    TierStream,
)
from ..contracts.upstream import StreamContent, Upstream
from ..events import Events
from ..frozen import dataclass
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..times import STORES
from .forwarding import ForwardingUpstream
from .opened_streams import OpenedStreams
from .streams import FromOffset, proven_manifest

log = structlog.get_logger()

T = TypeVar("T")

NAME = "second-tier"
"""As which it is counted among the endpoints."""

_LATE = 0.25  # seconds
_MOST_PASSED_OVER = 4096  # digests
_PASSED_OVER_FOR = 600.0  # seconds
_MOST_RENEWED = 65_536  # digests
_MOST_RENEWING = 16  # at the same time; others are renewed another time
_MOST_SET_ASIDE = 16  # at the same time; of more it is only remembered that they are wrong


@dataclass(frozen=True, slots=True)
class TierPatience:
    """Seconds. `ask`: for the answer whether the tier has a content. `silent`: for which a stream
    may be waited for, beyond what it would take at `speed` (bytes/s), and `once`: for one piece of
    it. `away`: for which a tier that has exceeded one of them `slow` times, and has not answered
    between, is not asked. `put`: for which putting one content may take, beyond what it would take
    at `speed`."""

    ask: float = STORES.tier
    silent: float = STORES.tier_silent
    once: float = STORES.tier_once
    speed: float = 4 << 20
    slow: int = 1
    away: float = STORES.tier_rests
    put: float = 60.0


OF_A_BUCKET = TierPatience(speed=512 << 10, slow=3)
"""A single request to an object store is slow now and then; and where many are read at once, each
is slow, which the upstream would be too."""


async def _within(seconds: float, ask: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """What is asked for, which may be asked for again. Raises TimeoutError: not where this process
    has stood still, or had much to do, so that time was up though the tier was quick."""
    began = clock.monotonic()
    try:
        async with asyncio.timeout(seconds):
            return await ask()
    except TimeoutError:
        if clock.monotonic() - began < seconds + _LATE:
            raise
    async with asyncio.timeout(max(seconds, _LATE)):
        return await ask()


class TierState:
    """What is known of the tier, by all that ask it."""

    def __init__(
        self,
        tier: SecondTier,
        events: Events,
        clock: Clock,
        patience: TierPatience | None = None,
        far: FarContent | None = None,
        renewed_after: float | None = None,
    ) -> None:
        """`far`: what else can be done with the tier, where it is an object store. What is used is
        renewed there after so many seconds; None: it is not."""
        self.tier = tier
        self.far = far
        self.renewed_after = renewed_after
        self.events = events
        self.clock = clock
        self.patience = patience or TierPatience()
        self._away_until = float("-inf")
        self._slow = 0  # times, since it has answered
        self._opened = OpenedStreams()
        self._wrong: TTLCache[Digest, bool] = TTLCache(
            _MOST_PASSED_OVER, _PASSED_OVER_FOR, clock.monotonic
        )
        self._setting_aside: dict[Digest, asyncio.Task[None]] = {}
        self._renewed: TTLCache[Digest, None] = TTLCache(
            _MOST_RENEWED, renewed_after or 1.0, clock.monotonic
        )
        self._renewing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """What is being set aside is not waited for: it is found wrong again."""
        await self._opened.close()
        tasks = [*self._setting_aside.values(), *self._renewing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_away(self) -> bool:
        return self.clock.monotonic() < self._away_until

    def hangs(self, what: str) -> None:
        """The tier was too slow: it is left alone for a while, if it was before."""
        self._slow += 1
        if self._slow == self.patience.slow:
            log.warning("second_tier_is_slow", operation=what, left_alone_for=self.patience.away)
        if self._slow >= self.patience.slow:
            self._away_until = self.clock.monotonic() + self.patience.away

    def answers(self) -> None:
        """The tier was quick enough."""
        if self._slow >= self.patience.slow and not self.is_away:
            log.info("second_tier_answers_again")
        if not self.is_away:
            self._slow = 0

    def is_wrong(self, digest: Digest) -> bool:
        """Whether what the tier has of this digest was of no use a moment ago."""
        return digest in self._wrong

    def is_to_be_replaced(self, digest: Digest) -> bool:
        """Whether what the tier has of this digest is wrong, and was not set aside."""
        return self._wrong.get(digest, False)

    def broke_off(self, digest: Digest) -> None:
        """The tier did not give the rest of it. An object store has an object whole, or not: it may
        be good. A file may not."""
        self._wrong[digest] = self.is_to_be_replaced(digest) or self.far is None

    def replaced(self, digest: Digest) -> None:
        self._wrong.pop(digest, None)

    async def get(self, digest: Digest, range: ByteRange | None) -> TierStream | None:
        stream = None
        if self.is_away:
            self.events.emit(SecondTierAsked("away"))
            return None
        if not self.is_wrong(digest):
            stream = self._opened.take(digest) if range is None else None
            try:
                if stream is None:
                    get = functools.partial(self.tier.get, digest, range)
                    stream = await _within(self.patience.ask, get, self.clock)
                self.answers()
            except TimeoutError:
                self.hangs("get")
                self.events.emit(SecondTierAsked("away"))
                return None
            except SecondTierFault:  # told by the tier
                self.events.emit(SecondTierAsked("away"))
                return None
        self.events.emit(SecondTierAsked("miss" if stream is None else "hit"))
        if stream is not None:
            self.used(digest)
        return stream

    async def has(self, digest: Digest) -> bool:
        """Whether the tier has something of this name, which `get` would give: as a rule that of
        the whole is begun by it."""
        if self.is_away or self.is_wrong(digest):
            return False
        if digest in self._opened:
            return True
        try:
            async with asyncio.timeout(self.patience.ask):
                if not self._opened.have_room:
                    return await self.tier.contains(digest)
                stream = await self.tier.get(digest)
        except TimeoutError:
            self.hangs("contains")
            return False
        except SecondTierFault:  # told by the tier
            return False
        if stream is None:
            return False
        await self._opened.keep(digest, stream)
        return True

    def used(self, digest: Digest) -> None:
        """Somebody reads it from the tier, where it is to count as used: that is told behind, once
        in a while."""
        if self.far is None or self.renewed_after is None or digest in self._renewed:
            return
        self._renewed[digest] = None
        if len(self._renewing) < _MOST_RENEWING:
            task = asyncio.create_task(self._renew(self.far, digest))
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)

    async def renew_used(self, due: Due) -> None:
        """Content that is here and there, and is read from here."""
        after = self.renewed_after
        if self.far is not None and after is not None and self.clock.wall() - due.used < after:
            await self._renew(self.far, due.digest)

    async def _renew(self, far: FarContent, digest: Digest) -> None:
        try:
            await far.renew(digest)
        except FarFault as error:
            log.warning("second_tier_failed", operation="renew", reason=str(error))

    def reject(self, digest: Digest, reason: str) -> None:
        """What the tier has of this digest is wrong. It is not read again from here, and moved away
        behind, so that nobody else reads it."""
        log.error("second_tier_is_wrong", digest=str(digest), reason=reason)
        self._wrong[digest] = True
        self.events.emit(UpstreamRejected("", NAME))
        if self.far is None or len(self._setting_aside) >= _MOST_SET_ASIDE:
            self.events.emit(SecondTierWrong(digest, set_aside=False))
        elif digest not in self._setting_aside:
            task = asyncio.create_task(self._set_aside(self.far, digest))
            self._setting_aside[digest] = task
            task.add_done_callback(lambda _: self._setting_aside.pop(digest, None))

    async def _set_aside(self, far: FarContent, digest: Digest) -> None:
        try:
            await far.set_aside(digest)
        except FarFault as error:
            log.error("second_tier_wrong_not_set_aside", digest=str(digest), reason=str(error))
            self.events.emit(SecondTierWrong(digest, set_aside=False))
            return
        self.replaced(digest)
        log.warning("second_tier_wrong_set_aside", digest=str(digest))
        self.events.emit(SecondTierWrong(digest, set_aside=True))


class _TierBody:
    """A StreamContent: one stream of the tier, for which its reader waits `silent` seconds at most.
    The tier is of the mirror's own kind: what it has is wrong by a fault at most."""

    vouched = doubted = False
    kept = True
    source = NAME

    def __init__(self, state: TierState, digest: Digest, stream: TierStream) -> None:
        self.descriptor = Descriptor(OCTET_STREAM, digest, stream.size)
        self.start = stream.start
        self._state = state
        self._stream = stream
        self._waited = 0.0  # seconds
        self._came = 0  # bytes

    async def read(self) -> bytes:
        """The next bytes. Raises SecondTierFault, also when the tier is too slow."""
        state, began = self._state, self._state.clock.monotonic()
        patience = state.patience
        left = patience.silent + self._came / patience.speed - self._waited
        seconds = max(0.0, min(left, patience.once))
        try:
            piece = await _within(seconds, self._stream.read, state.clock)
        except TimeoutError:
            state.hangs("read")
            raise SecondTierFault("the second tier is too slow") from None
        except SecondTierFault:
            state.broke_off(self.descriptor.digest)
            raise
        finally:
            waited = state.clock.monotonic() - began
            if waited < seconds + _LATE:  # else it was this process that was late
                self._waited += waited
        self._came += len(piece)
        state.events.emit(UpstreamRead("", NAME, len(piece)))
        return piece

    def reject(self, reason: str) -> None:
        self._state.reject(self.descriptor.digest, reason)

    async def close(self) -> None:
        await self._stream.close()


class TieredStream:
    """A StreamContent: from the second tier as far as that goes, the rest from the upstream.

    `rest` asks the upstream for what follows an offset."""

    def __init__(
        self,
        body: _TierBody,
        stop: int | None,
        rest: Callable[[ByteRange], Awaitable[StreamContent]],
    ) -> None:
        size = body.descriptor.size or 0
        self.start = self._position = body.start
        self._tier = body
        self._asked_stop = stop
        self._stop = size if stop is None else min(stop, size)
        self._rest = rest
        self._is_broken = False
        self._upstream: StreamContent | None = None
        self._following: FromOffset | None = None

    @property
    def _current(self) -> StreamContent:
        """Whoever's bytes were read last."""
        return self._upstream or self._tier

    @property
    def descriptor(self) -> Descriptor:
        return self._current.descriptor

    @property
    def source(self) -> str:
        return self._current.source

    @property
    def vouched(self) -> bool:
        return self._current.vouched

    @property
    def doubted(self) -> bool:
        return self._current.doubted

    @property
    def kept(self) -> bool:
        return self._current.kept

    @property
    def reject(self) -> Callable[[str], None]:
        """Of whoever's bytes were read last: it may be called when others' have come."""
        return self._current.reject

    async def read(self) -> bytes:
        if not self._is_broken:
            if self._position >= self._stop:
                return b""
            try:
                piece = await self._tier.read()
                self._position += len(piece)
                return piece
            except SecondTierFault as error:
                digest = str(self.descriptor.digest)
                log.warning("second_tier_broke_off", digest=digest, reason=str(error))
                self._is_broken = True
        if self._following is None:
            self._upstream = await self._rest(ByteRange(self._position, self._asked_stop))
            self._following = FromOffset(self._upstream, self._position)
        return await self._following.read()

    async def close(self) -> None:
        await self._tier.close()
        if self._upstream is not None:
            await self._upstream.close()


class Tiered(ForwardingUpstream):
    """An Upstream: the second tier where that has the content, else `inner`."""

    def __init__(self, inner: Upstream, state: TierState) -> None:
        super().__init__(inner)
        self._state = state

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        found = await self._manifest(digest)
        return found or await self._inner.manifest(asker, repository, digest)

    async def _manifest(self, digest: Digest) -> BytesContent | None:
        stream = await self._state.get(digest, None)
        if stream is None:
            return None
        try:
            return await proven_manifest(_TierBody(self._state, digest, stream))
        except SecondTierFault:
            return None

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        stream = await self._state.get(digest, range)
        if stream is None:
            return await self._inner.blob(asker, repository, digest, range, vouched)
        return TieredStream(
            _TierBody(self._state, digest, stream),
            range.stop if range else None,
            lambda rest: self._inner.blob(asker, repository, digest, rest, vouched),
        )
