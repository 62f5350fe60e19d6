"""Layers that come before they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mirror.clock import Clock
from mirror.contracts.context import RequestContext
from mirror.contracts.registry import Outcome
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.queue import FillLimits
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.prefetch import Prefetcher
from mirror.pullthrough.shared import Shared

from ..fakes import (
    CONTEXT,
    FakeTags,
    FakeUpstream,
    HandClock,
    MemoryContent,
    manifest_of,
    request_of,
)
from ..fakes.content import MemoryPartial
from ..waiting import eventually
from .test_fills import REDIS, Hold, read_all

CONFIG = b"{}"
LAYERS = [bytes([n]) * (40_000 * n) for n in (1, 2, 3, 4)]  # which only fills bring
MANIFEST = manifest_of(CONFIG, *LAYERS)


@pytest.fixture
async def fills(store: MemoryContent) -> AsyncIterator[Fills]:
    fills = Fills(store, Events(), limits=FillLimits(total=4, per_registry=4))
    yield fills
    await fills.close()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def cache(
    upstream: FakeUpstream, store: MemoryContent, fills: Fills, clock: HandClock
) -> AsyncIterator[PullThrough]:
    upstream.push("7", MANIFEST, CONFIG, *LAYERS)
    shared = Shared.over(store, FakeTags(), fills, clock=Clock(monotonic=clock))
    cache = PullThrough(upstream, shared, prefetcher=Prefetcher(upstream, shared))
    yield cache
    await cache.close()


async def take(cache: PullThrough, data: bytes, context: RequestContext = CONTEXT) -> None:
    assert await read_all(await cache.blob(context, REDIS, Digest.of(data))) == data


async def test_a_stranger_who_takes_the_manifest_changes_nothing(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    stranger = Repository("docker.io", "stranger/x")
    upstream.lacking.add(stranger)
    for repository in (stranger, REDIS, stranger):
        await cache.manifest(CONTEXT, repository, Digest.of(MANIFEST))
    await take(cache, LAYERS[0])
    await eventually(lambda: store.usage().entries == 1 + len(LAYERS))
    assert upstream.asked["blob"] == len(LAYERS)


async def test_the_first_layer_that_is_asked_for_brings_the_others(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))
    await take(cache, LAYERS[0])
    await eventually(lambda: store.usage().entries == 1 + len(LAYERS))
    asked = upstream.asked["blob"]
    for layer in LAYERS:
        await take(cache, layer)
    assert upstream.asked["blob"] == asked == len(LAYERS)


async def test_the_first_who_reads_what_was_fetched_ahead_is_no_hit_and_the_next_is(
    cache: PullThrough, store: MemoryContent
) -> None:
    await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))
    await take(cache, LAYERS[0])
    await eventually(lambda: store.usage().entries == 1 + len(LAYERS))
    for expected in (Outcome.PREFETCHED, Outcome.HIT):
        for layer in LAYERS[1:]:
            content = await cache.blob(CONTEXT, REDIS, Digest.of(layer))
            content.close()
            assert content.outcome is expected
    asked_for = await cache.blob(CONTEXT, REDIS, Digest.of(LAYERS[0]))
    asked_for.close()
    assert asked_for.outcome is Outcome.HIT


async def test_who_waits_for_what_is_being_fetched_ahead_joins_and_the_next_is_a_hit(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))
    hold = Hold(upstream, at=1)
    first = asyncio.create_task(take(cache, LAYERS[0]))
    ahead = Digest.of(LAYERS[1])
    await eventually(lambda: cache._fills.running("docker.io", ahead))
    second = asyncio.create_task(cache.blob(CONTEXT, REDIS, ahead))
    await eventually(lambda: cache._fills.running("docker.io", ahead).is_read)
    hold.go.set()
    joined = await second
    assert joined.outcome is Outcome.JOINED
    await read_all(joined)
    await first
    await eventually(lambda: store.is_here(ahead))
    later = await cache.blob(CONTEXT, REDIS, ahead)
    later.close()
    assert later.outcome is Outcome.HIT


async def test_a_manifest_and_its_config_alone_bring_nothing(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))
    await take(cache, CONFIG)
    await cache.close()
    assert upstream.asked["blob"] == 1


async def test_a_scarce_upstream_is_spared(cache: PullThrough, upstream: FakeUpstream) -> None:
    upstream.is_scarce = lambda: True
    await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))
    await take(cache, LAYERS[0])
    await cache.close()
    assert upstream.asked["blob"] == 1


async def test_clients_come_first(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    others = [bytes([n]) * 500 for n in (11, 12, 13)]
    for other in others:
        upstream.blobs[Digest.of(other)] = other
    hold = Hold(upstream, at=0)
    await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))
    first = asyncio.create_task(take(cache, LAYERS[0]))
    await eventually(lambda: len(upstream.open_blobs) > 1)  # what it did not ask for comes, too
    clients = [asyncio.create_task(take(cache, data)) for data in others]
    # With the first one, as many as may run at a time.
    asked = {Digest.of(data) for data in (LAYERS[0], *others)}
    await eventually(lambda: set(upstream.open_blobs) == asked)
    hold.go.set()
    for client in (first, *clients):
        await client
    await eventually(lambda: store.usage().entries == 1 + len(LAYERS) + len(others))


async def test_who_comes_while_a_prefetch_is_being_given_up_does_not_share_its_end(
    cache: PullThrough,
    upstream: FakeUpstream,
    fills: Fills,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for nothing; a client has all its patience before it."""
    given_up, go_on = asyncio.Event(), asyncio.Event()
    suspend = MemoryPartial.suspend

    async def slow(partial: MemoryPartial) -> None:
        given_up.set()
        await go_on.wait()
        await suspend(partial)

    monkeypatch.setattr(MemoryPartial, "suspend", slow)
    await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))
    upstream.down = Unavailable("cut short")
    fill, _ = fills.join(CONTEXT, Digest.of(LAYERS[0]), upstream, REDIS, 0.0)
    await eventually(given_up.is_set)
    client = asyncio.create_task(take(cache, LAYERS[0]))
    await eventually(lambda: fill.first_byte > 0)  # it has joined
    upstream.down = None
    go_on.set()
    await client


