"""Room: what is promised, what goes first, and what never goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import apsw
import pytest

from mirror.clock import Clock
from mirror.contracts.content import Partial, StoreFull
from mirror.contracts.events import ContentEvicted
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.held_index import HeldIndex
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ..fakes import HandClock, Recorder
from .content_contract import content, put


@pytest.fixture
def wall() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(tmp_path: Path, wall: HandClock) -> AsyncIterator[DiskContent]:
    bounds = Bounds(1000, high=0.8, low=0.5, block=1)
    store = DiskContent(
        tmp_path / "store", bounds, sync=False, clock=Clock(wall=wall), events=Events()
    )
    yield store
    await store.close()


async def growing(store: DiskContent, data: bytes, source: str = "") -> Partial:
    """A partial of these bytes, with as much of it as is wanted yet to come."""
    partial = await store.partial(Digest.of(data), source)
    assert partial is not None
    return partial


async def test_what_is_set_aside_is_not_given_twice(store: DiskContent) -> None:
    first, second = await growing(store, b"first"), await growing(store, b"second")
    await first.append([b"x" * 600])
    with pytest.raises(StoreFull):
        await second.append([b"x" * 600])
    await first.discard()
    await second.append([b"x" * 600])
    await second.discard()


async def test_a_length_that_is_only_claimed_takes_nothing(store: DiskContent) -> None:
    kept = [await put(store, bytes([n]) * 100) for n in range(9)]
    claims = [await growing(store, f"claim {n}".encode()) for n in range(50)]
    for claim in claims:
        await claim.announce(990)
    assert [await content(store, digest) is not None for digest in kept] == [True] * 9
    await claims[0].append([b"x" * 150])  # for which the oldest goes, and no more
    assert sum([await content(store, digest) is not None for digest in kept]) == 8
    for claim in claims:
        await claim.discard()
    assert store.usage().reserved_bytes == 0


async def test_what_could_never_fit_as_a_whole_is_refused_before_anything_goes(
    store: DiskContent,
) -> None:
    kept = await put(store, b"k" * 300)
    await store.pin("library/redis:7", kept)
    other = await put(store, b"o" * 600)
    partial = await growing(store, b"too much")
    with pytest.raises(StoreFull):
        await partial.announce(1001)
    await partial.announce(701)
    with pytest.raises(StoreFull):
        await partial.append([b"x" * 200])
    assert await content(store, other) is not None
    await partial.announce(700)
    await partial.append([b"x" * 200])
    assert await content(store, other) is None
    await partial.discard()


async def test_who_is_not_trusted_takes_a_share_of_a_full_store(
    tmp_path: Path, wall: HandClock
) -> None:
    """An eighth, of what others have; and of what is free as much as there is."""
    store = DiskContent(
        tmp_path / "store",
        Bounds(8000, block=1),
        sync=False,
        clock=Clock(wall=wall),
        is_guest=lambda source: source == "stranger.example",
        events=Events(),
    )
    kept = []
    for n in range(7):
        kept.append(await put(store, bytes([n]) * 1000))
        wall.now += 60
    guest = await growing(store, b"g", "stranger.example")
    await guest.append([b"x" * 1000])  # what was free
    with pytest.raises(StoreFull):
        await guest.append([b"x" * 900])  # others' room, and the share is used already
    assert all([await content(store, digest) is not None for digest in kept])
    await guest.discard()
    for n in range(30):  # proven, one after the other
        data = bytes([100 + n]) * 500
        await store.put(Digest.of(data), data, source="stranger.example")
        wall.now += 60
    assert all([await content(store, digest) is not None for digest in kept])
    assert store.async_index.index.guests() == 1000
    await put(store, b"o" * 2000)  # anybody else's: the oldest go, whoever's they are
    assert store.usage().content_bytes <= 8000
    await store.close()


async def test_who_is_not_trusted_is_bounded_until_the_registry_says_the_same(
    tmp_path: Path, wall: HandClock
) -> None:
    store = DiskContent(
        tmp_path / "store",
        Bounds(8000, block=1),
        sync=False,
        clock=Clock(wall=wall),
        events=Events(),
    )
    kept = []
    for n in range(8):
        kept.append(await put(store, bytes([n]) * 1000))
        wall.now += 60
    data = b"layer" * 600
    partial = await growing(store, data)
    partial.trusted = False
    await partial.announce(len(data))
    with pytest.raises(StoreFull):
        await partial.append([data[:250]])
    partial.size = None  # as of one that tells no length
    for _ in range(10):
        with contextlib.suppress(StoreFull):
            await partial.append([data[partial.offset : partial.offset + 250]])
    assert 0 < partial.offset <= 1000
    partial.trusted = True
    await partial.append([data[partial.offset :]])
    await partial.commit()
    assert store.async_index.index.guests() == 0
    assert [await content(store, digest) is not None for digest in kept] == [False] * 4 + [True] * 4
    await store.close()


async def test_pieces_count_for_the_blocks_that_they_take(tmp_path: Path, wall: HandClock) -> None:
    bounds = Bounds(1050, block=100)
    store = DiskContent(
        tmp_path / "store", bounds, sync=False, clock=Clock(wall=wall), events=Events()
    )
    for n in range(20):
        await put(store, bytes([n]) * 10)
        assert store.usage().content_bytes <= 1050
    assert store.usage().entries == 10
    await store.close()


class Raced(DiskContent):
    """A store whose content another process evicts a moment before it does, as often as `races`."""

    races = 0

    async def evict(self, digests: Sequence[Digest]) -> int:
        if self.races:
            self.races -= 1
            other = DiskContent(self.root, self.space.bounds, sync=False, events=Events())
            await other.evict(digests)
            await other.close()
        return await super().evict(digests)


async def test_what_another_process_has_evicted_makes_room_too(
    tmp_path: Path, wall: HandClock
) -> None:
    store = Raced(
        tmp_path / "store",
        Bounds(1000, block=1),
        sync=False,
        clock=Clock(wall=wall),
        events=Events(),
    )
    for n in range(9):
        await put(store, bytes([n]) * 100)
        wall.now += 60
    partial = await growing(store, b"new")
    store.races = 1
    await partial.append([b"x" * 150])
    assert store.usage().content_bytes <= 800
    await partial.discard()
    await store.close()


async def test_the_marks_are_reached_though_another_process_evicts_as_well(
    tmp_path: Path, wall: HandClock
) -> None:
    bounds = Bounds(100_000, high=0.8, low=0.2, block=1)
    store = Raced(tmp_path / "store", bounds, sync=False, clock=Clock(wall=wall), events=Events())
    for n in range(95):
        await put(store, bytes([n]) * 1000)
    store.races = 1
    await store.space.tidy()
    assert store.usage().content_bytes <= 20_000
    await store.close()


async def test_content_of_unknown_length_takes_room_as_it_grows(store: DiskContent) -> None:
    partial = await store.partial(Digest.of(b"growing"))
    assert partial is not None
    await partial.append([b"x" * 900])
    assert store.usage().reserved_bytes >= 900
    with pytest.raises(StoreFull):
        await partial.append([b"x" * 200])
    await partial.discard()
    assert store.usage().reserved_bytes == 0


async def test_a_suspended_partial_keeps_room_for_what_is_there(store: DiskContent) -> None:
    digest = Digest.of(b"later")
    partial = await store.partial(digest)
    assert partial is not None
    await partial.announce(500)
    await partial.append([b"x" * 100])
    await partial.suspend()
    assert store.usage().reserved_bytes == 100
    resumed = await store.partial(digest)
    assert resumed is not None
    await resumed.discard()
    assert store.usage().reserved_bytes == 0


async def test_between_the_marks_nothing_goes_and_above_the_high_one_the_oldest(
    store: DiskContent, wall: HandClock
) -> None:
    digests = []
    for n in range(4):
        digests.append(await put(store, bytes([n]) * 200))
        wall.now += 60
    await store.space.tidy()
    assert store.usage().content_bytes == 800
    digests.append(await put(store, b"4" * 100))
    await store.space.tidy()
    assert store.usage().content_bytes <= 500
    assert [await content(store, digest) is not None for digest in digests] == [
        False, False, True, True, True,
    ]  # fmt: skip


async def test_what_is_pinned_stays_with_all_it_needs(store: DiskContent, wall: HandClock) -> None:
    layer = await put(store, b"l" * 200)
    manifest = await put(store, b"m" * 100, (layer,))
    await store.pin("library/redis:7", manifest)
    wall.now += 60
    for n in range(5):
        await put(store, bytes([n]) * 300)
        wall.now += 60
    assert await content(store, layer) is not None
    assert await content(store, manifest) is not None
    assert store.usage().content_bytes <= 1000


async def test_a_pin_moves_with_its_tag(store: DiskContent, wall: HandClock) -> None:
    old = await put(store, b"o" * 300)
    await store.pin("library/redis:7", old)
    new = await put(store, b"n" * 300)
    await store.pin("library/redis:7", new)
    wall.now += 60
    await put(store, b"x" * 500)
    assert await content(store, old) is None
    assert await content(store, new) is not None


async def test_when_all_is_pinned_there_is_no_room(store: DiskContent) -> None:
    kept = await put(store, b"k" * 800)
    await store.pin("library/redis:7", kept)
    partial = await store.partial(Digest.of(b"more"))
    assert partial is not None
    with pytest.raises(StoreFull):
        await partial.append([b"x" * 300])
    await partial.discard()
    assert await content(store, kept) is not None


async def test_nothing_is_evicted_for_what_does_not_fit_all_the_same(store: DiskContent) -> None:
    pinned, other = await put(store, b"k" * 500), await put(store, b"o" * 400)
    await store.pin("library/redis:7", pinned)
    partial = await growing(store, b"too much")
    with pytest.raises(StoreFull):
        await partial.append([b"x" * 600])
    assert await content(store, other) is not None
    await partial.append([b"x" * 450])  # for which the other goes
    assert await content(store, other) is None
    await partial.discard()


async def test_an_index_that_takes_no_record_is_not_asked_again_and_again(
    store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same that was chosen first would be chosen each time."""
    kept = [await put(store, bytes([n]) * 100) for n in range(9)]
    asked: set[Digest] = set()

    def refuse(self: HeldIndex, digest: Digest, unlink: Callable[[], None]) -> int:
        asked.add(digest)
        unlink()
        raise apsw.FullError("database or disk is full")

    partial = await growing(store, b"new")
    with monkeypatch.context() as full:
        full.setattr(HeldIndex, "evict", refuse)
        with pytest.raises(StoreFull):
            await partial.append([b"x" * 200])
    assert len(asked) <= 2
    assert sum([await content(store, digest) is not None for digest in kept]) >= 7
    await partial.append([b"x" * 200])  # what is gone already makes the room
    assert sum([await content(store, digest) is not None for digest in kept]) >= 7
    await partial.discard()


