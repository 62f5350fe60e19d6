"""Ranges of a blob that is not here: they come first, and stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from mirror.contracts.registry import FileContent, Outcome
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, RangeInvalid, Unavailable
from mirror.oci.ranges import ByteRange
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills import spill
from mirror.pullthrough.fills.connection import Connection
from mirror.pullthrough.fills.fill import SMALL, Fill
from mirror.pullthrough.fills.gaps import END, ROUND, Gaps
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.queue import FillLimits
from mirror.pullthrough.fills.sink import Sink
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.fills.write_behind import MOST
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.partial import DiskPartial
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ..fakes import CONTEXT, FakeTags, FakeUpstream, request_of
from ..fakes.content import MemoryFile
from ..waiting import eventually
from .test_fills import BIG, REDIS, Hold, read_all

FAR = 2 * SMALL + 12345
QUICK = DownloadPatience(first_byte=1, stalled=1, pause=0.01, longest_pause=0.02)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    """A disk: other processes look at it."""
    store = DiskContent(tmp_path / "store", Bounds(1 << 30), sync=False, events=Events())
    yield store
    await store.close()


@pytest.fixture
def big(upstream: FakeUpstream) -> Digest:
    digest = Digest.of(BIG)
    upstream.blobs[digest] = BIG
    return digest


class HoldBelow(Hold):
    """Holds streams in front of FAR, and lets others pass."""

    async def __call__(self, position: int) -> None:
        if self.at <= position < FAR - ROUND:
            await super().__call__(position)


class Held:
    """A download of the whole that is held before it comes to FAR."""

    def __init__(self, cache: PullThrough, upstream: FakeUpstream, digest: Digest) -> None:
        self._cache = cache
        self._digest = digest
        self.hold = HoldBelow(upstream, at=SMALL)

    async def __aenter__(self) -> Held:
        self._whole = await self._cache.blob(CONTEXT, REDIS, self._digest)
        await self.hold.reached.wait()
        return self

    async def __aexit__(self, *error: object) -> None:
        if error[0] is not None:
            return
        self.hold.go.set()
        assert await read_all(self._whole) == BIG


async def read_from(content: FileContent, start: int, stop: int | None = None) -> bytes:
    data = b""
    try:
        while stop is None or start + len(data) < stop:
            at = start + len(data)
            limit = await content.readable(at)
            if limit <= at:
                break
            data += content.pread(min(limit, stop or limit) - at, at)
    finally:
        content.close()
    return data


async def part_of(cache: PullThrough, digest: Digest, start: int, stop: int | None = None) -> bytes:
    content = await cache.blob(CONTEXT, REDIS, digest, ByteRange(start, stop))
    return await read_from(content, start, stop)


async def test_f56_a_range_that_is_there_is_read_at_once(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big):
        assert await part_of(cache, big, 1000, 2000) == BIG[1000:2000]
        assert upstream.asked["blob"] == 1


async def test_f56_a_range_far_ahead_does_not_wait_and_is_not_fetched_again(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big):
        part = await cache.blob(CONTEXT, REDIS, big, ByteRange(FAR))
        assert part.descriptor.size == len(BIG)
        assert await read_from(part, FAR) == BIG[FAR:]
    assert upstream.blob_bytes == len(BIG)
    await eventually(lambda: upstream.open_streams == 0)


async def test_a_small_range_far_ahead_asks_for_no_more_than_a_little_around_it(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big):
        assert await part_of(cache, big, FAR, FAR + 10) == BIG[FAR : FAR + 10]
        asked = upstream.ranges[-1]
        assert asked is not None
        assert asked.stop is not None
        assert asked.start <= FAR
        assert asked.stop >= FAR + 10
        assert asked.stop - asked.start <= 2 * ROUND


async def test_the_last_bytes_are_given_to_who_asks_for_them_alone(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    """The footer of a layer that is read lazily."""
    async with Held(cache, upstream, big):
        start, stop = len(BIG) - 50, len(BIG)
        assert await part_of(cache, big, start, stop) == BIG[start:]


async def test_ranges_that_were_asked_for_are_there_for_the_next(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big):
        await part_of(cache, big, FAR, FAR + 5000)
        asked = upstream.asked["blob"]
        for start in (FAR, FAR + 1000, FAR + 4999):
            assert await part_of(cache, big, start, FAR + 5000) == BIG[start : FAR + 5000]
        assert upstream.asked["blob"] == asked


async def test_where_only_ranges_were_asked_for_the_rest_follows(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    content = await cache.blob(CONTEXT, REDIS, big, ByteRange(FAR, FAR + 10))
    assert content.outcome is Outcome.FILLED
    assert await read_from(content, FAR, FAR + 10) == BIG[FAR : FAR + 10]
    assert upstream.ranges[0] is not None
    kept = await eventually(lambda: store.open(big))
    kept.close()
    assert upstream.blob_bytes <= len(BIG) + SMALL // 4  # a few bytes are rather read twice


async def test_the_rest_keeps_nobody_from_a_place(
    upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    fills = Fills(store, Events(), patience=QUICK, limits=FillLimits(total=1))
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), fills))
    other = BIG[::-1]
    upstream.blobs[Digest.of(other)] = other
    hold = HoldBelow(upstream, at=0)
    assert await part_of(cache, big, FAR, FAR + 10) == BIG[FAR : FAR + 10]
    upstream.before_read = None
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(other))) == other
    hold.go.set()
    kept = await eventually(lambda: store.open(big))
    kept.close()
    await fills.close()
    await cache.close()


async def test_ranges_are_there_after_a_restart(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, fills: Fills, big: Digest
) -> None:
    HoldBelow(upstream, at=0)
    assert await part_of(cache, big, FAR, FAR + 10) == BIG[FAR : FAR + 10]
    await fills.close()
    async with again(store, upstream) as (_, after):
        upstream.down = Unavailable("away")
        assert await part_of(after, big, FAR, FAR + 10) == BIG[FAR : FAR + 10]
        upstream.down = upstream.before_read = None
        assert await read_all(await after.blob(CONTEXT, REDIS, big)) == BIG


async def test_after_a_restart_nothing_unproven_is_given_that_the_registry_did_not_send(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    partial = await store.partial(big, REDIS.registry)
    assert partial is not None
    await partial.announce(len(BIG))
    await partial.place(FAR, [b"x" * 1000])
    await partial.suspend()
    upstream.vouched = False
    hold = Hold(upstream, at=SMALL)
    asking = asyncio.create_task(part_of(cache, big, FAR, FAR + 10))
    await hold.reached.wait()
    assert not asking.done()
    hold.go.set()
    assert await asking == BIG[FAR : FAR + 10]  # of a second download: the first was wrong


@contextlib.asynccontextmanager
async def again(
    store: DiskContent, upstream: FakeUpstream
) -> AsyncIterator[tuple[DiskContent, PullThrough]]:
    """Another process on the same store."""
    other = DiskContent(store.root, Bounds(1 << 30), sync=False, events=Events())
    fills = Fills(other, Events(), patience=QUICK)
    cache = PullThrough(upstream, Shared.over(other, FakeTags(), fills))
    yield other, cache
    await fills.close()
    await cache.close()
    await other.close()


async def test_another_process_reads_a_range_that_the_first_has_placed_ahead(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    async with Held(cache, upstream, big), again(store, upstream) as (_, other):
        assert await part_of(cache, big, FAR, FAR + 1000) == BIG[FAR : FAR + 1000]
        asked = upstream.asked["blob"]
        assert await part_of(other, big, FAR, FAR + 1000) == BIG[FAR : FAR + 1000]
        assert upstream.asked["blob"] == asked


async def test_another_process_gets_a_range_that_the_first_has_not(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    async with again(store, upstream) as (_, other):
        async with Held(cache, upstream, big):
            assert await part_of(other, big, FAR) == BIG[FAR:]
            whole = asyncio.create_task(read_all(await other.blob(CONTEXT, REDIS, big)))
        assert await whole == BIG


async def test_who_reads_along_gets_nothing_of_what_comes_of_a_range_beside(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    """Those bytes are in no hash."""
    lying = FakeUpstream()
    lying.blobs[big], lying.corrupt = BIG, True
    hold = Hold(upstream, at=0)
    async with again(store, lying) as (_, other):
        first = asyncio.create_task(cache.blob(CONTEXT, REDIS, big))
        await hold.reached.wait()
        whole = asyncio.create_task(other.blob(CONTEXT, REDIS, big))
        assert await part_of(other, big, 0, 10) != BIG[:10]
        hold.go.set()
        assert await read_all(await whole) == BIG
        assert await read_all(await first) == BIG


async def test_a_range_that_the_registry_denies_ends_nobody_who_reads_along(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    async with again(store, upstream) as (_, other):
        async with Held(cache, upstream, big):
            whole = await other.blob(CONTEXT, REDIS, big)
            upstream.lacking = {REDIS}
            asked = upstream.asked["blob"]
            part = asyncio.create_task(part_of(other, big, FAR, FAR + 10))
            await eventually(lambda: upstream.asked["blob"] > asked)
        assert await read_all(whole) == BIG
        assert await part == BIG[FAR : FAR + 10]


async def test_a_process_that_reads_along_keeps_no_range_that_was_read(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
) -> None:
    async with again(store, upstream) as (_, other):
        async with Held(cache, upstream, big):
            whole = await other.blob(CONTEXT, REDIS, big)  # it follows, as long as this one reads
            for at in range(FAR, len(BIG) - 10, 2 * ROUND):
                assert await part_of(other, big, at, at + 10) == BIG[at : at + 10]
            assert files_in_memory() <= 1
        assert await read_all(whole) == BIG


def files_in_memory() -> int:
    """Descriptors of this process that are of memory through which ranges pass."""
    names = (os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return sum(name.startswith("/memfd:fill") for name in names)


async def test_f56_a_range_that_is_cut_goes_on(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big) as held:
        cuts = [FAR, FAR + 100_000]

        async def cut(position: int) -> None:
            if cuts and position >= cuts[0]:
                cuts.pop(0)
                raise Unavailable("the body was cut")
            await held.hold(position)

        upstream.before_read = cut  # type: ignore[assignment]
        assert await part_of(cache, big, FAR) == BIG[FAR:]
        assert not cuts


async def test_f02_who_waits_for_a_range_that_comes_in_crumbs_gets_it_with_the_whole(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big) as held:
        upstream.piece, came = 100, 0

        async def after_a_crumb(position: int) -> None:
            nonlocal came
            await held.hold(position)
            if position >= FAR and not held.hold.go.is_set():
                came += 1
                if came % 2 == 0:
                    raise Unavailable("the body was cut")

        upstream.before_read = after_a_crumb  # type: ignore[assignment]
        part = await cache.blob(CONTEXT, REDIS, big, ByteRange(FAR))
        reading = asyncio.create_task(read_from(part, FAR))
        await eventually(lambda: upstream.open_streams == 1)
        asked = upstream.asked["blob"]
        assert asked < 10
        upstream.piece = 1 << 16
        held.hold.go.set()
        assert await reading == BIG[FAR:]


async def test_f56_who_leaves_a_range_midway_leaves_nothing_open(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big) as held:

        async def slowly(position: int) -> None:
            await held.hold(position)
            if position > FAR and not held.hold.go.is_set():
                await asyncio.sleep(60)

        upstream.before_read = slowly  # type: ignore[assignment]
        part = await cache.blob(CONTEXT, REDIS, big, ByteRange(FAR))
        assert upstream.open_streams == 2
        part.close()
        await eventually(lambda: upstream.open_streams == 1)


async def test_who_waits_for_the_range_of_another_that_leaves_gets_it(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big) as held:
        go = asyncio.Event()

        async def late(position: int) -> None:
            await held.hold(position)
            if position > FAR:
                await go.wait()

        upstream.before_read = late  # type: ignore[assignment]
        first = await cache.blob(CONTEXT, REDIS, big, ByteRange(FAR))
        second = await cache.blob(CONTEXT, REDIS, big, ByteRange(FAR))
        first.close()
        await asyncio.sleep(0)
        go.set()
        assert await read_from(second, FAR) == BIG[FAR:]


async def test_nothing_unproven_is_given_of_a_range_from_who_is_not_the_registry(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.vouched = False
    hold = Hold(upstream, at=SMALL)
    asking = asyncio.create_task(part_of(cache, big, FAR, FAR + 10))
    await hold.reached.wait()
    assert not asking.done()
    hold.go.set()
    assert await asking == BIG[FAR : FAR + 10]
    assert upstream.blob_bytes == len(BIG)


async def test_f07_an_upstream_without_ranges_makes_the_far_one_wait(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.takes_ranges = False
    hold = Hold(upstream, at=SMALL)
    asking = asyncio.create_task(part_of(cache, big, FAR))
    await hold.reached.wait()
    assert upstream.open_streams == 1
    hold.go.set()
    assert await asking == BIG[FAR:]
    assert upstream.asked["blob"] == 2


async def test_f05_an_upstream_without_a_length_makes_the_far_one_wait(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.says_size = False
    assert await part_of(cache, big, FAR) == BIG[FAR:]


async def test_a_range_behind_the_end_says_how_long_the_blob_is(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    with pytest.raises(RangeInvalid) as error:
        await cache.blob(CONTEXT, REDIS, big, ByteRange(len(BIG) + ROUND))
    assert error.value.size == len(BIG)
    async with Held(cache, upstream, big):
        content = await cache.blob(CONTEXT, REDIS, big, ByteRange(len(BIG)))
        assert content.descriptor.size == len(BIG)  # which a 416 says
        content.close()


async def test_a_range_of_a_blob_that_is_not_there(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await cache.blob(CONTEXT, REDIS, Digest.of(b"nowhere"), ByteRange(FAR, FAR + 1))
    assert upstream.asked["blob"] == 1


async def test_a_slow_reader_of_a_range_holds_no_stream(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big):
        part = await cache.blob(CONTEXT, REDIS, big, ByteRange(FAR))
        begun = await part.readable(FAR)
        assert part.pread(begun - FAR, FAR) == BIG[FAR:begun]
        await eventually(lambda: upstream.open_streams == 1)  # that of the whole
        assert await read_from(part, begun) == BIG[begun:]


async def test_one_client_s_ranges_are_bounded_and_no_other_s(
    upstream: FakeUpstream, store: DiskContent
) -> None:
    blobs = [bytes([number]) + BIG for number in range(33)]
    upstream.blobs.update({Digest.of(blob): blob for blob in blobs})
    fills = Fills(store, Events())
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), fills))
    go = asyncio.Event()

    async def hold(position: int) -> None:
        if position > FAR:
            await go.wait()

    upstream.before_read = hold  # type: ignore[assignment]
    far = ByteRange(FAR)
    first = [await cache.blob(request_of("a"), REDIS, Digest.of(blob), far) for blob in blobs[:32]]
    late = asyncio.create_task(cache.blob(request_of("a"), REDIS, Digest.of(blobs[32]), far))
    await asyncio.sleep(0.3)
    assert not late.done()
    assert upstream.open_streams == 32
    other = await cache.blob(request_of("b"), REDIS, Digest.of(blobs[0]), ByteRange(1))
    go.set()
    other.close()
    for part, blob in zip([*first, await late], blobs, strict=True):
        assert await read_from(part, FAR) == blob[FAR:]
    await fills.close()
    await cache.close()


class TestWithoutRoom:
    """The disk takes nothing: ranges pass through memory."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DiskContent]:
        store = DiskContent(tmp_path / "store", Bounds(SMALL), sync=False, events=Events())
        yield store
        await store.close()

    async def test_a_range_is_given(
        self, cache: PullThrough, upstream: FakeUpstream, store: DiskContent, big: Digest
    ) -> None:
        assert await part_of(cache, big, FAR, FAR + 5000) == BIG[FAR : FAR + 5000]
        assert await part_of(cache, big, 5000, FAR) == BIG[5000:FAR]
        await eventually(lambda: cache._fills.is_idle(REDIS.registry))
        assert upstream.blob_bytes < len(BIG)  # what nobody keeps nobody fetches
        assert store.usage().reserved_bytes == 0

    async def test_many_ranges_at_once_and_the_whole(
        self, cache: PullThrough, upstream: FakeUpstream, big: Digest
    ) -> None:
        starts = range(0, len(BIG), len(BIG) // 10)
        whole, *parts = await asyncio.gather(
            cache.blob(CONTEXT, REDIS, big),
            *(cache.blob(CONTEXT, REDIS, big, ByteRange(start, start + 9999)) for start in starts),
        )
        bodies = await asyncio.gather(
            *(read_from(part, at, at + 9999) for at, part in zip(starts, parts, strict=True))
        )
        assert bodies == [BIG[at : at + 9999] for at in starts]
        assert await read_all(whole) == BIG

    async def test_the_same_range_for_several_at_once(
        self, cache: PullThrough, upstream: FakeUpstream, big: Digest
    ) -> None:
        stop = FAR + 6 * ROUND
        parts = [part_of(cache, big, FAR + number, stop) for number in range(6)]
        bodies = await asyncio.gather(*parts)
        assert [body == BIG[FAR + at : stop] for at, body in enumerate(bodies)] == [True] * 6

    async def test_memory_is_bounded_by_the_slow_reader(
        self, cache: PullThrough, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spill, "RANGE_CAPACITY", SMALL // 4)
        data = random.Random(2).randbytes(
            2 * MOST + 4 * SMALL
        )  # more than a connection has in hand
        upstream.blobs[Digest.of(data)] = data
        part = await cache.blob(CONTEXT, REDIS, Digest.of(data), ByteRange(SMALL))
        await part.readable(SMALL)
        for _ in range(100):  # the upstream could send everything meanwhile
            await asyncio.sleep(0.002)
        assert upstream.blob_bytes < len(data) - SMALL
        assert Digest.of(await read_from(part, SMALL)) == Digest.of(data[SMALL:])

    async def test_without_a_descriptor(
        self,
        cache: PullThrough,
        upstream: FakeUpstream,
        big: Digest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def none(*_: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(DiskPartial, "open", none)
        monkeypatch.setattr("os.memfd_create", none)
        assert await part_of(cache, big, FAR, FAR + 5000) == BIG[FAR : FAR + 5000]


async def test_the_stream_of_a_range_is_asked_for_in_the_name_of_its_reader(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    async with Held(cache, upstream, big):
        part = await cache.blob(request_of("b"), REDIS, big, ByteRange(FAR))
        assert upstream.clients[-1] == ("blob", "b")
        part.close()


async def test_a_span_behind_an_end_that_was_told_meanwhile_is_not_asked_for(
    upstream: FakeUpstream,
) -> None:
    gaps = Gaps(0, (), END)
    span = gaps.wanted(FAR, FAR + 1)
    assert span is not None
    # What is asked of the sink, or of this upstream, which has no such blob, raises.
    connection = Connection(cast(Sink, None), gaps, span, None, None)
    gaps.cut(SMALL)
    connection.begin(upstream, lambda _: None, lambda: None)
    await asyncio.wait([connection.task])
    assert connection.error() is None


async def test_what_others_than_the_registry_had_in_hand_is_no_range_when_the_disk_is_full(
    big: Digest,
) -> None:
    fill = Fill(big, REDIS, 1)
    memory = fill.buffer(0, big.hasher())
    reader = fill.reader(Outcome.FILLED, REDIS, ByteRange(FAR), "a")
    await memory.place(FAR, [b"x" * ROUND], vouched=False)
    assert fill.reach(FAR) == 0
    await memory.place(FAR, [BIG[FAR : FAR + ROUND]], vouched=True)
    assert fill.reach(FAR) == FAR + ROUND
    fill.fail(Unavailable("over"))
    reader.close()


async def test_in_order_nothing_is_read_of_what_came_for_a_range(big: Digest) -> None:
    """Another process wrote the beginning, and a range of it came beside; then that process gave it
    up, and the rest passes through memory."""
    fill = Fill(big, REDIS, 1)
    fill.size = len(BIG)
    reader, of_range = (
        fill.reader(Outcome.FILLED, REDIS, part, "a") for part in (None, ByteRange(0, SMALL))
    )
    beside = fill.buffer(-1, big.hasher())
    await beside.place(0, [b"x" * SMALL], vouched=True)
    assert await of_range.readable(0) == SMALL
    assert of_range.pread(3, 0) == b"xxx"
    fill.writes_to(MemoryFile.of(BIG[:ROUND]))
    fill.progress(ROUND)
    assert await reader.readable(0) == ROUND
    assert reader.pread(3, 0) == BIG[:3]
    assert fill.file.pread(3, 0) == BIG[:3]
    rest = fill.spill(ROUND, big.hasher())
    await rest.place(ROUND, [BIG[ROUND : 2 * ROUND]])
    fill.progress(2 * ROUND)
    assert await reader.readable(ROUND) == 2 * ROUND
    assert reader.pread(3, ROUND) == BIG[ROUND : ROUND + 3]
    fill.fail(Unavailable("over"))
    reader.close()
    of_range.close()
