"""Fills: one download, many readers, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mirror.clock import Clock
from mirror.contracts.content import Partial
from mirror.contracts.events import FillEnded, FillQueued, FillStarted
from mirror.contracts.registry import FileContent, Outcome
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, Unavailable, Untrustworthy
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.download import Download, DownloadPolicy
from mirror.pullthrough.fills.fill import HELD_BACK, SMALL, Fill
from mirror.pullthrough.fills.parallel import ALONE, ParallelPolicy
from mirror.pullthrough.fills.patience import DownloadPatience, Patience
from mirror.pullthrough.fills.queue import FillLimits
from mirror.pullthrough.fills.ranges import RangeConnections
from mirror.pullthrough.fills.sink import Sink
from mirror.pullthrough.fills.states import FillState
from mirror.pullthrough.fills.table import Fills

from ..fakes import CONTEXT, FakeStream, FakeUpstream, MemoryContent, Recorder, request_of
from ..fakes.content import MemoryPartial
from ..waiting import eventually

REDIS = Repository("docker.io", "library/redis")
BIG = random.Random(1).randbytes(3 * SMALL)
LITTLE = b"a config"


async def read_all(content: FileContent) -> bytes:
    """Reads as a client does: what there is, as it comes."""
    data = bytearray()
    try:
        while (limit := await content.readable(len(data))) > len(data):
            data += content.pread(limit - len(data), len(data))
    finally:
        content.close()
    return bytes(data)


class Hold:
    """Holds a stream before it reads at or behind `at`."""

    def __init__(self, upstream: FakeUpstream, at: int) -> None:
        self.at = at
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        upstream.before_read = self  # type: ignore[assignment]

    async def __call__(self, position: int) -> None:
        if position >= self.at:
            self.reached.set()
            await self.go.wait()


class Break:
    """Breaks a stream, once for each of these positions."""

    def __init__(self, upstream: FakeUpstream, *positions: int) -> None:
        self.positions = list(positions)
        upstream.before_read = self  # type: ignore[assignment]

    async def __call__(self, position: int) -> None:
        if self.positions and position >= self.positions[0]:
            self.positions.pop(0)
            raise Unavailable("the body was cut")


@pytest.fixture(params=[BIG, LITTLE, b""], ids=["big", "little", "empty"])
def data(request: pytest.FixtureRequest, upstream: FakeUpstream) -> bytes:
    upstream.blobs[Digest.of(request.param)] = request.param
    return request.param


@pytest.fixture
def big(upstream: FakeUpstream) -> Digest:
    digest = Digest.of(BIG)
    upstream.blobs[digest] = BIG
    return digest


@pytest.fixture
def little(upstream: FakeUpstream) -> Digest:
    digest = Digest.of(LITTLE)
    upstream.blobs[digest] = LITTLE
    return digest


async def test_a_miss_fills_and_the_next_is_a_hit(
    cache: PullThrough, upstream: FakeUpstream, data: bytes
) -> None:
    first = await cache.blob(CONTEXT, REDIS, Digest.of(data))
    assert first.outcome is Outcome.FILLED
    assert await read_all(first) == data
    second = await cache.blob(CONTEXT, REDIS, Digest.of(data))
    assert second.outcome is Outcome.HIT
    assert await read_all(second) == data
    assert upstream.asked["blob"] == 1
    assert upstream.open_streams == 0


async def test_f05_a_blob_of_unknown_length(
    cache: PullThrough, upstream: FakeUpstream, data: bytes
) -> None:
    upstream.says_size = False
    content = await cache.blob(CONTEXT, REDIS, Digest.of(data))
    assert await read_all(content) == data
    assert content.descriptor.size == len(data)


async def test_the_first_bytes_go_out_as_they_come(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=SMALL)
    content = await cache.blob(CONTEXT, REDIS, big)
    assert content.descriptor.size == len(BIG)
    await hold.reached.wait()
    limit = await content.readable(0)
    assert 0 < limit <= SMALL
    assert content.pread(limit, 0) == BIG[:limit]
    hold.go.set()
    assert await read_all(content) == BIG


async def test_the_first_bytes_wait_for_no_disk(
    cache: PullThrough, big: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_idle, place = asyncio.Event(), MemoryPartial.place

    async def waits(partial: MemoryPartial, *arguments: Any) -> None:
        await is_idle.wait()
        await place(partial, *arguments)

    monkeypatch.setattr(MemoryPartial, "place", waits)
    content = await cache.blob(CONTEXT, REDIS, big)
    limit = await content.readable(0)
    assert limit > 0
    assert content.pread(limit, 0) == BIG[:limit]
    is_idle.set()
    assert await read_all(content) == BIG


async def test_the_upstream_is_asked_while_the_partial_is_made(
    cache: PullThrough,
    store: MemoryContent,
    upstream: FakeUpstream,
    big: Digest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    get = store.partial

    async def takes_long(digest: Digest, source: str = "") -> Partial | None:
        await eventually(lambda: upstream.asked["blob"] == 1)
        return await get(digest, source)

    monkeypatch.setattr(store, "partial", takes_long)
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG
    assert upstream.asked["blob"] == 1


async def test_of_many_at_once_no_more_are_asked_for_than_may_come(
    store: MemoryContent, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = store.partial

    async def takes_long(digest: Digest, source: str = "") -> Partial | None:
        await asyncio.sleep(0.01)
        return await get(digest, source)

    monkeypatch.setattr(store, "partial", takes_long)
    fills = Fills(store, Events(), limits=FillLimits(total=8, per_registry=8))
    blobs = [LITTLE + bytes([number]) for number in range(20)]
    upstream.blobs.update((Digest.of(blob), blob) for blob in blobs)
    upstream.gate.clear()
    readers = []
    for blob in blobs:
        fill, outcome = fills.join(CONTEXT, Digest.of(blob), upstream, REDIS, 1)
        readers.append(fill.reader(outcome, REDIS))
    await eventually(lambda: upstream.asked["blob"] >= 8)
    upstream.gate.set()
    assert await asyncio.gather(*map(read_all, readers)) == blobs
    assert upstream.asked["blob"] == len(blobs)
    await fills.close()


async def test_who_waits_no_more_for_a_change_is_forgotten(big: Digest) -> None:
    fill = Fill(big, REDIS, 1)
    before = futures()
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await fill.next_change()
    assert futures() <= before + 1


def futures() -> int:
    gc.collect()
    return sum(isinstance(each, asyncio.Future) for each in gc.get_objects())


async def test_what_was_asked_for_in_vain_is_closed(
    cache: PullThrough,
    store: MemoryContent,
    upstream: FakeUpstream,
    big: Digest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It came by another process, until the partial was there."""
    get = store.partial

    async def comes(digest: Digest, source: str = "") -> Partial | None:
        await eventually(lambda: upstream.open_streams == 1)
        await store.put(big, BIG)
        return await get(digest, source)

    monkeypatch.setattr(store, "partial", comes)
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG
    await eventually(lambda: upstream.open_streams == 0)
    assert upstream.blob_bytes == 0


