"""What the caches of several registries share, and a cache that is built anew on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mirror.clock import Clock
from mirror.contracts.registry import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, Unavailable
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.freshness import Freshness, Rules
from mirror.pullthrough.policy import AnswerPatience, CachePolicy, TroublePatience
from mirror.pullthrough.shared import Shared

from ..fakes import CONTEXT, REDIS, FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of

OTHER = Repository("ghcr.io", "acme/app")
LAYER = b"layer" * 100
MISSING = Digest.of(b"nowhere")


@pytest.fixture
def shared(store: MemoryContent, tags: FakeTags, fills: Fills, wall: HandClock) -> Shared:
    return Shared.over(store, tags, fills, clock=Clock(wall=wall, monotonic=wall))


@pytest.fixture
async def caches() -> AsyncIterator[list[PullThrough]]:
    caches: list[PullThrough] = []
    yield caches
    for cache in caches:
        await cache.close()


def build(upstream: FakeUpstream, shared: Shared, caches: list[PullThrough]) -> PullThrough:
    policy = CachePolicy(
        Rules((), Freshness(ttl=300, stale=3600)),
        patience=AnswerPatience(stale=0.1, unknown=0.5),
        trouble=TroublePatience(promised=0.5, other=0, lagging=0, pause=0.01),
    )
    caches.append(PullThrough(upstream, shared, policy))
    return caches[-1]


async def test_a_cache_built_anew_knows_what_clients_were_promised(
    upstream: FakeUpstream, shared: Shared, caches: list[PullThrough]
) -> None:
    digest = upstream.push("7", manifest_of(b"{}", LAYER), b"{}", LAYER)
    before = build(upstream, shared, caches)
    await before.manifest(CONTEXT, REDIS, digest)
    after = build(upstream, shared, caches)
    assert after.has_promised(REDIS, Digest.of(LAYER))


async def test_a_cache_built_anew_has_the_manifests_in_memory(
    upstream: FakeUpstream, shared: Shared, store: MemoryContent, caches: list[PullThrough]
) -> None:
    digest = upstream.push("7", manifest_of())
    await build(upstream, shared, caches).manifest(CONTEXT, REDIS, digest)
    await store.delete(digest)
    content = await build(upstream, shared, caches).manifest(CONTEXT, REDIS, digest)
    assert content.outcome is Outcome.HIT


async def test_a_cache_built_anew_believes_what_was_said_to_be_missing(
    upstream: FakeUpstream, shared: Shared, caches: list[PullThrough]
) -> None:
    for _ in range(2):
        with pytest.raises(BlobUnknown):
            await build(upstream, shared, caches).blob(CONTEXT, REDIS, MISSING)
    assert upstream.asked["blob"] == 1


async def test_a_cache_built_anew_keeps_the_pauses_of_checks_that_failed(
    upstream: FakeUpstream, shared: Shared, wall: HandClock, caches: list[PullThrough]
) -> None:
    upstream.push("7", manifest_of())
    await build(upstream, shared, caches).resolve(CONTEXT, REDIS, "7")
    upstream.down = Unavailable("refused")
    wall.now += 301
    await build(upstream, shared, caches).resolve(CONTEXT, REDIS, "7")
    assert shared.tag_checks.waiting((REDIS, "7"))


async def test_what_one_registry_lacks_and_promises_says_nothing_of_another(
    upstream: FakeUpstream, shared: Shared, caches: list[PullThrough]
) -> None:
    other = FakeUpstream()
    with pytest.raises(BlobUnknown):
        await build(upstream, shared, caches).blob(CONTEXT, REDIS, MISSING)
    with pytest.raises(BlobUnknown):
        await build(other, shared, caches).blob(CONTEXT, OTHER, MISSING)
    assert other.asked["blob"] == 1
    shared.served.name(REDIS.registry, MISSING)
    assert shared.served.made(REDIS, MISSING)
    assert not shared.served.made(OTHER, MISSING)
