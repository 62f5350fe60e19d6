"""Collections, over records and content in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence

import pytest

from mirror.contracts.events import CollectionEnded, HeldContentChecked
from mirror.contracts.hosted import Garbage, HostedManifest, Visibility
from mirror.hosted.garbage import CollectionPlan, Collector
from mirror.oci.digest import Digest
from tests.fakes import HandClock, MemoryHeld, MemoryRecords, Recorder

pytestmark = pytest.mark.asyncio

DAY = 86400.0
APP = "team/app"


class Place:
    """Records, a store, and what collects in them."""

    def __init__(self, records: MemoryRecords | None = None, **plan: float) -> None:
        self.hand = HandClock()
        self.records = records or MemoryRecords()
        self.held = MemoryHeld(lambda: self.hand.wall)
        self.events = Recorder()
        self.firsts = 0
        self.plan = CollectionPlan(**{"grace": DAY, **plan})  # type: ignore[arg-type]
        self.collector = self.another()

    def another(self) -> Collector:
        async def first() -> None:
            self.firsts += 1

        return Collector(
            self.records, self.held, self.plan, self.events, self.hand.clock(), first, pause=0
        )

    async def blob(self, data: bytes, repository: str = APP) -> Digest:
        digest = Digest.of(data)
        await self.held.put_held(digest, data)
        await self.records.add_blob(repository, digest, len(data), self.hand.wall, "ann")
        return digest

    async def manifest(
        self,
        data: bytes,
        blobs: Collection[Digest] = (),
        tag: str | None = None,
        repository: str = APP,
    ) -> Digest:
        digest = Digest.of(data)
        await self.held.put_held(digest, data)
        made = HostedManifest(digest, "application/x", len(data), tuple(blobs))
        await self.records.put_manifest(repository, made, tag, self.hand.wall, "ann")
        return digest

    async def remove(self, manifest: Digest, repository: str = APP) -> None:
        assert await self.records.delete_manifest(repository, manifest, self.hand.wall, "ann")


async def test_what_a_manifest_needs_stays_and_goes_with_it_when_its_grace_has_passed() -> None:
    place = Place()
    layer = await place.blob(b"layer")
    manifest = await place.manifest(b"manifest", [layer], "1")
    place.hand.now += 5 * DAY
    assert (await place.collector.collect()).content == 0
    assert set(place.held.here) == {layer, manifest}

    await place.remove(manifest)
    ended = await place.collector.collect()
    assert (ended.blobs, ended.content, ended.freed) == (1, 2, len(b"layer") + len(b"manifest"))
    assert not place.held.here
    assert await place.records.blob(APP, layer) is None


async def test_a_blob_stays_for_its_grace_from_the_last_time_that_somebody_relied_on_it() -> None:
    place = Place()
    layer = await place.blob(b"layer")
    place.hand.now += DAY - 10
    await place.records.blob(APP, layer, renew=place.hand.wall)  # a HEAD of who may push
    place.hand.now += DAY - 10
    await place.collector.collect()
    assert await place.records.blob(APP, layer) == 5
    assert layer in place.held.here
    place.hand.now += 20
    await place.collector.collect()
    assert layer not in place.held.here


async def test_a_mounted_blob_outlives_its_source() -> None:
    place = Place()
    layer = await place.blob(b"layer", "team/base")
    place.hand.now += 2 * DAY
    assert await place.records.mount(APP, layer, ["team/base"], place.hand.wall, "ann")
    manifest = await place.manifest(b"manifest", [layer], "1")
    place.hand.now += 2 * DAY
    ended = await place.collector.collect()
    assert (ended.blobs, ended.content) == (1, 0)
    assert set(place.held.here) == {layer, manifest}


class PushedMeanwhile(MemoryRecords):
    """Somebody puts a manifest between what is meant to go and the second look."""

    place: Place

    async def garbage(self, relied_before: float, count: int) -> Garbage:
        found = await super().garbage(relied_before, count)
        for blob in found.blobs:
            await self.place.manifest(b"pushed just now", [blob.digest], "1")
        return found


async def test_a_manifest_that_is_put_between_the_two_looks_keeps_its_blobs() -> None:
    records = PushedMeanwhile()
    place = records.place = Place(records)
    layer = await place.blob(b"layer")
    place.hand.now += 2 * DAY
    ended = await place.collector.collect()
    assert (ended.blobs, ended.content) == (0, 0)
    assert layer in place.held.here
    assert await place.records.blob(APP, layer) == 5


class UploadedMeanwhile(MemoryRecords):
    """Somebody uploads the same bytes after the last look at the records."""

    place: Place

    async def needed(self, digests: Collection[Digest]) -> Collection[Digest]:
        found = await super().needed(digests)
        for digest in set(digests) - set(found):
            await self.place.held.put_held(digest, b"layer")
        return found


async def test_content_that_is_held_anew_before_its_release_stays() -> None:
    records = UploadedMeanwhile()
    place = records.place = Place(records)
    layer = Digest.of(b"layer")
    await place.held.put_held(layer, b"layer")
    place.hand.now += 2 * DAY
    ended = await place.collector.collect()
    assert (ended.freed, layer in place.held.here) == (0, True)


async def test_content_that_a_push_left_without_a_record_goes_after_its_grace() -> None:
    """The mirror was killed between the two."""
    place = Place()
    left = Digest.of(b"left")
    await place.held.put_held(left, b"left")
    place.hand.now += DAY - 10
    await place.collector.collect()
    assert left in place.held.here
    place.hand.now += 20
    await place.collector.collect()
    assert left not in place.held.here


async def test_a_repository_that_never_had_a_manifest_goes_and_one_with_settings_stays() -> None:
    place = Place()
    await place.blob(b"layer", "team/given-up")
    await place.records.create("team/public", Visibility.PUBLIC, place.hand.wall, "ann")
    await place.manifest(b"manifest", (), "1", "team/emptied")
    await place.remove(Digest.of(b"manifest"), "team/emptied")
    place.hand.now += 2 * DAY
    assert (await place.collector.collect()).repositories == 1
    assert set(place.records.there) == {"team/public", "team/emptied"}


class Unreadable(MemoryRecords):
    async def garbage(self, relied_before: float, count: int) -> Garbage:
        raise OSError("disk I/O error")


async def test_records_that_cannot_be_read_end_the_run_with_nothing_taken_out() -> None:
    place = Place(Unreadable())
    layer = await place.blob(b"layer")
    left = Digest.of(b"left")
    await place.held.put_held(left, b"left")
    place.hand.now += 2 * DAY
    with pytest.raises(OSError, match="I/O"):
        await place.collector.collect()
    assert set(place.held.here) == {layer, left}
    assert [event.result for event in place.events.of(CollectionEnded)] == ["failed"]


class Killed(MemoryRecords):
    """The process ends after the records, and before their content."""

    async def needed(self, digests: Collection[Digest]) -> Collection[Digest]:
        raise asyncio.CancelledError


async def test_a_run_that_was_killed_between_records_and_content_is_completed_by_the_next() -> None:
    place = Place(Killed())
    layer = await place.blob(b"layer")
    place.hand.now += 2 * DAY
    with pytest.raises(asyncio.CancelledError):
        await place.collector.collect()
    assert await place.records.blob(APP, layer) is None
    assert layer in place.held.here
    place.records.needed = MemoryRecords().needed  # type: ignore[method-assign]
    await place.another().collect()
    assert not place.held.here


async def test_no_run_takes_out_more_than_it_may() -> None:
    place = Place(at_most=2)
    for number in range(5):
        await place.blob(b"%d" % number)
    place.hand.now += 2 * DAY
    ended = await place.collector.collect()
    assert (ended.blobs, ended.is_cut) == (2, True)
    assert len(place.held.here) == 3
    await place.collector.collect()
    ended = await place.collector.collect()
    assert (ended.blobs, ended.is_cut) == (1, False)
    assert not place.held.here


async def test_a_forecast_tells_what_would_go_and_changes_nothing() -> None:
    place = Place()
    both = await place.blob(b"in two repositories")
    await place.records.mount("team/base", both, [APP], place.hand.wall, "ann")
    kept = await place.blob(b"kept elsewhere")
    await place.manifest(b"manifest", [await place.blob(b"kept elsewhere", "team/base")], "1",
                         "team/base")  # fmt: skip
    left = Digest.of(b"left")
    await place.held.put_held(left, b"left")
    place.hand.now += 2 * DAY
    await place.blob(b"of a push that runs")
    before = dict(place.held.here)
    forecast = await place.collector.forecast()
    assert place.held.here == before
    assert sorted((one.kind, one.repository, one.digest) for one in forecast.going) == sorted(
        [
            ("blob", APP, str(both)),
            ("blob", APP, str(kept)),
            ("blob", "team/base", str(both)),
            ("content", "", str(both)),
            ("content", "", str(left)),
        ]
    )
    assert (forecast.waiting, forecast.waiting_bytes) == (1, len(b"of a push that runs"))
    ended = await place.collector.collect()
    assert forecast.freed == ended.freed == len(b"in two repositories") + len(b"left")


async def test_content_that_records_need_and_the_store_lacks_is_told() -> None:
    place = Place()
    layer = await place.blob(b"layer")
    await place.manifest(b"manifest", [layer], "1")
    del place.held.here[layer], place.held.at[layer]
    assert (await place.collector.collect()).dangling == 1
    assert [event.missing for event in place.events.of(HeldContentChecked)] == [1]


async def test_after_the_index_was_lost_what_records_need_is_held_again() -> None:
    place = Place()
    layer = await place.blob(b"layer")
    manifest = await place.manifest(b"manifest", [layer], "1")
    place.held.here[Digest.of(b"of the mirror's")] = b"of the mirror's"
    place.held.at.clear()
    task = asyncio.create_task(place.collector.run())
    try:
        async with asyncio.timeout(10):
            while set(place.held.at) != {layer, manifest}:
                await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_while_another_process_collects_no_records_are_taken_out() -> None:
    place = Place()
    layer = await place.blob(b"layer")
    place.hand.now += 2 * DAY
    async with place.records.alone():
        ended = await place.collector.collect()
    assert (ended.blobs, ended.is_alone) == (0, False)
    assert await place.records.blob(APP, layer) == 5
    ended = await place.collector.collect()
    assert (ended.blobs, ended.is_alone) == (1, True)


async def test_a_clock_that_is_set_forward_takes_nobodys_grace() -> None:
    place = Place()
    layer = await place.blob(b"of a push that runs")
    place.hand.now += 60
    place.hand.ahead += 30 * DAY
    await place.collector.collect()
    assert layer in place.held.here
    place.hand.now += DAY
    await place.collector.collect()
    assert layer not in place.held.here


class SetMeanwhile(MemoryRecords):
    """The clock is set between the two looks."""

    hand: HandClock

    async def garbage(self, relied_before: float, count: int) -> Garbage:
        self.hand.ahead += 30 * DAY
        return await super().garbage(relied_before, count)


async def test_a_clock_that_is_set_during_a_run_ends_it() -> None:
    records = SetMeanwhile()
    place = Place(records)
    records.hand = place.hand
    layer = await place.blob(b"layer")
    place.hand.now += 2 * DAY
    ended = await place.collector.collect()
    assert (ended.result, ended.blobs) == ("stopped", 0)
    assert layer in place.held.here


class Counted(MemoryRecords):
    """How many runs are in it at once."""

    most = now = 0

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        async with super().alone() as is_alone:
            yield is_alone
        self.now -= 1


async def test_runs_of_one_process_follow_each_other() -> None:
    records = Counted()
    place = Place(records)
    ended: Sequence[object] = await asyncio.gather(
        place.collector.collect(), place.collector.collect(), place.collector.collect()
    )
    assert len(ended) == 3
    assert records.most == 1


async def test_the_schedule_runs_what_comes_first_and_then_the_collection() -> None:
    place = Place(every=0.01)
    task = asyncio.create_task(place.collector.run())
    try:
        async with asyncio.timeout(10):
            while not place.events.of(CollectionEnded):
                place.hand.now += 1
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert place.firsts >= 1
