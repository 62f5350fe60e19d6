"""Layers that come before they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mirror.cache.fills import Fills
from mirror.cache.freshness import Freshness
from mirror.cache.gate import FillLimits
from mirror.cache.prefetch import Prefetcher
from mirror.cache.pull_through import PullThrough
from mirror.interfaces import Clock, NoMeter
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.reference import Repository
from mirror.storage.disk import DiskContent
from mirror.storage.partial import DiskPartial

from ..waiting import eventually
from .fakes import FakeTags, FakeUpstream, manifest_of
from .test_fills import REDIS, Hold, read_all

CONFIG = b"{}"
LAYERS = [bytes([n]) * (1000 * n) for n in (1, 2, 3, 4)]
MANIFEST = manifest_of(CONFIG, *LAYERS)


class Scarcity:
    def __init__(self) -> None:
        self.now = False

    def __call__(self) -> bool:
        return self.now


@pytest.fixture
def scarce() -> Scarcity:
    return Scarcity()


@pytest.fixture
async def fills(store: DiskContent) -> AsyncIterator[Fills]:
    fills = Fills(store, NoMeter(), limits=FillLimits(total=4, per_registry=4))
    yield fills
    await fills.close()


@pytest.fixture
async def cache(
    upstream: FakeUpstream, store: DiskContent, fills: Fills, scarce: Scarcity
) -> AsyncIterator[PullThrough]:
    upstream.push("7", MANIFEST, CONFIG, *LAYERS)
    prefetcher = Prefetcher(upstream, store, fills, Clock(), scarce)
    cache = PullThrough(upstream, store, FakeTags(), fills, Freshness(), prefetcher=prefetcher)
    yield cache
    await cache.close()


async def take(cache: PullThrough, data: bytes) -> None:
    assert await read_all(await cache.blob(REDIS, Digest.of(data))) == data


async def test_a_stranger_who_takes_the_manifest_changes_nothing(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent
) -> None:
    stranger = Repository("docker.io", "stranger/x")
    upstream.lacking.add(stranger)
    for repository in (stranger, REDIS, stranger):
        await cache.manifest(repository, Digest.of(MANIFEST))
    await take(cache, LAYERS[0])
    await eventually(lambda: store.usage().entries == 1 + len(LAYERS))
    assert upstream.asked["blob"] == len(LAYERS)


async def test_the_first_layer_that_is_asked_for_brings_the_others(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent
) -> None:
    await cache.manifest(REDIS, Digest.of(MANIFEST))
    await take(cache, LAYERS[0])
    await eventually(lambda: store.usage().entries == 1 + len(LAYERS))
    asked = upstream.asked["blob"]
    for layer in LAYERS:
        await take(cache, layer)
    assert upstream.asked["blob"] == asked == len(LAYERS)


async def test_a_manifest_and_its_config_alone_bring_nothing(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent
) -> None:
    await cache.manifest(REDIS, Digest.of(MANIFEST))
    await take(cache, CONFIG)
    await cache.close()
    assert upstream.asked["blob"] == 1


async def test_a_scarce_upstream_is_spared(
    cache: PullThrough, upstream: FakeUpstream, scarce: Scarcity
) -> None:
    scarce.now = True
    await cache.manifest(REDIS, Digest.of(MANIFEST))
    await take(cache, LAYERS[0])
    await cache.close()
    assert upstream.asked["blob"] == 1


async def test_clients_come_first(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent
) -> None:
    others = [bytes([n]) * 500 for n in (11, 12, 13)]
    for other in others:
        upstream.blobs[Digest.of(other)] = other
    hold = Hold(upstream, at=0)
    await cache.manifest(REDIS, Digest.of(MANIFEST))
    # As many as may run at a time.
    clients = [asyncio.create_task(take(cache, data)) for data in (*others, LAYERS[0])]
    await eventually(lambda: upstream.asked["blob"] == 4)
    assert upstream.open_streams == 4
    hold.go.set()
    for client in clients:
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
    suspend = DiskPartial.suspend

    async def slow(partial: DiskPartial) -> None:
        given_up.set()
        await go_on.wait()
        await suspend(partial)

    monkeypatch.setattr(DiskPartial, "suspend", slow)
    await cache.manifest(REDIS, Digest.of(MANIFEST))
    upstream.down = Unavailable("cut short")
    fill, _ = fills.join(Digest.of(LAYERS[0]), upstream, REDIS, 0.0)
    await given_up.wait()
    client = asyncio.create_task(take(cache, LAYERS[0]))
    await eventually(lambda: fill.first_byte > 0)  # it has joined
    upstream.down = None
    go_on.set()
    await client