async def test_the_disks_floor_is_kept_free(tmp_path: Path) -> None:
    store = DiskContent(
        tmp_path / "store", Bounds(1000, min_free=1 << 60, block=1), sync=False, events=Events()
    )
    partial = await store.partial(Digest.of(b"x"))
    assert partial is not None
    with pytest.raises(StoreFull):
        await partial.append([b"x"])
    await partial.discard()
    await store.close()


@pytest.mark.parametrize("ahead", [2 * 86400.0, 3600.0])
async def test_what_a_clock_noted_that_was_ahead_does_not_go_last(
    store: DiskContent, wall: HandClock, ahead: float
) -> None:
    """It was used before whatever is used now, and keeps its own order."""
    wall.now += ahead
    old = []
    for n in range(4):
        old.append(await put(store, bytes([n]) * 200))
        wall.now += 60
    wall.now -= ahead
    new = []
    for n in range(4, 7):
        new.append(await put(store, bytes([n]) * 200))
        wall.now += 60
    assert [await content(store, digest) is not None for digest in old + new] == [
        False, False, True, True, True, True, True,
    ]  # fmt: skip


async def test_what_is_used_after_the_clock_was_set_back_is_young(
    store: DiskContent, wall: HandClock
) -> None:
    wall.now += 86400
    used, unused = await put(store, b"u" * 400), await put(store, b"o" * 400)
    wall.now -= 86400
    assert await content(store, used) is not None
    await store._uses.record()
    wall.now += 60
    await put(store, b"n" * 400)
    assert not (store.blobs.path(unused)).exists()
    assert store.blobs.path(used).exists()


async def test_what_is_evicted_is_told_with_its_size_by_the_one_that_removed_it(
    tmp_path: Path,
) -> None:
    told, other_told = Recorder(), Recorder()
    bounds, wall = Bounds(1000, block=1), HandClock(time.time())
    store = DiskContent(tmp_path / "store", bounds, sync=False, events=told, clock=Clock(wall=wall))
    other = DiskContent(tmp_path / "store", bounds, sync=False, events=other_told)
    digest = await put(store, b"x" * 100)
    wall.now += 50
    assert await content(store, digest) is not None
    await store._uses.record()
    wall.now += 1000
    await store.evict([digest])
    await other.evict([digest])
    (evicted,) = told.of(ContentEvicted)
    assert (evicted.digest, evicted.size) == (digest, 100)
    assert evicted.unused == pytest.approx(1000, abs=1)
    assert evicted.age == pytest.approx(1050, abs=30)
    assert other_told.of(ContentEvicted) == []
    for each in (store, other):
        await each.close()
