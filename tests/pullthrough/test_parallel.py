"""Downloads over several connections, from an upstream that is slow on each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, Unavailable, Untrustworthy
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.fill import SMALL
from mirror.pullthrough.fills.parallel import ParallelPolicy
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ..fakes import CONTEXT, FakeStream, FakeTags, FakeUpstream
from ..waiting import eventually
from .test_fills import REDIS, read_all

PART = SMALL // 2
DATA = random.Random(3).randbytes(24 * PART)
DIGEST = Digest.of(DATA)


class SlowUpstream(FakeUpstream):
    """Each connection gives a piece per turn of the loop's clock; ranges end where they say."""

    def __init__(self) -> None:
        super().__init__()
        self.piece = 1 << 15
        self.blobs[DIGEST] = DATA
        self.tick = 0.002
        self.most = 0  # connections at once
        self.parts: list[tuple[int, int]] = []
        self.refuse_from: int | None = None  # the ask, by number, from which parts are refused
        self.before_read = self._slowly  # type: ignore[assignment]

    async def _slowly(self, position: int) -> None:
        self.most = max(self.most, self.open_streams)
        await asyncio.sleep(self.tick)

    async def blob(self, asker, repository, digest, range=None, vouched=False) -> FakeStream:  # type: ignore[no-untyped-def,override]
        if self.refuse_from is not None and self.asked["blob"] >= self.refuse_from:
            self.asked["blob"] += 1
            raise Denied("too many connections")
        stream = await super().blob(asker, repository, digest, range)
        if range is not None and range.stop is not None:
            self.parts.append((range.start, range.stop))
            if self.takes_ranges:
                stream._data = stream._data[: range.stop]
        return stream


@pytest.fixture
def upstream() -> SlowUpstream:
    return SlowUpstream()


