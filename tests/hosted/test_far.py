"""What is pushed and what is removed of the object store, at the same time; and what is held on
the disk beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.second_tier import FarFault
from mirror.hosted.far import BucketShelf, HeldHere
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.storage.records.hosted.far import rely_on
from mirror.storage.records.hosted.marking import MarkingRecords
from mirror.storage.records.hosted.opening import open_in
from tests.fakes.content import MemoryContent
from tests.fakes.hosted import MemoryHeld
from tests.fakes.tier import MemoryFarContent, MemoryTier
from tests.waiting import eventually

from ..fakes.clock import HandClock

APP = "team/app"
DATA = b"a layer"
LAYER = Digest.of(DATA)


class SlowContent(MemoryFarContent):
    """Removes when it is let to."""

    def __init__(self, tier: MemoryTier) -> None:
        super().__init__(tier)
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def remove(self, names: Collection[str]) -> int:
        self.asked.set()
        await self.may.wait()
        return await super().remove(names)


class House:
    def __init__(self, records: MarkingRecords) -> None:
        self.hand = HandClock(time.time())  # on the wall
        self.tier, self.store, self.clock = MemoryTier(), MemoryContent(), Clock(wall=self.hand)
        self.content = SlowContent(self.tier)
        self.records = records
        self.shelf = BucketShelf(
            self.tier, self.content, records, self.store, self.clock, name_of=str
        )

    @property
    def later(self) -> float:
        return self.clock.wall() + 100

    async def push(self) -> None:
        """As a registry does: brought there, then recorded."""
        assert await self.shelf.bring(LAYER) == len(DATA)
        await self.records.add_blob(APP, LAYER, len(DATA), self.clock.wall(), "ann")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database = open_in(tmp_path, Clock(), sync=False)
    house = House(MarkingRecords(database, lambda _: None, 0.0, rely_on))
    await house.store.put(LAYER, DATA)
    yield house
    await database.close()


async def test_a_push_during_the_removal_of_its_content_brings_it_anew(house: House) -> None:
    await house.shelf.bring(LAYER)
    async with house.records.alone() as alone:
        assert alone
        removing = asyncio.create_task(house.shelf.release(LAYER, house.later))
        await house.content.asked.wait()
        pushing = asyncio.create_task(house.push())
        done, _ = await asyncio.wait([pushing], timeout=0.3)
        assert not done  # it would find an object that is about to go
        house.content.may.set()
        assert await removing == len(DATA)
        await pushing
    assert house.tier.kept == {LAYER: DATA}
    # It is recorded: no collection takes it.
    assert await house.shelf.release(LAYER, house.later) == 0
    assert house.tier.kept == {LAYER: DATA}


async def test_a_push_goes_on_where_the_collector_has_died(house: House) -> None:
    await house.shelf.bring(LAYER)
    async with house.records.alone():
        removing = asyncio.create_task(house.shelf.release(LAYER, house.later))
        await house.content.asked.wait()
        removing.cancel()
        await asyncio.gather(removing, return_exceptions=True)
        pushing = asyncio.create_task(house.push())
        done, _ = await asyncio.wait([pushing], timeout=1.5)
        assert not done  # as far as anybody knows, it lives
    done, _ = await asyncio.wait([pushing], timeout=1.5)
    assert not done  # the object store may still be at it
    house.hand.now += 61
    await asyncio.wait_for(pushing, 10)
    assert house.tier.kept == {LAYER: DATA}


async def test_what_could_not_be_removed_goes_with_the_next_collection(house: House) -> None:
    await house.shelf.bring(LAYER)
    house.content.may.set()
    house.content.refuses = True
    with pytest.raises(FarFault):
        await house.shelf.release(LAYER, house.later)
    house.content.refuses = False
    # However young: it is half gone, and nobody may rely on it.
    [left] = await house.records.held_far(0.0, None, 9)
    assert await house.shelf.release(left.digest, 0.0) == len(DATA)
    assert house.tier.kept == {}
    assert await house.records.held_far(house.later, None, 9) == []


async def test_what_the_object_store_does_not_take_is_refused(house: House) -> None:
    house.tier.takes = False
    with pytest.raises(Unavailable, match="object store"):
        await house.shelf.bring(LAYER)


async def test_what_is_held_here_goes_there_and_stays_until_it_is(house: House) -> None:
    held = MemoryHeld(house.clock.wall)
    stray = Digest.of(b"of nobody")
    await held.put_held(LAYER, DATA)
    await held.put_held(stray, b"of nobody")
    await house.push()
    house.tier.kept.clear()
    house.tier.takes = False
    here = HeldHere(house.shelf, held, house.records, house.clock, lambda: 3600.0)
    with pytest.raises(Unavailable):
        await here.look()
    assert set(held.at) == {LAYER, stray}
    house.tier.takes = True
    await here.look()
    assert house.tier.kept == {LAYER: DATA}
    assert (set(held.at), set(held.here)) == ({stray}, {LAYER, stray})  # in its grace
    hand = HandClock()
    clock = Clock(monotonic=hand)
    here = HeldHere(house.shelf, held, house.records, clock, lambda: -1.0)
    await here.look()
    assert set(held.here) == {LAYER, stray}  # its record may be on its way out of a backup
    hand.now += 3600
    await here.look()
    assert set(held.here) == {LAYER}


async def test_what_is_missing_there_is_brought_from_here_or_told(house: House) -> None:
    await house.push()
    house.tier.kept.clear()
    gone = Digest.of(b"nowhere")
    assert await house.shelf.keep([LAYER, gone]) == [gone]
    await eventually(lambda: house.tier.kept == {LAYER: DATA})
