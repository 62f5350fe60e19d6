"""Tags through the cache: fresh, revalidated, stale, and what the upstream is spared."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from mirror.clock import Clock
from mirror.contracts.context import Asker
from mirror.contracts.registry import BytesContent, Outcome
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, ManifestUnknown, Unavailable, Untrustworthy
from mirror.oci.manifests import OCI_MANIFEST
from mirror.oci.patterns import Patterns
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.freshness import Freshness, Rules
from mirror.pullthrough.policy import CachePolicy
from mirror.pullthrough.shared import Shared

from ..fakes import CONTEXT, FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of

REDIS = Repository("docker.io", "library/redis")


async def test_a_tag_is_answered_with_its_manifest_in_hand(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    digest = upstream.push("7", manifest_of())
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.descriptor.digest, resolved.outcome) == (digest, Outcome.FILLED)
    upstream.down = Unavailable("it died after the tag was answered")
    content = await cache.manifest(CONTEXT, REDIS, digest)
    assert content.data == manifest_of()


async def test_a_tag_whose_manifest_cannot_be_had_is_not_answered(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    digest = upstream.push("7", manifest_of())
    real = upstream.manifests.pop(digest)
    upstream.resolve = lambda *asked: _descriptor(real)  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="has no such manifest"):
        await cache.resolve(CONTEXT, REDIS, "7")


async def test_of_words_that_cannot_be_had_the_first_is_told_of(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    errors = {Digest.of(b"first"): Denied("private"), Digest.of(b"second"): Untrustworthy("none")}

    async def says(
        asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        words = [digest for digest in errors if digest not in passed_over]
        if not words:
            raise Unavailable("there is no other endpoint")
        return Descriptor(OCI_MANIFEST, words[0], 1)

    async def gives(asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        raise errors[digest]

    upstream.resolve, upstream.manifest = says, gives  # type: ignore[method-assign]
    with pytest.raises(Denied, match="private"):
        await cache.resolve(CONTEXT, REDIS, "7")


async def test_replicas_that_disagree_take_no_tag_away(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    """One says what the tag is now, another has not got it yet."""
    old = upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    new = manifest_of(note="new")
    upstream.resolve = lambda *asked: _descriptor(new)  # type: ignore[method-assign]
    wall.now += 301
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.descriptor.digest, resolved.outcome) == (old, Outcome.STALE)


async def test_an_immutable_tag_stays_what_it_was_when_its_manifest_has_gone_from_here(
    upstream: FakeUpstream, store: MemoryContent, tags: FakeTags, fills: Fills
) -> None:
    old = upstream.push("v1.0", manifest_of())

    def build() -> PullThrough:
        return PullThrough(
            upstream,
            Shared.over(store, tags, fills),
            CachePolicy(Rules((), Freshness(immutable=True))),
        )

    first, second = build(), build()  # the second has nothing in memory
    await first.resolve(CONTEXT, REDIS, "v1.0")
    await store.delete(old)
    upstream.push("v1.0", manifest_of(note="moved"))
    assert (await second.resolve(CONTEXT, REDIS, "v1.0")).descriptor.digest == old
    for cache in (first, second):
        await cache.close()


async def _descriptor(manifest: bytes) -> object:
    upstream = FakeUpstream()
    upstream.push("any", manifest)
    return await upstream.resolve(CONTEXT, REDIS, "any")


async def test_a_fresh_tag_does_not_ask_the_upstream(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 299
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.outcome, resolved.age) == (Outcome.HIT, 299)
    assert upstream.asked == {"resolve": 1, "manifest": 1}


async def test_an_old_tag_is_rechecked_without_getting_its_manifest_again(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.outcome, resolved.age) == (Outcome.REVALIDATED, 0)
    assert upstream.asked == {"resolve": 2, "manifest": 1}
    wall.now += 299
    assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.HIT


async def test_a_tag_that_moved_is_followed(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.push("7", manifest_of(note="old"))
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    new = upstream.push("7", manifest_of(note="new"))
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.descriptor.digest, resolved.outcome) == (new, Outcome.FILLED)


async def test_f22_an_old_tag_is_answered_stale_when_the_upstream_is_down(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    digest = upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    upstream.down = Unavailable("connection refused")
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.descriptor.digest, resolved.outcome) == (digest, Outcome.STALE)
    assert resolved.age == 301


async def test_f23_an_old_tag_is_answered_stale_when_the_upstream_says_nothing(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    upstream.gate.clear()
    assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.STALE
    upstream.gate.set()


async def test_an_expired_tag_is_refused_when_the_upstream_is_down(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 300 + 3600
    upstream.down = Unavailable("connection refused")
    with pytest.raises(Unavailable, match="connection refused"):
        await cache.resolve(CONTEXT, REDIS, "7")


async def test_a_miss_is_refused_in_time_when_the_upstream_hangs(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    upstream.push("7", manifest_of())
    upstream.gate.clear()
    with pytest.raises(Unavailable, match=r"said nothing of docker\.io/library/redis:7"):
        await cache.resolve(CONTEXT, REDIS, "7")
    upstream.gate.set()


async def test_concurrent_asks_for_a_tag_are_one_ask_upstream(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    upstream.push("7", manifest_of())
    upstream.gate.clear()
    asks = [asyncio.create_task(cache.resolve(CONTEXT, REDIS, "7")) for _ in range(20)]
    await asyncio.sleep(0)
    upstream.gate.set()
    outcomes = [(await ask).outcome for ask in asks]
    assert upstream.asked == {"resolve": 1, "manifest": 1}
    assert outcomes.count(Outcome.FILLED) == 1
    assert outcomes.count(Outcome.JOINED) == 19


async def test_who_asked_first_may_leave(cache: PullThrough, upstream: FakeUpstream) -> None:
    upstream.push("7", manifest_of())
    upstream.gate.clear()
    first = asyncio.create_task(cache.resolve(CONTEXT, REDIS, "7"))
    second = asyncio.create_task(cache.resolve(CONTEXT, REDIS, "7"))
    await asyncio.sleep(0)
    first.cancel()
    upstream.gate.set()
    assert (await second).descriptor.digest == upstream.tags_of["7"]


async def test_f24_a_missing_tag_is_remembered_for_a_short_time(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    for _ in range(3):
        with pytest.raises(ManifestUnknown):
            await cache.resolve(CONTEXT, REDIS, "nope")
    assert upstream.asked["resolve"] == 1
    upstream.push("nope", manifest_of())
    wall.now += 31
    assert (await cache.resolve(CONTEXT, REDIS, "nope")).outcome is Outcome.FILLED


async def test_f24_a_tag_that_was_there_is_gone_only_when_said_twice(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    digest = upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    del upstream.tags_of["7"]
    with pytest.raises(ManifestUnknown):
        await cache.resolve(CONTEXT, REDIS, "7")
    assert upstream.asked["resolve"] == 3
    assert (await cache.manifest(CONTEXT, REDIS, digest)).data == manifest_of()


async def test_a_tag_memory_that_fails_costs_an_ask_and_nothing_else(
    cache: PullThrough, upstream: FakeUpstream, tags: FakeTags
) -> None:
    digest = upstream.push("7", manifest_of())
    tags.failing = True
    for _ in range(2):
        assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == digest
    assert upstream.asked == {"resolve": 2, "manifest": 1}


async def test_a_fresh_tag_whose_manifest_was_lost_is_filled_again(
    cache: PullThrough, upstream: FakeUpstream, store: MemoryContent
) -> None:
    digest = upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    cache._manifests._memory.clear()
    await store.delete(digest)
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == digest
    assert upstream.asked["manifest"] == 2


async def test_f29_a_record_from_the_future_is_asked_about(
    cache: PullThrough, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now -= 7200
    assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.REVALIDATED
    wall.now -= 7200
    upstream.down = Unavailable("down")
    stale = await cache.resolve(CONTEXT, REDIS, "7")
    assert (stale.outcome, stale.age) == (Outcome.STALE, 0)


async def test_short_trouble_with_a_manifest_is_waited_out(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    digest = upstream.push("7", manifest_of())
    upstream.down = Unavailable("a moment")
    asking = asyncio.create_task(cache.manifest(CONTEXT, REDIS, digest))
    while upstream.asked["manifest"] < 2:
        await asyncio.sleep(0)
    upstream.down = None
    assert (await asking).data == manifest_of()


async def test_a_pinned_image_is_pinned_where_its_tag_points(
    upstream: FakeUpstream, store: MemoryContent, tags: FakeTags, fills: Fills, wall: HandClock
) -> None:
    cache = PullThrough(
        upstream,
        Shared.over(store, tags, fills, clock=Clock(wall=wall)),
        CachePolicy(kept=Patterns(["library/redis:7"])),
    )
    pinned = upstream.push("7", manifest_of())
    upstream.push("8", manifest_of(note="eight"))
    await cache.resolve(CONTEXT, REDIS, "7")
    await cache.resolve(CONTEXT, REDIS, "8")
    assert list(store.pins.values()) == [pinned]
    await cache.close()
