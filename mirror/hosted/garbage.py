"""Collections: what no repository needs any more goes, first its records, then its content.

A push relies on what it was told is here: by an upload, a mount, a HEAD. For `grace` from then on
nothing of it goes. A run names what it means to take out, waits, and has the records look at each
once more in the transaction that takes it out; then the same with content that is held and that no
record needs. A run that ends in between, however it ends, leaves content without records, which
the next one finds, and never records without content.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import structlog

from ..clock import Clock
from ..contracts.events import CollectionEnded, HeldContentChecked
from ..contracts.hosted import CollectionRecords, Garbage, LooseBlob
from ..contracts.uploads import CollectedContent, Held
from ..events import Events
from ..frozen import dataclass
from ..oci.digest import Digest
from .clock_jumps import ClockJumps

log = structlog.get_logger()

_PAUSE = 10.0  # seconds between what is meant to go and the second look, if grace is not shorter
_SLICE = 500  # records or pieces of content that one transaction is asked for
_FIRST = 300.0  # seconds from the start to the first run: whoever starts often collects, too
_LOOK = 30.0  # seconds between two looks at the clocks
_AGAIN = (5.0, 15.0, 60.0)  # seconds until what has failed at the start is tried again
_EVER = 1e9  # seconds from now: by then everything has had its grace
_MOST_TOLD = 5  # digests in one line of the log


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """Every `every` seconds, of what nobody has relied on for `grace` seconds, at most `at_most`
    records and as many pieces of content."""

    every: float = 86400.0
    grace: float = 86400.0
    at_most: int = 10_000


@dataclass(frozen=True, slots=True)
class Going:
    """What a collection would take out, and why. `kind`: blob (out of its repository), repository,
    or content (out of the store), of which `freed` bytes come back to the disk."""

    kind: str
    why: str
    repository: str = ""
    digest: str = ""
    size: int = 0
    freed: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a collection would do now. `waiting`: how much else is needed by nothing, and stays
    until its grace has passed; at most as many as a run takes out are counted."""

    going: Sequence[Going]
    grace: float
    waiting: int = 0
    waiting_bytes: int = 0

    @property
    def freed(self) -> int:
        return sum(one.freed for one in self.going)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run has done. `result`: done, or stopped (and why, in `words`). `dangling`: how many
    pieces of content records need that are not in the store. `is_cut`: it has taken out as much as
    one run may, and left some. `is_alone`: False where another process collects, which the records
    were left to."""

    result: str = "done"
    words: str = ""
    blobs: int = 0
    repositories: int = 0
    content: int = 0
    freed: int = 0
    dangling: int = 0
    is_cut: bool = False
    is_alone: bool = True
    at: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class _Count:
    blobs: int = 0
    repositories: int = 0
    content: int = 0
    freed: int = 0
    dangling: int = 0
    is_cut: bool = False
    is_alone: bool = True


class _Stopped(Exception):
    """A run does not go on, for a reason that is no fault."""


class Collector:
    """Of one store. Where several processes share the records, one at a time takes records out;
    each releases the content of its own store."""

    def __init__(
        self,
        records: CollectionRecords,
        held: CollectedContent,
        plan: CollectionPlan,
        events: Events,
        clock: Clock,
        first: Callable[[], Awaitable[object]],
        pause: float = _PAUSE,
    ) -> None:
        """`first`: what is done before each run that is due (retention)."""
        self._records = records
        self._held = held
        self._plan = plan
        self._events = events
        self._clock = clock
        self._first = first
        self._pause = pause
        self._jumps = ClockJumps(clock)
        self._running = asyncio.Lock()
        self.last: Collected | None = None
        self.next_at: float | None = None
        """When the next run is due, in the clock's monotonic seconds."""

    def follow(self, plan: CollectionPlan) -> None:
        """From now on this counts; a run under way ends as it began."""
        if plan.every != self._plan.every and self.next_at is not None:
            self.next_at = min(self.next_at, self._clock.monotonic() + plan.every)
        self._plan = plan

    async def run(self) -> None:
        """Holds again what an index that was lost did hold; then collects when it is due, for
        ever."""
        await self._restore()
        self.next_at = self._clock.monotonic() + min(self._plan.every, _FIRST)
        while True:
            left = self.next_at - self._clock.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, _LOOK))
                self._jumps.look()
            else:
                with contextlib.suppress(Exception):  # both tell it themselves
                    await self._first()
                with contextlib.suppress(Exception):
                    await self.collect()

    async def forecast(self) -> Forecast:
        """Changes nothing."""
        plan, before = self._plan, self._before()
        going = await self._records.garbage(before, plan.at_most)
        all_of_it = await self._records.garbage(self._clock.wall() + _EVER, plan.at_most)
        content = [one async for one in self._unneeded(before, plan.at_most)]
        lines = [_blob_goes(blob) for blob in going.blobs]
        lines += [
            Going("repository", "nothing was ever pushed to it but blobs that are gone", name)
            for name in going.repositories
        ]
        lines += [_content_goes(one.digest, one.size, "no record needs it") for one in content]
        lines += [
            _content_goes(digest, size, "no record needs it once these blobs are gone")
            for digest, size in _last_of(going.blobs).items()
        ]
        named = {(blob.repository, blob.digest) for blob in going.blobs}
        young = [one for one in all_of_it.blobs if (one.repository, one.digest) not in named]
        sizes = {blob.digest: blob.size for blob in young}
        return Forecast(lines, plan.grace, len(sizes), sum(sizes.values()))

    async def collect(self) -> Collected:
        """One run, at once; after the one that is under way. Nothing goes before its grace has
        passed, whoever asks. Raises what the records or the store have raised; then nothing more
        is taken out."""
        async with self._running:
            self.next_at = self._clock.monotonic() + self._plan.every
            began, at, count = self._clock.monotonic(), self._clock.wall(), _Count()
            result, words = "failed", ""
            try:
                await self._collect(count)
                result = "done"
            except _Stopped as stopped:
                result, words = "stopped", str(stopped)
            except asyncio.CancelledError:
                result, words = "stopped", "the mirror was stopped"
                raise
            except Exception as error:
                words = f"{type(error).__name__}: {error}"
                log.error("collection_failed", reason=words, exc_info=error)
                raise
            finally:
                self.last = self._ended(result, words, count, at, self._clock.monotonic() - began)
            return self.last

    def _ended(
        self, result: str, words: str, count: _Count, at: float, seconds: float
    ) -> Collected:
        ended = Collected(
            result,
            words,
            count.blobs,
            count.repositories,
            count.content,
            count.freed,
            count.dangling,
            count.is_cut,
            count.is_alone,
            at,
            seconds,
        )
        self._events.emit(
            CollectionEnded(
                result,
                at + seconds,
                ended.blobs,
                ended.repositories,
                ended.content,
                ended.freed,
            )
        )
        log.info(
            "collection_ended",
            result=result,
            reason=words,
            blobs=ended.blobs,
            repositories=ended.repositories,
            content=ended.content,
            bytes=ended.freed,
            dangling=ended.dangling,
            is_alone=ended.is_alone,
            seconds=round(seconds, 1),
        )
        return ended

    async def _collect(self, count: _Count) -> None:
        plan, before = self._plan, self._before()
        if not self._held.is_shared:
            count.dangling = await self._keep_needed()
        async with self._records.alone() as is_alone:
            count.is_alone = is_alone
            if is_alone:
                await self._collect_shared(plan, before, count)
        if not self._held.is_shared:
            await self._take_content(plan, before, count)

    async def _collect_shared(self, plan: CollectionPlan, before: float, count: _Count) -> None:
        """What all that share the records have, the content too where they share that."""
        if self._held.is_shared:
            count.dangling = await self._keep_needed()
        await self._take_records(plan, before, count)
        if self._held.is_shared:
            await self._take_content(plan, before, count)

    async def _take_records(self, plan: CollectionPlan, before: float, count: _Count) -> None:
        found = await self._records.garbage(before, plan.at_most)
        if not found.blobs and not found.repositories:
            return
        await self._wait(plan)
        count.is_cut = max(len(found.blobs), len(found.repositories)) >= plan.at_most
        for start in range(0, len(found.blobs), _SLICE):
            gone = await self._records.remove(Garbage(found.blobs[start : start + _SLICE]), before)
            count.blobs += len(gone.blobs)
        # A repository whose last blob has just gone goes with it.
        empty = [*found.repositories, *(blob.repository for blob in found.blobs)]
        empty = list(dict.fromkeys(empty))[: plan.at_most]
        for start in range(0, len(empty), _SLICE):
            gone = await self._records.remove(Garbage((), empty[start : start + _SLICE]), before)
            count.repositories += len(gone.repositories)

    async def _take_content(self, plan: CollectionPlan, before: float, count: _Count) -> None:
        found = [one async for one in self._unneeded(before, plan.at_most)]
        if not found:
            return
        await self._wait(plan)
        count.is_cut |= len(found) >= plan.at_most
        for start in range(0, len(found), _SLICE):
            digests = [one.digest for one in found[start : start + _SLICE]]
            needed = set(await self._records.needed(digests))
            for digest in digests:
                if digest not in needed:
                    count.freed += await self._held.release(digest, before)
                    count.content += 1

    async def _unneeded(self, before: float, count: int) -> AsyncIterator[Held]:
        """Content that is held, was last held before that moment, and no record needs."""
        after: Digest | None = None
        while count > 0:
            page = await self._held.held(before, after, _SLICE)
            if not page:
                return
            after = page[-1].digest
            needed = set(await self._records.needed([one.digest for one in page]))
            for one in page:
                if one.digest not in needed and count > 0:
                    count -= 1
                    yield one

    async def _keep_needed(self) -> int:
        """Holds whatever records need; how much of it is not here."""
        dangling, told = 0, list[str]()
        after: Digest | None = None
        while page := await self._records.content(after, _SLICE):
            after = page[-1]
            missing = await self._held.keep(page)
            # What was deleted, and released, since the page was read is no loss.
            lost = await self._records.needed(missing) if missing else ()
            dangling += len(lost)
            told += [str(digest) for digest in lost][: _MOST_TOLD - len(told)]
        self._events.emit(HeldContentChecked(dangling))
        if dangling:
            log.error("hosted_content_missing", count=dangling, digests=told)
        return dangling

    async def _restore(self) -> None:
        for pause in (*_AGAIN, None):
            try:
                shared = self._held.is_shared
                alone = self._records.alone() if shared else contextlib.nullcontext(True)
                async with alone as is_alone:
                    if is_alone:  # else another process does it
                        await self._keep_needed()
                return
            except Exception as error:
                log.warning("hosted_content_not_looked_at", reason=f"{error}")
                if pause is not None:  # after that, the next collection does it
                    await asyncio.sleep(pause)

    def _before(self) -> float:
        """What was relied on before this moment has had its grace, also where the clock was set
        forward since."""
        self._jumps.look()
        return self._clock.wall() - self._plan.grace - self._jumps.forward(self._plan.grace)

    async def _wait(self, plan: CollectionPlan) -> None:
        await asyncio.sleep(min(self._pause, plan.grace))
        if self._jumps.look():
            raise _Stopped("the clock was set meanwhile: the next run goes by its new time")


def _blob_goes(blob: LooseBlob) -> Going:
    why = "no manifest of its repository refers to it"
    return Going("blob", why, blob.repository, str(blob.digest), blob.size)


def _content_goes(digest: Digest, size: int, why: str) -> Going:
    return Going("content", why, digest=str(digest), size=size, freed=size)


def _last_of(blobs: Sequence[LooseBlob]) -> Mapping[Digest, int]:
    """Sizes of what no repository has when these are gone."""
    leaving = Counter(blob.digest for blob in blobs)
    return {blob.digest: blob.size for blob in blobs if leaving[blob.digest] >= blob.owners}
