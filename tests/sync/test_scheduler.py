"""Entries of `sync`: when they run, what stops them, what is remembered of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC
from pathlib import Path

import pytest

from mirror.contracts.events import SyncBegun, SyncEnded
from mirror.contracts.sync import Brought, Postponed, TagGone, UnknownEntry, WorkEnded
from mirror.events import Events
from mirror.oci.errors import Denied, RegistryError, Unavailable
from mirror.oci.reference import ImageReference, Repository
from mirror.storage.records.sync_runs import SyncRuns
from mirror.sync.schedule import Plan, Window
from mirror.sync.scheduler import Entry, Scheduler, Sync

from ..fakes.clock import HandClock
from ..waiting import eventually

DAY, HOUR = 86400.0, 3600.0
NOON = 20_000 * DAY + 12 * HOUR
NIGHT = Window(60, 300, UTC)


class Images:
    """A Bringing by hand: an image comes at once, or when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.errors: dict[str, list[RegistryError]] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.tags_there: list[str] = []

    async def bring(
        self, image: ImageReference, platform: str, progress: Callable[[int, int], None]
    ) -> Brought:
        name = f"{image.repository.name.removeprefix('library/')}:{image.reference}"
        self.asked.append(name)
        if name in self.held:
            await self.held[name].wait()
        if errors := self.errors.get(name):
            raise errors.pop(0)
        progress(10, 10)
        return Brought("sha256:…", 2, 10, 10)

    async def tags(self, repository: Repository) -> Sequence[str]:
        return self.tags_there

    async def repositories(self, registry: str) -> Sequence[Repository]:
        raise Denied("none")


class Bus:
    """All that is told on the bus."""

    def __init__(self, events: Events) -> None:
        self.begun: list[str] = []
        self.ended: list[SyncEnded] = []
        events.listen(SyncBegun, lambda event: self.begun.append(event.name))
        events.listen(SyncEnded, self.ended.append)


class House:
    def __init__(self, folder: Path) -> None:
        self.clock = HandClock(NOON)
        self.images = Images()
        self.events = Events()
        self.told = Bus(self.events)
        self.records = SyncRuns(folder)
        self.keeping: asyncio.Task[None] | None = None
        self.scheduler: Scheduler

    async def start(self, *entries: Entry, is_paused: bool = False) -> None:
        await self.stop()
        self.scheduler = Scheduler(
            lambda spare: self.images,
            self.records,
            self.events,
            self.clock.clock(),
            lambda: 0.0,
            pauses=(0.0, 0.0),
        )
        self.follow(*entries, is_paused=is_paused)
        self.keeping = asyncio.create_task(self.scheduler.keep())

    def follow(self, *entries: Entry, is_paused: bool = False) -> None:
        self.sync = Sync(entries, "docker.io", is_paused)
        self.scheduler.follow(self.sync)

    async def stop(self) -> None:
        if self.keeping is not None:
            self.keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.keeping
            self.keeping = None

    async def pass_time(self, seconds: float) -> None:
        """By the clock, which is looked at whenever the configuration is read again."""
        self.clock.now += seconds
        self.scheduler.follow(self.sync)
        for _ in range(20):
            await asyncio.sleep(0)

    async def ended(self, count: int = 1) -> SyncEnded:
        await eventually(lambda: len(self.told.ended) >= count)
        return self.told.ended[-1]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.stop()


def entry(
    *images: str, name: str = "nightly", every: float = HOUR, window: Window | None = None
) -> Entry:
    return Entry(name, images or ("redis:7",), ("linux/amd64",), Plan(every, window))


async def test_it_runs_when_it_is_due_and_not_before(house: House) -> None:
    await house.start(entry())
    await house.ended(1)
    await house.pass_time(HOUR - 1)
    assert len(house.told.begun) == 1
    await house.pass_time(2)
    await house.ended(2)
    [state] = house.scheduler.entries()
    assert state.next_at == pytest.approx(house.clock.now + HOUR, abs=2)
    assert state.last is not None
    assert (state.last.result, state.last.whole, state.last.fetched) == ("good", 1, 10)


async def test_its_last_run_is_remembered_over_a_restart(house: House) -> None:
    await house.start(entry(), entry("alpine:3", name="other"))
    await house.ended(2)
    await house.start(entry(every=DAY), entry("alpine:3", name="other", every=DAY))
    await eventually(lambda: all(state.last for state in house.scheduler.entries()))
    await house.pass_time(HOUR)
    assert len(house.told.begun) == 2


async def test_an_entry_that_brings_something_else_runs_at_once(house: House) -> None:
    await house.start(entry())
    await house.ended(1)
    house.follow(entry("redis:8"))
    await house.ended(2)
    assert house.images.asked == ["redis:7", "redis:8"]


async def test_a_record_that_is_broken_is_as_good_as_none(house: House, tmp_path: Path) -> None:
    for broken in (b"", b"{", b'{"version": 1, "runs": {"a": {"due_at": "x", "failures": []}}}'):
        (tmp_path / "sync.json").write_bytes(broken)
        assert await house.records.read() == {}


async def test_one_runs_at_a_time(house: House) -> None:
    house.images.held["redis:7"] = asyncio.Event()
    await house.start(entry(), entry("alpine:3", name="other"))
    await eventually(lambda: house.images.asked == ["redis:7"])
    await house.pass_time(2 * HOUR)
    assert house.told.begun == ["nightly"]
    house.images.held["redis:7"].set()
    await house.ended(2)