@pytest.fixture
def parting() -> ParallelPolicy:
    """More connections are always found to be worth it: how long anything takes decides nothing."""
    return ParallelPolicy(over=4 * PART, part=PART, measure=0.05, gain=0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    """On a disk: parts are files with holes."""
    store = DiskContent(tmp_path / "store", Bounds(1 << 30), sync=False, events=Events())
    yield store
    await store.close()


@pytest.fixture
async def fills(store: DiskContent, parting: ParallelPolicy) -> AsyncIterator[Fills]:
    quick = DownloadPatience(first_byte=1, stalled=1, pause=0.01, longest_pause=0.02)
    fills = Fills(store, Events(), patience=quick, parting=parting)
    yield fills
    await fills.close()


async def test_a_slow_blob_comes_over_several_connections(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert 4 <= upstream.most <= 8
    assert upstream.blob_bytes <= len(DATA) + PART
    assert upstream.open_streams == 0


async def test_readers_get_it_in_order_as_it_grows(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    content = await cache.blob(CONTEXT, REDIS, DIGEST)
    limits = [0]
    while (limit := await content.readable(limits[-1])) > limits[-1]:
        assert content.pread(limit - limits[-1], limits[-1]) == DATA[limits[-1] : limit]
        limits.append(limit)
    content.close()
    assert limits[-1] == len(DATA)
    assert len(limits) > 10


async def test_an_upstream_that_objects_keeps_the_connection_it_allows(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    upstream.refuse_from = 1
    content = await cache.blob(CONTEXT, REDIS, DIGEST)

    async def relent() -> None:
        while upstream.asked["blob"] < 2:
            await asyncio.sleep(0)
        upstream.refuse_from = None

    relenting = asyncio.create_task(relent())
    assert await read_all(content) == DATA
    await relenting


async def test_f07_an_upstream_that_ignores_ranges_is_read_in_one_piece(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    upstream.takes_ranges = False
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA


async def test_f02_connections_that_break_cost_only_what_they_had_not_brought(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    breaks = random.Random(5)

    async def now_and_then(position: int) -> None:
        await asyncio.sleep(0.002)
        if breaks.random() < 0.03:
            raise Unavailable("the body was cut")

    upstream.before_read = now_and_then  # type: ignore[assignment]
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert upstream.blob_bytes <= len(DATA) + 2 * PART


async def test_f02_when_the_connection_that_was_first_breaks_the_others_go_on(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    broken: list[int] = []

    async def once(position: int) -> None:
        await upstream._slowly(position)
        if upstream.most >= 4 and 0 < position < PART and not broken:
            broken.append(position)
            raise Unavailable("the body was cut")

    upstream.piece = 1 << 12  # so that the first part is still coming when there are more
    upstream.before_read = once  # type: ignore[assignment]
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert broken
    # Nothing began anew: what is missing is asked for as a part, from the very byte.
    assert [range for range in upstream.ranges if range is None or range.stop is None] == [None]
    assert broken[0] in [start for start, _ in upstream.parts]
    assert upstream.blob_bytes <= len(DATA) + PART


async def test_f02_connections_that_break_after_a_crumb_have_an_end(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    """However many crumbs there would be."""
    upstream.tick = 0.05
    broken = False
    ask = upstream.blob

    async def blob(*arguments: object, **more: object) -> FakeStream:
        stream = await ask(*arguments, **more)
        read, reads = stream.read, iter((100,))

        async def crumb() -> bytes:
            if not broken:
                return await read()
            if next(reads, None) is None:
                raise Unavailable("the body was cut")
            return (await read())[:100]

        stream.read = crumb  # type: ignore[method-assign]
        return stream

    upstream.blob = blob  # type: ignore[method-assign]
    content = await cache.blob(CONTEXT, REDIS, DIGEST)
    while upstream.most < 2:
        await asyncio.sleep(0.01)
    broken = True
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable, match="cut"):
            await read_all(content)


async def test_what_a_slow_connection_has_still_to_bring_is_shared_at_the_end(
    cache: PullThrough, upstream: SlowUpstream
) -> None:
    held: list[int] = []
    almost = len(DATA) - PART  # without the held part, as far as it goes alone

    async def hold_one(position: int) -> None:
        await upstream._slowly(position)
        if position % PART == upstream.piece and upstream.most >= 2 and not held:
            held.append(position)
            while upstream.blob_bytes <= almost + upstream.piece:
                await asyncio.sleep(0.001)

    upstream.before_read = hold_one  # type: ignore[assignment]
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert held


async def test_what_nobody_has_asked_for_yet_comes_over_one_connection(
    cache: PullThrough, upstream: SlowUpstream, fills: Fills
) -> None:
    upstream.tick = 0.01
    fill, _ = fills.join(CONTEXT, DIGEST, upstream, REDIS, 0.0)
    while fill.written < 2 * PART:
        await asyncio.sleep(0.01)
    assert upstream.asked["blob"] == 1
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert upstream.most >= 2


async def test_f01_wrong_bytes_in_a_part_are_found(
    cache: PullThrough, upstream: SlowUpstream, store: DiskContent
) -> None:
    upstream.corrupt = True
    content = await cache.blob(CONTEXT, REDIS, DIGEST)
    with pytest.raises(Untrustworthy):
        await read_all(content)
    assert upstream.rejected
    assert await store.open(DIGEST) is None


async def test_parts_that_are_there_are_not_fetched_again_after_a_stop(
    cache: PullThrough, upstream: SlowUpstream, store: DiskContent, fills: Fills
) -> None:
    content = await cache.blob(CONTEXT, REDIS, DIGEST)
    while upstream.most < 4 or upstream.blob_bytes < 6 * PART:
        await asyncio.sleep(0.01)
    await fills.close()
    content.close()
    partial = await store.partial(DIGEST, REDIS.registry)
    assert partial is not None
    assert partial.ahead
    await partial.suspend()
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert upstream.blob_bytes <= len(DATA) + 4 * PART
    await eventually(lambda: not fills.under_way)
    assert [path for path in (store.root / "partials").rglob("*") if path.is_file()] == []
    assert store.usage().reserved_bytes == 0


async def test_another_process_follows_what_has_no_hole(
    upstream: SlowUpstream, store: DiskContent, cache: PullThrough
) -> None:
    other_store = DiskContent(store.root, store.space.bounds, sync=False, events=Events())
    other_fills = Fills(other_store, Events())
    other = PullThrough(upstream, Shared.over(other_store, FakeTags(), other_fills))
    first = asyncio.create_task(read_all(await cache.blob(CONTEXT, REDIS, DIGEST)))
    while upstream.most < 2:
        await asyncio.sleep(0.01)
    assert await read_all(await other.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert await first == DATA
    assert upstream.blob_bytes <= len(DATA) + PART
    await other_fills.close()
    await other.close()
    await other_store.close()