async def push(upstream: FakeUpstream, cache: PullThrough, count: int, size: int) -> list[bytes]:
    """An image of layers of this size, whose manifest a client has taken."""
    layers = [bytes([n]) * size for n in range(count)]
    digest = upstream.push("large", manifest_of(CONFIG, *layers), CONFIG, *layers)
    await cache.manifest(CONTEXT, REDIS, digest)
    return layers


async def at_rest(cache: PullThrough) -> None:
    """Returns when nothing is fetched ahead any more."""
    prefetcher = cache._prefetcher
    assert prefetcher is not None
    await eventually(lambda: not prefetcher._tasks)


async def test_it_ends_when_nobody_reads_of_that_image_any_more(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, clock: HandClock, fills: Fills
) -> None:
    layers = await push(upstream, cache, 20, 40_000)
    hold = Hold(upstream, at=0)
    client = asyncio.create_task(take(cache, layers[0]))
    own = Digest.of(layers[0])
    await eventually(lambda: own in upstream.open_blobs and upstream.open_streams >= 3)
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    clock.now += 10
    await at_rest(cache)
    hold.go.set()
    await eventually(lambda: not any(fills.running("docker.io", Digest.of(one)) for one in layers))
    assert store.usage().entries == 2  # the manifest, and what the client asked for


async def test_it_goes_on_while_somebody_reads(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, clock: HandClock
) -> None:
    upstream.piece = 30_000
    long, *others = layers = [bytes(60_000), *(bytes([n]) * 1000 for n in range(20))]
    hold = Hold(upstream, at=30_000)  # which only the first has
    await cache.manifest(CONTEXT, REDIS, upstream.push("7", manifest_of(CONFIG, *layers), *layers))
    client = asyncio.create_task(take(cache, long))

    def came() -> bool:
        clock.now += 10
        return store.usage().entries == 1 + len(others)

    await eventually(came)
    hold.go.set()
    await client


