"""The second tier is given what is here and proven, behind the answers.

What is due is recorded with the content itself (see FarRecords): it outlives this process, and is
tried until the second tier has it, or until it is evicted here. Each source has its turn, and of
each what came last and what came first alternate: others may wait for what has just come, and
nothing waits for ever. What was here before there was a second tier comes when nothing else is due.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum

import structlog

from ..clock import Clock
from ..contracts.events import (
    ContentCommitted,
    ContentEvicted,
    SecondTierBacklog,
    SecondTierGiven,
    SecondTierMissed,
    SecondTierWrong,
)
from ..contracts.fleet import Holder, Leases, Wanted
from ..contracts.second_tier import Due, FarFault, FarRecords, FarStanding
from ..frozen import dataclass
from ..oci.digest import Digest
from .second_tier import NAME, TierState

log = structlog.get_logger()

_MOST_PASSED_OVER = 256  # contents


@dataclass(frozen=True, slots=True)
class UploadPace:
    """`at_once`: contents that are given at the same time. In seconds: `look`: between two looks at
    what is due, which other processes may have brought. `pause`: after the first failure, doubled
    up to `longest_pause`. `passed_over`: for which one that failed gives way to all others, doubled
    up to `longest_passed_over`. `tell`: between two counts of what is due; then so many contents
    are `doubted`: whether those are still far that were noted as such `doubted_after` ago."""

    at_once: int = 3
    look: float = 1.0
    pause: float = 1.0
    longest_pause: float = 30.0
    passed_over: float = 5.0
    longest_passed_over: float = 120.0
    tell: float = 15.0
    doubted: int = 2000
    doubted_after: float = 30 * 86400.0


class _Given(Enum):
    SENT = "sent"
    THERE = "there"  # before
    REFUSED = "refused"
    GONE = "gone"  # from here
    ELSEWHERE = "elsewhere"  # another node is at it


class FarNotes:
    """Notes what this process sees of the second tier: what came from there is there, and what was
    wrong there is to be replaced. What was evicted before it went there is told."""

    def __init__(self, state: TierState, records: FarRecords) -> None:
        self._state = state
        self._records = records
        self._noting: set[asyncio.Task[None]] = set()
        state.events.listen(ContentCommitted, self._committed)
        state.events.listen(ContentEvicted, self._evicted)
        state.events.listen(SecondTierWrong, self._wrong)

    async def close(self) -> None:
        await asyncio.gather(*self._noting, return_exceptions=True)

    def _committed(self, event: ContentCommitted) -> None:
        if set(event.sources) == {NAME}:
            self._note(event.digest, FarStanding.FAR)
        elif self._state.is_to_be_replaced(event.digest):
            self._note(event.digest, FarStanding.WRONG)

    def _note(self, digest: Digest, standing: FarStanding) -> None:
        task = asyncio.create_task(self._records.note(digest, standing))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    def _wrong(self, event: SecondTierWrong) -> None:
        """A right one may be here already, and may have been given meanwhile."""
        wrong, not_yet = FarStanding.WRONG, FarStanding.NOT_YET
        self._note(event.digest, not_yet if event.set_aside else wrong)

    def _evicted(self, event: ContentEvicted) -> None:
        if event.is_due:
            self._state.events.emit(SecondTierMissed(event.digest, event.size))


class FarUploads:
    """By the one process that keeps the store's house. `leases`: by them one node gives what
    several of a fleet have got at the same time, and the others look later whether it is there."""

    def __init__(
        self,
        state: TierState,
        records: FarRecords,
        clock: Clock,
        pace: UploadPace | None = None,
        leases: Leases | None = None,
    ) -> None:
        self._state = state
        self._records = records
        self._clock = clock
        self._pace = pace or UploadPace()
        self._leases = leases
        self._doubted_after = min(self._pace.doubted_after, state.renewed_after or math.inf)
        self._something = asyncio.Event()  # came in this process
        self._choosing = asyncio.Lock()
        self._under_way: set[Digest] = set()
        self._tried = _PassedOver(clock, self._pace)
        self._last_source = ""
        self._newest: dict[str, bool] = {}  # by source: whether what came last is next
        self._failures = 0  # since the last success
        self._resting_until = float("-inf")
        state.events.listen(ContentCommitted, lambda _: self._something.set())

    async def run(self) -> None:
        """Until cancelled. Its faults are logged; it raises nothing."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._pace.at_once):
                group.create_task(self._give_for_ever())
            group.create_task(self._tell_for_ever())

    async def _give_for_ever(self) -> None:
        while True:
            try:
                await self._rested()
                due = await self._next()
                if due is None:
                    await self._wait()
                    continue
                began = self._clock.monotonic()
                try:
                    await self._give(due)
                finally:
                    self._under_way.discard(due.digest)
                if not due.came:
                    await asyncio.sleep(self._clock.monotonic() - began)  # leaves half to others
            except Exception:
                log.exception("second_tier_not_given")
                await asyncio.sleep(self._pace.longest_pause)

    async def _tell_for_ever(self) -> None:
        doubted = ""
        while True:
            try:
                found = await self._records.backlog()
                if not found.count:
                    before = self._clock.wall() - self._doubted_after
                    doubted = await self._records.doubt(doubted, self._pace.doubted, before) or ""
                waits = 0.0 if found.oldest is None else self._clock.wall() - found.oldest
                self._state.events.emit(SecondTierBacklog(found.count, max(0.0, waits)))
            except Exception:
                log.exception("second_tier_backlog_not_counted")
            await asyncio.sleep(self._pace.tell)

    async def _rested(self) -> None:
        """Returns when the second tier may be tried: not while it is left alone."""
        while self._state.is_away or self._clock.monotonic() < self._resting_until:
            left = self._resting_until - self._clock.monotonic()
            await asyncio.sleep(min(max(left, 0.01), self._pace.look))

    async def _wait(self) -> None:
        self._something.clear()
        try:
            async with asyncio.timeout(self._pace.look):
                await self._something.wait()
        except TimeoutError:
            pass

    async def _next(self) -> Due | None:
        async with self._choosing:
            passed_over = self._under_way | self._tried.now()
            sources = await self._records.sources()
            self._newest = {source: self._newest.get(source, True) for source in sources}
            for source in _in_turn(sources, self._last_source):
                newest = self._newest[source]
                found = await self._records.due(source, newest, passed_over, 1)
                if found:
                    self._last_source, self._newest[source] = source, not newest
                    self._under_way.add(found[0].digest)
                    return found[0]
            return None

    async def _give(self, due: Due) -> None:
        given = _Given.REFUSED
        try:
            given = await self._put(due)
        except TimeoutError:
            self._state.hangs("put")
        except FarFault as error:
            log.warning("second_tier_failed", operation="set aside", reason=str(error))
        except Exception:
            log.exception("second_tier_not_given", digest=str(due.digest))
        match given:
            case _Given.GONE | _Given.ELSEWHERE:
                self._tried.add(due.digest)
                return
            case _Given.REFUSED:
                self._tried.add(due.digest)
                pause = min(self._pace.pause * 2**self._failures, self._pace.longest_pause)
                self._failures = min(self._failures + 1, 16)
                self._resting_until = self._clock.monotonic() + pause
            case _:
                self._failures = 0
                await self._records.given(due)
                if not self._records.is_far(due.digest):  # its record takes no note, or is gone
                    self._tried.add(due.digest)
        sent = due.size if given is _Given.SENT else 0
        self._state.events.emit(SecondTierGiven(given is not _Given.REFUSED, due.digest, sent))

    async def _put(self, due: Due) -> _Given:
        """Raises TimeoutError."""
        state, patience = self._state, self._state.patience
        content = await self._records.open(due.digest)
        if content is None:
            return _Given.GONE
        lease = None
        try:
            if self._leases is not None:
                lease = await self._leases.ask(Wanted(NAME, due.digest))
            if isinstance(lease, Holder):
                return _Given.ELSEWHERE
            async with asyncio.timeout(patience.put + due.size / patience.speed):
                if due.is_wrong and state.far is not None:
                    await state.far.set_aside(due.digest)
                elif not due.is_wrong and await state.tier.contains(due.digest):
                    await self._state.renew_used(due)
                    return _Given.THERE
                if not await state.tier.put(due.digest, content, due.size):
                    return _Given.REFUSED
        finally:
            content.close()
            if lease is not None and not isinstance(lease, Holder):
                await lease.give_back()
        state.replaced(due.digest)
        return _Given.SENT


class _PassedOver:
    """What was tried a moment ago, each for a while of its own."""

    def __init__(self, clock: Clock, pace: UploadPace) -> None:
        self._clock = clock
        self._pace = pace
        self._until: OrderedDict[Digest, tuple[float, float]] = OrderedDict()  # and for how long

    def add(self, digest: Digest) -> None:
        _, before = self._until.pop(digest, (0.0, 0.0))
        pause = min(2 * before or self._pace.passed_over, self._pace.longest_passed_over)
        self._until[digest] = self._clock.monotonic() + pause, pause
        while len(self._until) > _MOST_PASSED_OVER:
            self._until.popitem(last=False)

    def now(self) -> set[Digest]:
        now = self._clock.monotonic()
        return {digest for digest, (until, _) in self._until.items() if now < until}


def _in_turn(sources: Sequence[str], last: str) -> Sequence[str]:
    """Those after the last one first; what nobody has recorded the source of after all others."""
    known = sorted(source for source in sources if source)
    after = [source for source in known if source > last]
    rest = [source for source in known if source <= last]
    return [*after, *rest, *([""] if "" in sources else [])]
