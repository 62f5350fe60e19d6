"""Small blobs, brought whole: what their clients see, and what is left to fills."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.asking.single_flight import Sharing
from mirror.contracts.content import StoreFull
from mirror.contracts.context import AHEAD
from mirror.contracts.events import ContentCommitted, FillEnded
from mirror.contracts.registry import Outcome, Provenance
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, Unavailable
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.prefetch import Prefetcher
from mirror.pullthrough.shared import Shared
from mirror.storage.claims import Claims

from ..fakes import CONTEXT, FakeTags, FakeUpstream, MemoryContent, Recorder, manifest_of
from ..waiting import eventually
from .test_fills import REDIS, read_all

CONFIG, LAYER = b"a config", b"a layer" * 1000
OTHER = Repository("docker.io", "library/other")


async def served(cache: PullThrough, upstream: FakeUpstream, *blobs: bytes) -> list[Digest]:
    """An image of these blobs, whose manifest clients have; the digests of its blobs."""
    digest = upstream.push("7", manifest_of(*blobs), *blobs)
    for repository in (REDIS, OTHER):
        await cache.manifest(CONTEXT, repository, digest)
    return [Digest.of(blob) for blob in blobs]


async def test_many_clients_share_one_download_and_all_of_it_is_kept(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent, told: Recorder
) -> None:
    _, layer = await served(cache, upstream, CONFIG, LAYER)
    contents = await asyncio.gather(*(cache.blob(CONTEXT, REDIS, layer) for _ in range(20)))
    assert upstream.asked["blob"] == 1
    assert {one.outcome for one in contents} == {Outcome.FILLED, Outcome.JOINED}
    assert {one.provenance for one in contents} == {Provenance.VOUCHED}
    assert all([await read_all(one) == LAYER for one in contents])
    assert await store.read(layer, 1 << 20) == LAYER
    assert (await cache.blob(CONTEXT, REDIS, layer)).outcome is Outcome.HIT
    assert [one.digest for one in told.of(ContentCommitted)][-1:] == [layer]
    assert [(one.result, one.size) for one in told.of(FillEnded)] == [("committed", len(LAYER))]
    assert contents[0].pread(3, 4) == LAYER[4:7]


async def test_f01_wrong_bytes_are_given_to_nobody_and_asked_for_again(
    cache: PullThrough, upstream: FakeUpstream, told: Recorder
) -> None:
    _, layer = await served(cache, upstream, CONFIG, LAYER)
    upstream.corrupt = True
    assert await read_all(await cache.blob(CONTEXT, REDIS, layer)) == LAYER
    assert len(upstream.rejected) == 1
    assert [one.result for one in told.of(FillEnded)] == ["rejected", "committed"]


async def test_what_is_larger_than_its_manifest_says_comes_as_anything_large(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    large = bytes(100_000)
    lie = manifest_of(CONFIG, b"x").replace(
        str(Digest.of(b"x")).encode(), str(Digest.of(large)).encode()
    )
    await cache.manifest(CONTEXT, REDIS, upstream.push("7", lie, CONFIG, large))
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(large))) == large
    assert upstream.open_streams == 0


async def test_trouble_is_waited_out_as_with_any_blob(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    _, layer = await served(cache, upstream, CONFIG, LAYER)
    upstream.down = Unavailable("away for a moment")
    client = asyncio.create_task(cache.blob(CONTEXT, REDIS, layer))
    await eventually(lambda: upstream.asked["blob"] > 2)
    upstream.down = None
    assert await read_all(await client) == LAYER


async def test_what_the_repository_lacks_is_missing_there_alone(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    _, layer = await served(cache, upstream, CONFIG, LAYER)
    upstream.lacking.add(OTHER)
    asks = [cache.blob(CONTEXT, each, layer) for each in (OTHER, REDIS)]
    lacking, shown = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(lacking, BlobUnknown)
    assert not isinstance(shown, BaseException)
    assert await read_all(shown) == LAYER


async def test_f31_a_disk_without_room_is_no_reason_to_fail(
    cache: PullThrough,
    upstream: FakeUpstream,
    store: MemoryContent,
    told: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, layer = await served(cache, upstream, CONFIG, LAYER)

    async def full(_: Digest, data: bytes, *__: Sequence[Digest] | str) -> bool:
        raise StoreFull(f"{len(data)} bytes")

    monkeypatch.setattr(store, "put", full)
    assert await read_all(await cache.blob(CONTEXT, REDIS, layer)) == LAYER
    assert [one.result for one in told.of(FillEnded)] == ["uncached"]


async def test_what_a_client_asks_for_is_not_fetched_ahead_of_it(
    upstream: FakeUpstream, store: MemoryContent
) -> None:
    fills = Fills(store, Events())
    shared = Shared.over(store, FakeTags(), fills)
    cache = PullThrough(upstream, shared, prefetcher=Prefetcher(upstream, shared))
    layers = [bytes([n]) * 1000 for n in range(3)]
    _, *digests = await served(cache, upstream, CONFIG, *layers)
    upstream.gate.clear()
    clients = [asyncio.create_task(cache.blob(CONTEXT, REDIS, one)) for one in digests[:2]]
    await eventually(lambda: upstream.asked["blob"] == 3)  # the third is fetched ahead
    upstream.gate.set()
    await asyncio.gather(*clients)
    await eventually(lambda: store.is_here(digests[2]))
    assert upstream.asked["blob"] == 3
    await cache.close()
    await fills.close()


async def test_f37_two_processes_download_once(upstream: FakeUpstream, tmp_path: Path) -> None:
    """One knows how small it is, the other has served no manifest."""
    store = MemoryContent()
    processes = []
    for _ in range(2):
        claims = Claims(tmp_path / "claims")
        fills = Fills(store, Events(), claims=claims)
        shared = Shared.over(store, FakeTags(), fills)
        processes.append((PullThrough(upstream, shared), fills, claims))
    (first, *_), (second, *_) = processes
    _, layer = await served(first, upstream, CONFIG, LAYER)
    upstream.gate.clear()
    one = asyncio.create_task(first.blob(CONTEXT, REDIS, layer))
    await eventually(lambda: upstream.asked["blob"] == 1)
    other = asyncio.create_task(second.blob(CONTEXT, REDIS, layer))
    await asyncio.sleep(0)
    upstream.gate.set()
    assert [await read_all(content) for content in await asyncio.gather(one, other)] == [LAYER] * 2
    assert upstream.asked["blob"] == 1
    for cache, fills, claims in processes:
        await cache.close()
        await fills.close()
        claims.close()


async def test_f37_what_is_fetched_ahead_is_not_what_another_process_just_brings(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    store, both = MemoryContent(), [Claims(tmp_path / "claims") for _ in range(2)]
    fills, other = (Fills(store, Events(), claims=claims) for claims in both)
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), fills))
    _, layer = await served(cache, upstream, CONFIG, LAYER)
    upstream.gate.clear()
    client = asyncio.create_task(cache.blob(CONTEXT, REDIS, layer))
    await eventually(lambda: upstream.asked["blob"] == 1)
    fill, _ = other.join(AHEAD, layer, upstream, REDIS, 0.0)
    for _ in range(20):
        await asyncio.sleep(0)
    upstream.gate.set()
    assert await read_all(await client) == LAYER
    await fill.ended()
    assert upstream.asked["blob"] == 1
    await cache.close()
    await fills.close()
    await other.close()
    for claims in both:
        claims.close()


async def test_what_several_clients_wait_for_is_not_begun_anew_by_who_asks_beside(
    upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, claims = MemoryContent(), Claims(tmp_path / "claims")
    fills = Fills(store, Events(), claims=claims)
    shared = Shared.over(store, FakeTags(), fills)
    cache = PullThrough(upstream, shared)
    _, layer = await served(cache, upstream, CONFIG, LAYER)
    monkeypatch.setattr(cache._small._asks, "_sharing", Sharing(silent=0.0))
    upstream.gate.clear()
    clients = [
        asyncio.create_task(cache.blob(replace(CONTEXT, client=name), REDIS, layer))
        for name in ("one", "other")
    ]
    await eventually(lambda: upstream.asked["blob"] == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    upstream.gate.set()
    assert [await read_all(content) for content in await asyncio.gather(*clients)] == [LAYER] * 2
    assert upstream.asked["blob"] == 1
    await cache.close()
    await fills.close()
    claims.close()
