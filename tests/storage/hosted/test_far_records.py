"""ShelfRecords on each engine: a push and a removal of the same content go one after the other."""

from __future__ import annotations

import asyncio

import pytest

from mirror.contracts.far_shelf import Gone, Kept
from mirror.contracts.hosted import HostedManifest
from mirror.oci.digest import Digest
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.far import rely_on
from mirror.storage.records.hosted.marking import MarkingRecords

NOW = 1_000_000.0
APP = "team/app"
A, B = Digest.of(b"a"), Digest.of(b"b")


def records_in(database: Database) -> MarkingRecords:
    return MarkingRecords(database, lambda _: None, 0.0, rely_on)


async def test_only_what_there_may_be_is_recorded(database: Database) -> None:
    records = records_in(database)
    with pytest.raises(Gone):
        await records.add_blob(APP, A, 10, NOW, "ann")
    assert await records.repository(APP) is None
    assert await records.hold(A, 10, NOW)
    await records.add_blob(APP, A, 10, NOW, "ann")
    with pytest.raises(Gone):
        await records.put_manifest(APP, HostedManifest(B, "a/b", 5, (A,)), "1", NOW, "ann")
    assert await records.hold(B, 5, NOW)
    await records.put_manifest(APP, HostedManifest(B, "a/b", 5, (A,)), "1", NOW, "ann")


async def test_what_is_needed_or_was_held_since_is_not_removed(database: Database) -> None:
    records = records_in(database)
    await records.hold(A, 10, NOW)
    await records.hold(B, 10, NOW + 50)
    await records.add_blob(APP, A, 10, NOW, "ann")
    assert await records.begin_removal(A, NOW + 10, NOW + 60) is None
    assert await records.begin_removal(B, NOW + 50, NOW + 60) is None
    assert await records.hold(A, 10, NOW + 61)  # it has no mark
    assert [one.digest for one in await records.held_far(NOW + 60, None, 9)] == [B]


async def test_nobody_relies_on_what_is_being_removed(database: Database) -> None:
    records = records_in(database)
    await records.hold(A, 10, NOW)
    async with records.alone() as alone:
        assert alone
        assert await records.begin_removal(A, NOW + 1, NOW + 5) == 10
        assert not await records.hold(A, 10, NOW + 6)
        with pytest.raises(Gone):
            await records.add_blob(APP, A, 10, NOW + 6, "ann")
        assert not await records.abandoned(A, NOW + 99)  # whoever removes it lives
        await records.end_removal(A)
    assert await records.hold(A, 10, NOW + 7)
    await records.add_blob(APP, A, 10, NOW + 7, "ann")


async def test_a_removal_whose_collector_died_is_taken_over(database: Database) -> None:
    records = records_in(database)
    await records.hold(A, 10, NOW)
    await records.hold(B, 10, NOW)
    for one in (A, B):
        await records.begin_removal(one, NOW + 1, NOW + 5)
    # By who pushes it, and by the next collection, however young it is.
    assert not await records.abandoned(A, NOW + 5)  # the object store may still be at it
    assert await records.abandoned(A, NOW + 6)
    assert await records.hold(A, 10, NOW + 6)
    assert [one.digest for one in await records.held_far(NOW, None, 9)] == [B]
    assert await records.begin_removal(B, NOW, NOW + 7) == 10


async def test_a_push_and_a_removal_at_once_never_both_succeed(database: Database) -> None:
    records = records_in(database)
    for number in range(20):
        one = Digest.of(b"%d" % number)
        await records.hold(one, 10, NOW)
        pushed, removed = await asyncio.gather(
            records.add_blob(APP, one, 10, NOW + 9, "ann"),
            records.begin_removal(one, NOW + 1, NOW + 9),
            return_exceptions=True,
        )
        assert isinstance(pushed, Gone) != (removed is None), (pushed, removed)


async def test_objects_without_a_row_get_one(database: Database) -> None:
    records = records_in(database)
    await records.hold(A, 10, NOW)
    assert await records.adopt([Kept(A, 11, NOW - 9), Kept(B, 12, NOW - 9)]) == 1
    found = [(one.digest, one.size, one.held_at) for one in await records.held_far(NOW, None, 9)]
    assert found == [(B, 12, NOW - 9)]
