"""Ranges of a blob that is being filled: what is there, what comes soon, what is far ahead."""

from __future__ import annotations

import asyncio
import os

import pytest

from mirror.contracts.registry import FileContent
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills import range_stream as detour
from mirror.pullthrough.fills.fill import SMALL

from ..fakes import CONTEXT, FakeUpstream, request_of
from ..waiting import eventually
from .test_fills import BIG, REDIS, Hold, read_all

FAR = 2 * SMALL + 12345


@pytest.fixture
def big(upstream: FakeUpstream) -> Digest:
    digest = Digest.of(BIG)
    upstream.blobs[digest] = BIG
    return digest


class HoldBelow(Hold):
    """Holds the stream that begins at zero, and lets others pass."""

    async def __call__(self, position: int) -> None:
        if self.at <= position < FAR:
            await super().__call__(position)


async def read_from(content: FileContent, start: int) -> bytes:
    data = bytearray()
    try:
        while (limit := await content.readable(start + len(data))) > start + len(data):
            data += os.pread(content.fileno(), limit - start - len(data), start + len(data))
    finally:
        content.close()
    return data


async def test_f56_a_range_that_is_there_is_read_at_once(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=2 * SMALL)
    (await cache.blob(CONTEXT, REDIS, big)).close()
    await hold.reached.wait()
    content = await cache.blob(CONTEXT, REDIS, big, 1000)
    assert os.pread(content.fileno(), 10, 1000) == BIG[1000:1010]
    hold.go.set()
    assert await read_from(content, 1000) == BIG[1000:]
    assert upstream.asked["blob"] == 1


async def test_f56_a_range_that_comes_soon_is_waited_for(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    assert await read_from(await cache.blob(CONTEXT, REDIS, big, FAR), FAR) == BIG[FAR:]
    assert upstream.asked["blob"] == 1


async def test_f56_a_range_far_ahead_does_not_wait(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    part = await cache.blob(CONTEXT, REDIS, big, FAR)
    assert part.descriptor.size == len(BIG)
    assert await read_from(part, FAR) == BIG[FAR:]
    hold.go.set()
    assert await read_all(whole) == BIG
    await eventually(lambda: upstream.open_streams == 0)


async def test_f56_a_range_far_ahead_that_is_cut_goes_on(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    cuts = [FAR, FAR + 100_000]

    async def cut(position: int) -> None:
        if cuts and position >= cuts[0]:
            cuts.pop(0)
            raise Unavailable("the body was cut")
        await hold(position)

    upstream.before_read = cut  # type: ignore[assignment]
    assert await read_from(await cache.blob(CONTEXT, REDIS, big, FAR), FAR) == BIG[FAR:]
    hold.go.set()
    assert await read_all(whole) == BIG


async def test_f02_a_range_that_comes_in_crumbs_alone_has_an_end(
    cache: PullThrough, upstream: FakeUpstream, big: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detour, "_PATIENCE", 0.2)
    monkeypatch.setattr(detour, "_PAUSE", 0.01)
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    upstream.piece = 100
    came = 0

    async def after_a_crumb(position: int) -> None:
        nonlocal came
        if position < FAR:
            await hold(position)
        came += 1
        if came % 2 == 0:
            raise Unavailable("the body was cut")

    upstream.before_read = after_a_crumb  # type: ignore[assignment]
    part = await cache.blob(CONTEXT, REDIS, big, FAR)
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="cut"):
            await read_from(part, FAR)
    assert came < 200
    whole.close()
    hold.go.set()


async def test_a_range_alone_that_is_never_answered_again_has_an_end(
    cache: PullThrough, upstream: FakeUpstream, big: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detour, "_PATIENCE", 0.2)
    monkeypatch.setattr(detour, "_PAUSE", 0.01)
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    content = await cache.blob(CONTEXT, REDIS, big, FAR)

    async def breaks(position: int) -> None:
        if position > FAR:
            upstream.gate.clear()  # from now on nothing is answered
            raise Unavailable("the body was cut")

    upstream.before_read = breaks  # type: ignore[assignment]
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await read_from(content, FAR)
    upstream.gate.set()
    hold.go.set()
    whole.close()


async def test_f56_who_leaves_a_range_midway_leaves_nothing_open(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    part = await cache.blob(CONTEXT, REDIS, big, FAR)
    await part.readable(FAR)
    part.close()
    await eventually(lambda: upstream.open_streams == 1)
    hold.go.set()
    assert await read_all(whole) == BIG


async def test_nothing_unproven_is_given_of_a_range_from_who_is_not_the_registry(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    upstream.vouched = False
    part = await cache.blob(CONTEXT, REDIS, big, FAR)
    hold.go.set()
    assert await read_from(part, FAR) == BIG[FAR:]
    assert upstream.blob_bytes == len(BIG)  # all from the fill
    whole.close()


async def test_f07_an_upstream_without_ranges_makes_the_far_one_wait(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    upstream.takes_ranges = False
    hold = Hold(upstream, at=SMALL)
    asking = asyncio.create_task(cache.blob(CONTEXT, REDIS, big, FAR))
    await eventually(lambda: upstream.asked["blob"] == 2)
    hold.go.set()
    assert await read_from(await asking, FAR) == BIG[FAR:]


async def test_a_slow_reader_of_a_range_holds_no_stream(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    part = await cache.blob(CONTEXT, REDIS, big, FAR)
    begun = await part.readable(FAR)
    assert os.pread(part.fileno(), begun - FAR, FAR) == BIG[FAR:begun]
    await eventually(lambda: upstream.open_streams == 1)  # the fill's
    assert await read_from(part, begun) == BIG[begun:]
    hold.go.set()
    assert await read_all(whole) == BIG
    await eventually(lambda: upstream.open_streams == 0)


async def test_a_slow_reader_is_sent_no_more_than_it_will_read(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    part = await cache.blob(CONTEXT, REDIS, big, FAR)
    begun = await part.readable(FAR)
    await eventually(lambda: upstream.open_streams == 1)
    following = await part.readable(begun)
    asked = upstream.ranges[-1]
    assert asked is not None
    assert asked.start == begun
    assert asked.stop is not None
    assert following <= asked.stop
    part.close()
    hold.go.set()
    whole.close()


async def test_one_client_s_ranges_are_bounded_and_no_other_s(
    cache: PullThrough, upstream: FakeUpstream, big: Digest
) -> None:
    hold = HoldBelow(upstream, at=SMALL)
    whole = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    parts = [await cache.blob(request_of("a"), REDIS, big, FAR) for _ in range(32)]
    late = await cache.blob(request_of("a"), REDIS, big, FAR)  # reads of the fill
    assert upstream.open_streams == 1 + 32
    assert await read_from(await cache.blob(request_of("b"), REDIS, big, FAR), FAR) == BIG[FAR:]
    assert await read_from(parts.pop(), FAR) == BIG[FAR:]
    hold.go.set()
    assert await read_from(late, FAR) == BIG[FAR:]
    assert await read_all(whole) == BIG
    for part in parts:
        part.close()
    await eventually(lambda: upstream.open_streams == 0)