async def test_it_waits_for_its_window_stops_at_its_end_and_goes_on_with_the_next(
    house: House,
) -> None:
    house.images.held["b:1"] = asyncio.Event()
    await house.start(entry("a:1", "b:1", every=7 * DAY, window=NIGHT))
    await house.pass_time(0)
    assert house.told.begun == []
    await house.pass_time(13 * HOUR)  # 01:00
    await eventually(lambda: house.images.asked == ["a:1", "b:1"])
    await house.pass_time(4 * HOUR)
    ended = await house.ended()
    assert ended.result == "stopped"
    [state] = house.scheduler.entries()
    assert state.last is not None
    assert state.last.words == "its window has ended"
    assert state.next_at == pytest.approx(NOON + 37 * HOUR)
    house.images.held.clear()
    await house.pass_time(20 * HOUR)
    assert (await house.ended(2)).result == "good"


async def test_a_run_that_the_mirrors_end_cut_goes_on_when_it_starts_again(house: House) -> None:
    house.images.held["redis:7"] = asyncio.Event()
    await house.start(entry(every=7 * DAY))
    await eventually(lambda: house.images.asked)
    await house.stop()
    assert house.told.ended[-1].result == "stopped"
    house.images.held.clear()
    await house.start(entry(every=7 * DAY))
    assert (await house.ended(2)).result == "good"


async def test_what_fails_for_a_passing_reason_is_tried_again_and_what_fails_is_named(
    house: House,
) -> None:
    house.images.errors = {
        "a:1": [Unavailable("down")],
        "b:1": [Unavailable("down")] * 9,
        "c:1": [Denied("no")],
    }
    await house.start(entry("a:1", "b:1", "c:1", "d:1"))
    ended = await house.ended()
    assert (ended.result, ended.images, ended.failed) == ("failed", 4, 2)
    assert sorted(house.images.asked) == ["a:1", "a:1", *["b:1"] * 3, "c:1", "d:1"]
    [state] = house.scheduler.entries()
    assert state.last is not None
    assert sorted(state.last.failures) == [
        "docker.io/library/b:1: down",
        "docker.io/library/c:1: no",
    ]


async def test_what_is_left_to_clients_waits_for_an_hour(house: House) -> None:
    house.images.errors = {"a:1": [Postponed("few pulls are left")]}
    await house.start(entry("a:1", "b:1", every=DAY))
    ended = await house.ended()
    assert (ended.result, ended.failed) == ("stopped", 0)
    await house.pass_time(HOUR - 1)
    assert len(house.told.begun) == 1
    await house.pass_time(2)
    assert (await house.ended(2)).result == "good"


async def test_a_tag_that_is_gone_is_no_failure(house: House) -> None:
    house.images.errors = {"a:1": [TagGone("gone")]}
    await house.start(entry("a:1"))
    assert (await house.ended()).result == "good"


async def test_a_change_stops_the_run_that_it_is_about_and_no_other(house: House) -> None:
    house.images.held["redis:7"] = asyncio.Event()
    await house.start(entry())
    await eventually(lambda: house.images.asked)
    house.follow(entry(every=DAY), entry("alpine:3", name="new", window=NIGHT))
    await house.pass_time(1)
    assert house.told.ended == []
    house.follow(entry("alpine:3", name="new", window=NIGHT))
    assert (await house.ended()).result == "stopped"
    assert house.told.begun == ["nightly"]


async def test_a_list_is_read_at_each_run(house: House, tmp_path: Path) -> None:
    names = tmp_path / "warm.txt"
    names.write_text("a:1\nBad\n")
    await house.start(entry(f"@{names}"))
    ended = await house.ended()
    assert (ended.images, ended.failed) == (2, 1)
    names.unlink()
    await house.pass_time(HOUR + 1)
    assert (await house.ended(2)).failed == 1
    names.write_text("a:2\n")
    await house.pass_time(HOUR + 1)
    assert (await house.ended(3)).result == "good"
    assert house.images.asked == ["a:1", "a:2"]


async def test_tags_are_those_that_the_registry_lists_by_then(house: House) -> None:
    house.images.tags_there = ["v1", "v2", "latest"]
    one = Entry("tags", ("app:v*",), ("linux/amd64",), Plan(HOUR), newest=1)
    await house.start(one)
    await house.ended()
    house.images.tags_there = ["latest"]
    await house.pass_time(HOUR + 1)
    assert (await house.ended(2)).failed == 1
    assert house.images.asked == ["app:v2"]


async def all_told(scheduler: Scheduler, *names: str) -> list[object]:
    return [one async for one in scheduler.run(names)]


async def test_it_runs_when_somebody_asks_whatever_its_window(house: House) -> None:
    await house.start(entry(window=NIGHT), entry("alpine:3", name="other", window=NIGHT))
    told = await all_told(house.scheduler)
    assert [one.name for one in told if isinstance(one, WorkEnded)] == ["nightly", "other"]
    told = await all_told(house.scheduler, "other")
    assert [one.name for one in told if isinstance(one, WorkEnded)] == ["other"]
    with pytest.raises(UnknownEntry, match="nightly, other"):
        await all_told(house.scheduler, "nope")


async def test_a_run_that_somebody_watches_does_not_end_with_them(house: House) -> None:
    house.images.held["redis:7"] = asyncio.Event()
    await house.start(entry(window=NIGHT))
    watching = asyncio.create_task(all_told(house.scheduler))
    await eventually(lambda: house.images.asked)
    watching.cancel()
    second = asyncio.create_task(all_told(house.scheduler, "nightly"))
    await house.pass_time(HOUR)
    house.images.held["redis:7"].set()
    told = await second
    assert isinstance(told[-1], WorkEnded)
    assert house.told.begun == ["nightly"]


async def test_nothing_runs_by_itself_while_the_mirror_is_offline(house: House) -> None:
    await house.start(entry(), is_paused=True)
    await house.pass_time(DAY)
    assert house.told.begun == []
    assert house.scheduler.entries()[0].state == "paused"