@pytest.fixture
def small() -> MemoryContent:
    return MemoryContent(100_000)


@pytest.fixture
async def cramped(
    upstream: FakeUpstream, small: MemoryContent, clock: HandClock
) -> AsyncIterator[PullThrough]:
    """A cache of 100,000 bytes."""
    fills = Fills(small, Events())
    shared = Shared.over(small, FakeTags(), fills, clock=Clock(monotonic=clock))
    cache = PullThrough(upstream, shared, prefetcher=Prefetcher(upstream, shared))
    yield cache
    await cache.close()
    await fills.close()


async def test_one_client_causes_a_share_of_the_cache_to_be_fetched(
    cramped: PullThrough, upstream: FakeUpstream, small: MemoryContent, clock: HandClock
) -> None:
    layers = await push(upstream, cramped, 60, 1000)
    await take(cramped, layers[0])
    await at_rest(cramped)
    assert upstream.asked["blob"] == 1 + 25
    await take(cramped, layers[59], request_of("another"))
    await at_rest(cramped)
    assert upstream.asked["blob"] <= 2 + 25 + 25


async def test_nothing_is_evicted_for_it(
    cramped: PullThrough, upstream: FakeUpstream, small: MemoryContent
) -> None:
    own = [bytes([n]) * 9000 for n in range(100, 108)]
    upstream.blobs |= {Digest.of(data): data for data in own}
    for data in own:
        await take(cramped, data)
    layers = await push(upstream, cramped, 60, 1000)
    await take(cramped, layers[0])
    await at_rest(cramped)
    asked = upstream.asked["blob"]
    for data in own:
        await take(cramped, data)
    assert upstream.asked["blob"] == asked


async def test_what_is_larger_than_was_said_is_broken_off(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    large = bytes(3 << 20)
    lie = manifest_of(CONFIG, b"first", b"x")
    lie = lie.replace(str(Digest.of(b"x")).encode(), str(Digest.of(large)).encode())
    upstream.push("7", lie, CONFIG, b"first", large)

    async def stops(position: int) -> None:
        if position >= 1 << 20:
            await asyncio.Event().wait()

    upstream.before_read = stops  # type: ignore[assignment]
    await cache.manifest(CONTEXT, REDIS, Digest.of(lie))
    await take(cache, b"first")
    await eventually(lambda: upstream.asked["blob"] > 1)
    await eventually(lambda: upstream.open_streams == 0)
    await at_rest(cache)  # nor is it fetched a second at a time
    assert upstream.asked["blob"] == 2


async def gives_way(fills: Fills, digest: Digest) -> None:
    """Returns when its fill, which may have to begin first, has lost its place."""
    fill = await eventually(lambda: fills.running("docker.io", digest))

    def has_given() -> bool:
        fills.put_off(fill)
        return fills.running("docker.io", digest) is not fill

    await eventually(has_given)


async def test_what_gives_way_and_goes_on_is_counted_once(
    upstream: FakeUpstream, small: MemoryContent, clock: HandClock
) -> None:
    """Of 25,000 bytes that a client may cause to be fetched."""
    fills = Fills(small, Events())
    shared = Shared.over(small, FakeTags(), fills, clock=Clock(monotonic=clock))
    cache = PullThrough(upstream, shared, prefetcher=Prefetcher(upstream, shared))
    layers = [bytes(100), *(bytes([n]) * 9000 for n in (1, 2))]
    manifest = upstream.push("7", manifest_of(CONFIG, *layers), *layers)
    await cache.manifest(CONTEXT, REDIS, manifest)
    ahead = Digest.of(layers[1])
    upstream.gate.clear()
    client = asyncio.create_task(take(cache, layers[0]))
    for _ in range(4):
        await gives_way(fills, ahead)
    upstream.gate.set()
    await client
    await at_rest(cache)
    assert small.usage().entries == 1 + len(layers)
    await cache.close()
    await fills.close()