async def test_what_nobody_vouches_for_goes_out_when_it_is_proven(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.vouched = False
    upstream.corrupt = True  # once: then, as a pool does, it asks another endpoint
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG
    assert len(upstream.rejected) == 1, "the lie was not seen"
    assert upstream.asked["blob"] == 2


@pytest.mark.parametrize(
    "parting",
    [ParallelPolicy(connections=1), ParallelPolicy(over=SMALL, part=SMALL // 2, fast=0)],
    ids=["in one", "in parts"],
)
async def test_what_a_stranger_goes_on_with_is_held_back_and_what_the_registry_sent_is_not(
    store: MemoryContent, upstream: FakeUpstream, parting: ParallelPolicy
) -> None:
    upstream.blobs[Digest.of(BIG)] = BIG
    fills = Fills(store, Events(), parting=parting)
    hold = Hold(upstream, at=2 * SMALL + SMALL // 2)
    ask = upstream.blob

    async def turning(*arguments: Any, **more: Any) -> FakeStream:
        stream = await ask(*arguments, **more)
        read = stream.read

        async def reads() -> bytes:
            piece = await read()
            if stream._position > 2 * SMALL:
                stream.source, stream.vouched = "stranger", False
            return piece

        stream.read = reads  # type: ignore[method-assign]
        return stream

    upstream.blob = turning  # type: ignore[method-assign]
    fill, outcome = fills.join(CONTEXT, Digest.of(BIG), upstream, REDIS, 10)
    reader = fill.reader(outcome, REDIS)
    await hold.reached.wait()
    await eventually(lambda: fill.written > 2 * SMALL)
    assert fill.limit == 2 * SMALL
    hold.go.set()
    assert await read_all(reader) == BIG
    await fills.close()


async def test_a_fill_is_the_client_s_that_waits_for_the_fewest(
    store: MemoryContent, upstream: FakeUpstream
) -> None:
    """So nobody waits in the turn of one that has asked for much, whoever came first; nor is it
    anybody's loss when such a one comes to wait for the same."""
    fills = Fills(store, Events(), limits=FillLimits(total=1))

    def asks(client: str, data: bytes) -> Fill:
        fill, outcome = fills.join(request_of(client), Digest.of(data), upstream, REDIS, 10)
        fill.reader(outcome, REDIS)
        return fill

    many = [asks("ann", b"%d" % number) for number in range(5)]
    assert {fill.client for fill in many} == {"ann"}
    assert asks("bob", b"4").client == "bob"
    own = asks("bob", b"bob's")
    asks("cat", b"bob's")
    assert own.client == "cat"
    for number in range(10, 20):
        asks("cat", b"%d" % number)
    assert (own.client, many[4].client, many[0].client) == ("bob", "bob", "ann")
    await fills.close()


async def test_who_joins_one_fill_costs_no_look_at_all_clients_of_all_fills(
    store: MemoryContent, upstream: FakeUpstream
) -> None:
    class Looked(Counter[str]):
        looks = 0

        def __getitem__(self, client: str) -> int:
            self.looks += 1
            return super().__getitem__(client)

    fills = Fills(store, Events(), limits=FillLimits(total=1))
    fills._waits = looked = Looked()
    digests = [Digest.of(b"%d" % number) for number in range(30)]
    for client in range(20):
        for digest in digests:
            fill, outcome = fills.join(request_of(f"{client}"), digest, upstream, REDIS, 10)
            fill.reader(outcome, REDIS)
    before = looked.looks
    fills.join(request_of("last"), digests[0], upstream, REDIS, 10)
    assert looked.looks - before < 100
    await fills.close()


async def test_it_is_not_waited_for_for_ever(store: MemoryContent, upstream: FakeUpstream) -> None:
    upstream.vouched = False
    upstream.blobs[Digest.of(BIG)] = BIG
    fills = Fills(store, Events(), patience=DownloadPatience(doubt=0.5))
    hold = Hold(upstream, at=SMALL)
    fill, outcome = fills.join(CONTEXT, Digest.of(BIG), upstream, REDIS, 10)
    reader = fill.reader(outcome, REDIS)
    await hold.reached.wait()
    assert fill.limit == 0
    await eventually(lambda: fill.limit > 0)
    hold.go.set()
    assert await read_all(reader) == BIG
    await fills.close()


async def test_a_second_client_joins_midway(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=SMALL)
    first = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    second = await cache.blob(CONTEXT, REDIS, big)
    assert second.outcome is Outcome.JOINED
    hold.go.set()
    assert await asyncio.gather(read_all(first), read_all(second)) == [BIG, BIG]
    assert upstream.asked["blob"] == 1


async def test_a_herd_is_one_download(
    cache: PullThrough, upstream: FakeUpstream, data: bytes
) -> None:
    contents = await asyncio.gather(
        *(cache.blob(CONTEXT, REDIS, Digest.of(data)) for _ in range(50))
    )
    assert all(body == data for body in await asyncio.gather(*map(read_all, contents)))
    assert upstream.asked["blob"] == 1
    assert upstream.blob_bytes == len(data)


async def test_f50_a_client_that_leaves_stops_nothing(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, big: Digest
) -> None:
    hold = Hold(upstream, at=SMALL)
    asking = asyncio.create_task(cache.blob(CONTEXT, REDIS, big))
    await hold.reached.wait()
    asking.cancel()
    hold.go.set()
    content = await cache.blob(CONTEXT, REDIS, big)
    assert await read_all(content) == BIG
    assert upstream.asked["blob"] == 1


async def test_the_last_piece_waits_for_the_proof(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=len(BIG))  # every byte has come, the end has not
    content = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    furthest = await content.readable(0)
    while furthest < len(BIG) - HELD_BACK:
        furthest = await content.readable(furthest)
    assert furthest == len(BIG) - HELD_BACK
    hold.go.set()
    assert await content.readable(furthest) == len(BIG)
    content.close()


async def test_a_small_blob_waits_for_the_proof_whole(
    cache: PullThrough, upstream: FakeUpstream, little: Digest
) -> None:
    hold = Hold(upstream, at=len(LITTLE))
    asking = asyncio.create_task(cache.blob(CONTEXT, REDIS, little))
    await hold.reached.wait()
    assert not asking.done()
    hold.go.set()
    assert await read_all(await asking) == LITTLE


async def test_f01_no_client_gets_a_whole_wrong_blob(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, big: Digest
) -> None:
    upstream.corrupt = True
    content = await cache.blob(CONTEXT, REDIS, big)
    with pytest.raises(Untrustworthy):
        await read_all(content)
    assert len(upstream.rejected) == 1
    assert await store.open(big) is None
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG


async def test_f01_wrong_bytes_of_a_small_blob_are_never_seen(
    cache: PullThrough, upstream: FakeUpstream, little: Digest
) -> None:
    upstream.corrupt = True
    assert await read_all(await cache.blob(CONTEXT, REDIS, little)) == LITTLE
    assert len(upstream.rejected) == 1


async def test_f02_a_body_that_is_cut_is_resumed_unseen(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    Break(upstream, 0, SMALL, SMALL, 2 * SMALL)
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG
    assert upstream.blob_bytes == len(BIG)
    starts = [range.start for range in upstream.ranges if range]
    assert starts == sorted(starts)
    assert starts[-1] >= 2 * SMALL


async def test_f07_a_range_that_is_ignored_splices_nothing(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    Break(upstream, 2 * SMALL)
    upstream.takes_ranges = False
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG


@pytest.mark.parametrize("wrong", [-1, 1])
async def test_f04_a_length_that_is_not_the_bodys_is_refused(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, big: Digest, wrong: int
) -> None:
    upstream.announces = len(BIG) + wrong
    with pytest.raises((Untrustworthy, Unavailable)):
        await read_all(await cache.blob(CONTEXT, REDIS, big))
    assert await store.open(big) is None


async def test_f21_an_upstream_that_stays_away_is_given_up(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.down = Unavailable("503")
    with pytest.raises(Unavailable, match="503"):
        await cache.blob(CONTEXT, REDIS, big)
    assert upstream.asked["blob"] > 1
    upstream.down = None
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG


async def test_f21_an_upstream_that_comes_back_is_waited_for(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.down = Unavailable("503")
    asking = asyncio.create_task(cache.blob(CONTEXT, REDIS, big))
    while upstream.asked["blob"] < 2:
        await asyncio.sleep(0)
    upstream.down = None
    assert await read_all(await asking) == BIG


async def test_a_blob_that_is_not_there_is_asked_for_once(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    for _ in range(3):
        with pytest.raises(BlobUnknown):
            await cache.blob(CONTEXT, REDIS, Digest.of(b"nowhere"))
    assert upstream.asked["blob"] == 1


async def test_a_stop_leaves_a_partial_that_the_next_resumes(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, fills: Fills, big: Digest
) -> None:
    hold = Hold(upstream, at=2 * SMALL)
    content = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    await fills.close()
    with pytest.raises(Unavailable, match="stopping"):
        await read_all(content)
    hold.go.set()
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG
    assert upstream.ranges[-1] is not None
    assert upstream.ranges[-1].start == 2 * SMALL
    assert upstream.blob_bytes == len(BIG)


async def test_a_partial_that_is_whole_needs_no_byte_more(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, big: Digest
) -> None:
    partial = await store.partial(big, REDIS.registry)
    assert partial is not None
    await partial.append([BIG])
    await partial.suspend()
    assert await read_all(await cache.blob(CONTEXT, REDIS, big)) == BIG
    assert upstream.blob_bytes == 0


async def test_a_partial_with_wrong_bytes_costs_a_download_and_no_more(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, little: Digest
) -> None:
    partial = await store.partial(little, REDIS.registry)
    assert partial is not None
    await partial.append([b"x"])
    await partial.suspend()
    assert await read_all(await cache.blob(CONTEXT, REDIS, little)) == LITTLE


async def test_stat_knows_what_is_here_what_comes_and_what_is_upstream(
    cache: PullThrough, upstream: FakeUpstream, big: Digest, little: Digest
) -> None:
    assert (await cache.stat(CONTEXT, REDIS, little)).size == len(LITTLE)
    assert upstream.asked["stat"] == 1
    hold = Hold(upstream, at=SMALL)
    content = await cache.blob(CONTEXT, REDIS, big)
    assert (await cache.stat(CONTEXT, REDIS, big)).size == len(BIG)
    hold.go.set()
    await read_all(content)
    assert (await cache.stat(CONTEXT, REDIS, big)).size == len(BIG)
    assert upstream.asked["stat"] == 1


async def test_no_descriptor_or_partial_is_left(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, big: Digest
) -> None:
    await read_all(await cache.blob(CONTEXT, REDIS, big))
    before = len(os.listdir("/proc/self/fd"))
    for fault in (0, SMALL):
        await store.delete(big)
        Break(upstream, fault)
        await read_all(await cache.blob(CONTEXT, REDIS, big))
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert store.usage().reserved_bytes == 0


async def test_an_upstream_that_sends_crumbs_is_given_up(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.piece = 100

    async def after_a_crumb(position: int) -> None:
        if position % 100 == 0 and position == 100 * (upstream.asked["blob"]):
            raise Unavailable("the body was cut")

    upstream.before_read = after_a_crumb  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="cut"):
        await read_all(await cache.blob(CONTEXT, REDIS, big))
    assert upstream.blob_bytes < SMALL


async def test_what_nobody_reads_gives_way_and_goes_on_later(
    store: MemoryContent, upstream: FakeUpstream, big: Digest, little: Digest
) -> None:
    fills = Fills(store, Events(), limits=FillLimits(total=1))
    hold = Hold(upstream, at=SMALL)
    fill, _ = fills.join(CONTEXT, big, upstream, REDIS, 10)
    await hold.reached.wait()
    upstream.before_read = None
    other, outcome = fills.join(CONTEXT, little, upstream, REDIS, 10)
    reader = other.reader(outcome, REDIS)
    assert await read_all(reader) == LITTLE
    with pytest.raises(Unavailable):
        await fill.ended()
    content = await eventually(lambda: store.open(big))
    content.close()
    assert upstream.blob_bytes == len(BIG) + len(LITTLE), "it did not go on where it was"
    await fills.close()


async def test_fills_tell_when_they_wait_and_run_and_how_they_ended(
    store: MemoryContent, upstream: FakeUpstream, big: Digest, little: Digest
) -> None:
    told = Recorder()
    fills = Fills(store, told, limits=FillLimits(total=1))
    hold = Hold(upstream, at=SMALL)
    first, outcome = fills.join(CONTEXT, big, upstream, REDIS, 10)
    reader = first.reader(outcome, REDIS)
    await hold.reached.wait()
    second, outcome = fills.join(CONTEXT, little, upstream, REDIS, 10)
    other = second.reader(outcome, REDIS)
    await eventually(lambda: len(told.of(FillQueued)) == 2)
    assert [each.digest for each in told.of(FillStarted)] == [big]
    hold.go.set()
    await read_all(reader)
    await read_all(other)
    await eventually(lambda: len(told.of(FillEnded)) == 2)
    for fill, size in ((first, len(BIG)), (second, len(LITTLE))):
        about = (fill.number, REDIS, fill.digest)
        steps = (FillQueued, FillStarted, FillEnded)
        of_it = [each for each in told.seen if isinstance(each, steps) and each.fill == about[0]]
        queued, started, ended = of_it
        assert queued == FillQueued(*about)
        assert started == FillStarted(*about, started.waited)
        assert ended == FillEnded(*about, "committed", size)
    await fills.close()


def download_of(
    fill: Fill, partial: Partial, upstream: FakeUpstream, now: Callable[[], float]
) -> Download:
    """All of it, over one connection."""
    patience = DownloadPatience()
    sink = Sink(fill, partial, upstream, Patience(patience, Clock(monotonic=now)), Fill.spill)
    fill.is_whole = True
    return Download(fill, sink, upstream, DownloadPolicy(ALONE, RangeConnections()))


async def test_giving_way_again_and_again_does_not_begin_its_patience_anew(
    store: MemoryContent, upstream: FakeUpstream, big: Digest
) -> None:
    now = 1000.0
    partial = await store.partial(big, REDIS.registry)
    assert partial is not None
    fill = Fill(big, REDIS, 10)
    download = download_of(fill, partial, upstream, lambda: now)
    hold = Hold(upstream, at=SMALL)
    for turn in range(3):
        hold.reached.clear()
        fill.enter(FillState.WAITING)
        running = asyncio.create_task(download.run())
        await hold.reached.wait()
        running.cancel()
        await asyncio.wait([running])
        now += 55 if turn else 5
    now += 10
    fill.enter(FillState.WAITING)
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="nothing came of it for 125 s"):
            await download.run()
    await partial.discard()


async def test_what_would_have_to_begin_anew_keeps_its_place(
    store: MemoryContent, upstream: FakeUpstream, big: Digest
) -> None:
    """Of an upstream that sends no parts: two downloads, each longer than a turn, and one place."""
    other = BIG[::-1]
    upstream.blobs[Digest.of(other)] = other
    upstream.takes_ranges = False

    async def slowly(position: int) -> None:
        await asyncio.sleep(0.02)

    upstream.before_read = slowly  # type: ignore[assignment]
    fills = Fills(store, Events(), limits=FillLimits(total=1), quantum=0.01)
    both = [fills.join(CONTEXT, digest, upstream, REDIS, 10) for digest in (big, Digest.of(other))]
    readers = [fill.reader(outcome, REDIS) for fill, outcome in both]
    async with asyncio.timeout(20):
        assert await asyncio.gather(*map(read_all, readers)) == [BIG, other]
    assert upstream.asked["blob"] <= 4
    await fills.close()


async def test_crumbs_of_many_turns_are_progress(
    store: MemoryContent, upstream: FakeUpstream, big: Digest
) -> None:
    """Of an upstream that is slow, because many read of it: each turn brings a little."""
    now, turns = 1000.0, 0
    fill = Fill(big, REDIS, 10)
    partial = await store.partial(big, REDIS.registry)
    assert partial is not None
    download = download_of(fill, partial, upstream, lambda: now)
    upstream.piece = 1 << 15
    while partial.offset < SMALL:
        turns += 1
        hold = Hold(upstream, at=turns * upstream.piece)
        fill.enter(FillState.WAITING)
        running = asyncio.create_task(download.run())
        async with asyncio.timeout(10):
            await hold.reached.wait()
        running.cancel()
        await asyncio.wait([running])
        now += 10
    upstream.before_read = None
    fill.enter(FillState.WAITING)
    await download.run()
    assert download.is_complete
    await partial.discard()


async def test_who_reads_gives_way_and_notices_nothing(
    store: MemoryContent, upstream: FakeUpstream, big: Digest, little: Digest
) -> None:
    """Two downloads of one client, of which one has no end in sight, and one place."""
    fills = Fills(store, Events(), limits=FillLimits(total=1), quantum=0.05)
    hold = Hold(upstream, at=2 * SMALL)
    fill, outcome = fills.join(CONTEXT, big, upstream, REDIS, 10)
    reading = asyncio.create_task(read_all(fill.reader(outcome, REDIS)))
    await hold.reached.wait()
    upstream.before_read = None
    other, outcome = fills.join(CONTEXT, little, upstream, REDIS, 10)
    assert await read_all(other.reader(outcome, REDIS)) == LITTLE
    assert await reading == BIG
    assert upstream.blob_bytes == len(BIG) + len(LITTLE)
    await fills.close()
