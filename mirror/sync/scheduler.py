"""The entries of `sync`: each runs when it is due, one at a time, and when somebody asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import structlog

from ..clock import Clock
from ..contracts.events import SyncBegun, SyncEnded
from ..contracts.sync import (
    Bringing,
    ImageEnded,
    Run,
    RunRecords,
    SyncState,
    Told,
    UnknownEntry,
    WorkBegun,
    WorkEnded,
)
from ..events import Events
from ..frozen import dataclass
from ..tasks import ended
from ..threads import aside
from .schedule import LONGEST_PAUSE, Plan, begins, due, ends
from .sources import read_list
from .telling import Listener
from .work import Asked, Work

log = structlog.get_logger()

_LOOK = 30.0  # seconds between two looks at the clock on the wall, which may be set
_PAUSES = (15.0, 90.0)  # seconds before what failed for a passing reason is tried once more
_MOST_FAILURES = 20  # that are kept of a run
_MOST_LOGGED = 3
_CHANGED = "the configuration has changed"
_WINDOW = "its window has ended"
_STOPPING = "the mirror was stopped"


@dataclass(frozen=True, slots=True)
class Entry:
    """`images`: names, patterns, and lists (`@path`). `spare_quota`: the share of a pull limit that
    is left to clients. `window`: the plan's, in words."""

    name: str
    images: Sequence[str]
    platforms: Sequence[str]
    plan: Plan
    window: str = ""
    newest: int | None = None
    spare_quota: float = 0.5

    @property
    def key(self) -> str:
        """Stands for what it brings: an entry that is changed, or new, has no last run."""
        name = "" if self.name.isdigit() else self.name  # a number is its place in the list
        words = json.dumps([name, *self.images, *self.platforms, self.newest])
        return hashlib.sha256(words.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Sync:
    """What counts now. `is_paused`: no upstream may be asked."""

    entries: Sequence[Entry] = ()
    default_registry: str = ""
    is_paused: bool = False


@dataclass(eq=False, slots=True)
class _Running:
    entry: Entry
    due_at: float
    began_at: float
    work: Work
    is_asked_for: bool
    """By somebody, so that its window does not end it."""
    told: WorkBegun | None = None


@dataclass(frozen=True, slots=True)
class _Planned:
    plan: Plan
    due_at: float
    begins_at: float


class Scheduler:
    """A Syncing. `bringing` gives what brings images and leaves such a share of pulls to clients;
    `share` gives a number from 0 to 1, by which runs are put off so that mirrors do not ask all at
    once."""

    def __init__(
        self,
        bringing: Callable[[float], Bringing],
        records: RunRecords,
        events: Events,
        clock: Clock,
        share: Callable[[], float],
        pauses: Sequence[float] = _PAUSES,
    ) -> None:
        self._bringing = bringing
        self._records = records
        self._events = events
        self._clock = clock
        self._share = share
        self._pauses = pauses
        self._sync = Sync()
        self._runs: dict[str, Run] = {}
        self._plans: dict[str, _Planned] = {}
        self._asked_for: list[str] = []
        self._listeners: dict[str, list[Listener]] = {}
        self._running: _Running | None = None
        self._changed = asyncio.Event()

    def follow(self, sync: Sync) -> None:
        """From now on this counts. A run of an entry that is there no more, or brings something
        else, is stopped."""
        self._sync = sync
        names = {entry.name for entry in sync.entries}
        self._asked_for = [name for name in self._asked_for if name in names]
        for name in set(self._listeners) - names:
            for listener in self._listeners.pop(name):
                listener.close()
        self._changed.set()

    def entries(self) -> Sequence[SyncState]:
        return [self._state(entry) for entry in self._sync.entries]

    async def run(self, names: Sequence[str]) -> AsyncGenerator[Told, None]:
        there = {entry.name: entry for entry in self._sync.entries}
        for name in names:
            if name not in there:
                listed = ", ".join(there) or "none"
                raise UnknownEntry(f"sync has no entry {name}: there are {listed}")
        listener = Listener()
        waiting = list(dict.fromkeys(names or there))
        for name in waiting:
            self._listeners.setdefault(name, []).append(listener)
            running = self._running
            if running is not None and running.entry.name == name:
                running.is_asked_for = True
                if running.told is not None:
                    listener.tell(running.told)
            elif name not in self._asked_for:
                self._asked_for.append(name)
        self._changed.set()
        left = set(waiting)
        try:
            if not left:
                return
            async with contextlib.aclosing(listener.told()) as told:
                async for one in told:
                    yield one
                    if isinstance(one, WorkEnded):
                        left.discard(one.name)
                        if not left:
                            return
        finally:
            for name in waiting:
                with contextlib.suppress(KeyError, ValueError):
                    self._listeners[name].remove(listener)

    async def keep(self) -> None:
        """Runs what is due, for ever."""
        self._runs = dict(await self._records.read())
        self._plans.clear()  # made by those who have asked before
        while True:
            self._changed.clear()
            found = self._next()
            now = self._clock.wall()
            if found is not None and found[1] <= now:
                await self._do(found[0])
                continue
            wait = _LOOK if found is None else min(_LOOK, found[1] - now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def _next(self) -> tuple[Entry, float] | None:
        """Which entry begins next, and when."""
        for name in self._asked_for:
            for entry in self._sync.entries:
                if entry.name == name:
                    return entry, self._clock.wall()
        times = [(when, entry) for entry in self._sync.entries if (when := self._begins(entry))]
        if not times:
            return None
        when, entry = min(times, key=lambda one: one[0])
        return entry, when

    def _begins(self, entry: Entry) -> float | None:
        return None if self._sync.is_paused else self._planned(entry).begins_at

    def _planned(self, entry: Entry) -> _Planned:
        """When its next run is. That stays, unless it would be sooner by now (the clock was set
        back), or its window was slept through."""
        now, last = self._clock.wall(), self._runs.get(entry.key)
        found = self._plans.get(entry.key)
        if last is None:
            due_at = due(entry.plan, None, None, now)
        else:
            due_at = due(entry.plan, last.due_at, last.goes_on_at, now)
        if found is not None and found.plan == entry.plan and found.due_at <= due_at:
            end = ends(entry.plan, now)
            if found.begins_at > now or end is None or end > now:
                return found
        begins_at = begins(entry.plan, due_at, self._share())
        found = self._plans[entry.key] = _Planned(entry.plan, due_at, begins_at)
        return found

    def _state(self, entry: Entry) -> SyncState:
        running = self._running
        is_running = running is not None and running.entry.key == entry.key
        return SyncState(
            entry.name,
            entry.images,
            entry.platforms,
            entry.plan.every,
            entry.window,
            entry.spare_quota,
            "running" if is_running else "paused" if self._sync.is_paused else "waiting",
            images=running.work.results.images if running is not None and is_running else 0,
            done=len(running.work.results.of) if running is not None and is_running else 0,
            next_at=None if is_running else self._begins(entry),
            last=self._runs.get(entry.key),
        )

    async def _do(self, entry: Entry) -> None:
        """One run, to its end, or until it has to stop."""
        now = self._clock.wall()
        is_asked_for = entry.name in self._asked_for
        if is_asked_for:
            self._asked_for.remove(entry.name)
        due_at = now if is_asked_for else min(now, self._planned(entry).due_at)
        work = Work(
            entry.name,
            self._bringing(entry.spare_quota),
            lambda told: self._tell(entry.name, told),
            self._clock,
            keeps_gone=True,
        )
        running = self._running = _Running(entry, due_at, now, work, is_asked_for)
        self._events.emit(SyncBegun(entry.name))
        log.info("sync_begun", name=entry.name)
        task = asyncio.create_task(self._bring(running), name=f"sync {entry.name}")
        stopped = _STOPPING
        try:
            stopped = await self._watch(running, task)
        finally:
            task.cancel()
            await ended([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("sync_failed", name=entry.name, exc_info=error)
                stopped = f"the mirror failed: {type(error).__name__}"
            self._running = None
            await self._note(running, stopped)

    async def _watch(self, running: _Running, task: asyncio.Task[None]) -> str:
        """Returns when it has ended, or has to be stopped: why; "" for by itself."""
        while not task.done():
            if running.entry.key not in {entry.key for entry in self._sync.entries}:
                return _CHANGED
            now = self._clock.wall()
            end = None if running.is_asked_for else ends(running.entry.plan, now)
            if end is not None and end <= now:
                return _WINDOW
            self._changed.clear()
            news = asyncio.create_task(self._changed.wait())
            wait = _LOOK if end is None else min(_LOOK, end - now)
            try:
                await asyncio.wait([task, news], timeout=wait, return_when="FIRST_COMPLETED")
            finally:
                news.cancel()
        return ""

    async def _bring(self, running: _Running) -> None:
        work, entry = running.work, running.entry
        asked: list[Asked] = []
        for image in entry.images:
            if image.startswith("@"):
                asked += await self._listed(work, entry, Path(image[1:]))
            else:
                asked.append(Asked(image, entry.platforms, entry.newest))
        await work.run(asked, self._sync.default_registry)
        for pause in self._pauses:
            if not work.results.passing:
                break
            await asyncio.sleep(pause)
            await work.again()

    async def _listed(self, work: Work, entry: Entry, path: Path) -> Sequence[Asked]:
        try:
            found = await aside(read_list, path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            work.fails(f"@{path}", entry.platforms, f"the list cannot be read: {reason}")
            return ()
        return [Asked(name, entry.platforms, entry.newest) for _, name in found]

    async def _note(self, running: _Running, stopped: str) -> None:
        """What has become of a run: for those who are told, and for the next one."""
        entry, results, now = running.entry, running.work.results, self._clock.wall()
        postponed = next(
            (one.words for one in results.of.values() if one.result == "postponed"), ""
        )
        summary = results.summary(entry.name, now - running.began_at, stopped or postponed)
        failures = [one for one in results.of.values() if one.result == "failed"]
        self._runs[entry.key] = Run(
            due_at=running.due_at,
            began_at=running.began_at,
            ended_at=now,
            result=summary.result,
            words=summary.words,
            images=summary.images,
            whole=results.count("whole", "kept"),
            failed=summary.failed,
            size=sum(one.size for one in results.of.values()),
            fetched=summary.fetched,
            failures=[f"{one.image}: {one.words}" for one in failures[:_MOST_FAILURES]],
            goes_on_at=_goes_on_at(entry, stopped, postponed, now),
        )
        self._plans.pop(entry.key, None)
        keys = {one.key for one in self._sync.entries}
        self._runs = {key: run for key, run in self._runs.items() if key in keys}
        try:
            await self._records.write(self._runs)
        finally:
            self._tell_end(entry.name, summary, failures)

    def _tell_end(self, name: str, ended: WorkEnded, failures: Sequence[ImageEnded]) -> None:
        self._tell(name, ended)
        self._events.emit(
            SyncEnded(name, ended.result, ended.images, ended.failed, ended.fetched, ended.seconds)
        )
        tell = log.warning if ended.failed else log.info
        tell(
            "sync_ended",
            name=name,
            result=ended.result,
            reason=ended.words,
            images=ended.images,
            failed=ended.failed,
            bytes=ended.fetched,
            seconds=round(ended.seconds, 1),
            failures=[f"{one.image}: {one.words}" for one in failures[:_MOST_LOGGED]],
        )

    def _tell(self, name: str, told: Told) -> None:
        running = self._running
        if running is not None and isinstance(told, WorkBegun):
            running.told = told
        for listener in self._listeners.get(name, ()):
            listener.tell(told)


def _goes_on_at(entry: Entry, stopped: str, postponed: str, now: float) -> float | None:
    """At once, but for what waits until a pull limit has come back."""
    if stopped:
        return now
    return now + min(LONGEST_PAUSE, entry.plan.every) if postponed else None
