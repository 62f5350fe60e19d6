"""Freshness by pattern: which rule is for a tag, and what each of its words does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from mirror.clock import Clock
from mirror.contracts.registry import Outcome
from mirror.contracts.tags import TagEvent, TagRecord
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestUnknown, Unavailable
from mirror.oci.patterns import Patterns
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.freshness import (
    STRETCH,
    Freshness,
    FreshnessRule,
    RecordState,
    Rules,
    judge,
)
from mirror.pullthrough.policy import AnswerPatience, CachePolicy
from mirror.pullthrough.shared import Shared

from ..fakes import CONTEXT, FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of
from ..waiting import eventually

REDIS = Repository("docker.io", "library/redis")
NOW = 1_000_000.0


@pytest.fixture
def monotonic() -> HandClock:
    return HandClock(0)


@pytest.fixture
def store() -> MemoryContent:
    return MemoryContent()


Build = Callable[..., PullThrough]


@pytest.fixture
async def build(
    upstream: FakeUpstream,
    store: MemoryContent,
    tags: FakeTags,
    fills: Fills,
    wall: HandClock,
    monotonic: HandClock,
) -> AsyncIterator[Build]:
    """Makes a cache with these periods for every tag."""
    caches: list[PullThrough] = []

    def build(
        patience: float = 0.1,
        **periods: float,
    ) -> PullThrough:
        cache = PullThrough(
            upstream,
            Shared.over(store, tags, fills, clock=Clock(wall=wall, monotonic=monotonic)),
            CachePolicy(
                Rules((), Freshness(**periods)), patience=AnswerPatience(stale=patience, unknown=5)
            ),
        )
        caches.append(cache)
        return cache

    yield build
    for cache in caches:
        await cache.close()


def record(age: float) -> TagRecord:
    return TagRecord(Descriptor("a/b", Digest.of(b"x"), 1), NOW - age)


@pytest.mark.parametrize(
    ("age", "periods", "state"),
    [
        (99, Freshness(ttl=100), RecordState.FRESH),
        (100, Freshness(ttl=100, stale=50), RecordState.STALE),
        (100, Freshness(ttl=100, stale_while_revalidate=10, stale=50), RecordState.REVALIDATE),
        (110, Freshness(ttl=100, stale_while_revalidate=10, stale=50), RecordState.STALE),
        (150, Freshness(ttl=100, stale_while_revalidate=10, stale=50), RecordState.EXPIRED),
        (159, Freshness(ttl=100, stale_while_revalidate=60, stale=50), RecordState.REVALIDATE),
        (160, Freshness(ttl=100, stale_while_revalidate=60, stale=50), RecordState.EXPIRED),
        (1e9, Freshness(ttl=1, stale=0, immutable=True), RecordState.FRESH),
        (-5, Freshness(immutable=True), RecordState.FRESH),
        (-5, Freshness(), RecordState.STALE),
        (100 * STRETCH - 1, Freshness(ttl=100, stale=0).stretched(), RecordState.FRESH),
        (100 * STRETCH, Freshness(ttl=100, stale=0).stretched(), RecordState.EXPIRED),
    ],
)
def test_the_period_of_a_record(age: float, periods: Freshness, state: RecordState) -> None:
    assert judge(record(age), NOW, periods) is state


def test_an_immutable_tag_that_is_not_there_may_come() -> None:
    missing = TagRecord(None, NOW - 31)
    assert judge(missing, NOW, Freshness(immutable=True)) is RecordState.EXPIRED


def test_the_first_rule_that_means_a_tag_decides() -> None:
    latest, version, other = Freshness(ttl=1), Freshness(immutable=True), Freshness(ttl=2)
    rules = Rules(
        [
            FreshnessRule(Patterns(["library/*:latest"]), latest),
            FreshnessRule(Patterns(["*:v[0-9]*", "library/redis:latest"]), version),
        ],
        other,
    )
    assert rules.of(REDIS, "latest") is latest
    assert rules.of(REDIS, "v1.2.3") is version
    assert rules.of(Repository("docker.io", "bob/app"), "latest") is other


async def test_periods_by_pattern_hold_for_their_tags_alone(
    upstream: FakeUpstream,
    store: MemoryContent,
    tags: FakeTags,
    fills: Fills,
    wall: HandClock,
) -> None:
    immutable = FreshnessRule(Patterns(["*:v*"]), Freshness(immutable=True))
    cache = PullThrough(
        upstream,
        Shared.over(store, tags, fills, clock=Clock(wall=wall)),
        CachePolicy(Rules([immutable], Freshness(ttl=300))),
    )
    for tag in ("v1", "edge"):
        upstream.push(tag, manifest_of(note=tag))
        await cache.resolve(CONTEXT, REDIS, tag)
    assert tags.kept_for[REDIS, "v1"] == float("inf")
    wall.now += 10 * 365 * 86400
    upstream.down = Unavailable("refused")
    assert (await cache.resolve(CONTEXT, REDIS, "v1")).outcome is Outcome.HIT
    with pytest.raises(Unavailable):
        await cache.resolve(CONTEXT, REDIS, "edge")
    await cache.close()


async def test_while_revalidating_a_tag_is_answered_at_once_and_asked_about_behind(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    cache = build(ttl=300, stale_while_revalidate=600)
    old = upstream.push("7", manifest_of(note="old"))
    await cache.resolve(CONTEXT, REDIS, "7")
    new = upstream.push("7", manifest_of(note="new"))
    wall.now += 301
    upstream.gate.clear()  # whoever waited for the upstream would not come back
    for _ in range(3):
        stale = await cache.resolve(CONTEXT, REDIS, "7")
        assert (stale.descriptor.digest, stale.outcome, stale.age) == (old, Outcome.STALE, 301)
    assert upstream.asked["resolve"] == 1
    await eventually(lambda: upstream.asked["resolve"] == 2)
    upstream.gate.set()

    async def is_new() -> bool:
        resolved = await cache.resolve(CONTEXT, REDIS, "7")
        return (resolved.descriptor.digest, resolved.outcome) == (new, Outcome.HIT)

    await eventually(is_new)
    assert upstream.asked["resolve"] == 2


async def test_failures_behind_back_off(
    build: Build, upstream: FakeUpstream, wall: HandClock, monotonic: HandClock
) -> None:
    cache = build(ttl=300, stale_while_revalidate=86400)
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    upstream.down = Unavailable("refused")
    asked = []
    for second in range(40):
        monotonic.now = float(second)
        before = upstream.asked["resolve"]
        assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.STALE
        await settled(cache)
        if upstream.asked["resolve"] > before:
            asked.append(second)
    assert asked == [0, 1, 3, 7, 15, 31]
    upstream.down = None
    monotonic.now = 1000.0
    await cache.resolve(CONTEXT, REDIS, "7")
    await settled(cache)
    assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.HIT
    # It worked: the next failures begin with the shortest pause again.
    wall.now += 301
    upstream.down = Unavailable("refused")
    before = upstream.asked["resolve"]
    for second in (1001.0, 1002.0):
        monotonic.now = second
        await cache.resolve(CONTEXT, REDIS, "7")
        await settled(cache)
    assert upstream.asked["resolve"] == before + 2


async def settled(cache: PullThrough) -> None:
    """What was begun behind has ended."""
    while cache._tags._asks._checks._flights:
        await asyncio.sleep(0)


async def test_after_the_revalidating_period_the_upstream_is_waited_for(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    cache = build(ttl=300, stale_while_revalidate=600, stale=3600)
    upstream.push("7", manifest_of(note="old"))
    await cache.resolve(CONTEXT, REDIS, "7")
    new = upstream.push("7", manifest_of(note="new"))
    wall.now += 901
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == new


async def test_f24_a_tag_that_is_gone_is_kept_where_that_is_wanted(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    cache = build(ttl=300, stale=3600, keeps_gone=True)
    digest = upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    assert tags.kept_for[REDIS, "7"] == float("inf")
    del upstream.tags_of["7"]
    for passed in (301, 86400, 365 * 86400):
        wall.now += passed
        kept = await cache.resolve(CONTEXT, REDIS, "7")
        assert (kept.descriptor.digest, kept.outcome) == (digest, Outcome.STALE)
        assert kept.age == wall.now - 1_000_000.0
    assert upstream.asked["resolve"] == 1 + 3  # not believed anyway: not asked a second time
    with pytest.raises(ManifestUnknown):
        await cache.resolve(CONTEXT, REDIS, "never")
    upstream.push("7", manifest_of(note="back"))
    assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.FILLED


async def test_a_tag_is_fresh_for_longer_while_asking_is_scarce(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    cache = build(ttl=300, stale=0)
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    assert tags.kept_for[REDIS, "7"] == 300 * STRETCH
    wall.now += 300 * STRETCH - 1
    upstream.is_scarce = lambda: True
    assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.HIT
    upstream.is_scarce = lambda: False
    assert (await cache.resolve(CONTEXT, REDIS, "7")).outcome is Outcome.REVALIDATED


async def test_f22_while_the_upstream_is_away_nobody_waits_for_it_and_it_comes_back_by_itself(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.is_down = lambda repository, tag: True
    cache = build(patience=3600, ttl=300, stale=86400)
    old = upstream.push("7", manifest_of(note="old"))
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 301
    upstream.gate.clear()  # whoever waited would wait an hour
    async with asyncio.timeout(30):
        stale = await cache.resolve(CONTEXT, REDIS, "7")
    assert (stale.descriptor.digest, stale.outcome, stale.age) == (old, Outcome.STALE, 301)
    new = upstream.push("7", manifest_of(note="new"))
    upstream.gate.set()

    async def is_new() -> bool:
        return (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == new

    await eventually(is_new)


async def test_f22_while_the_upstream_is_away_stale_still_has_an_end(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.is_down = lambda repository, tag: True
    cache = build(ttl=300, stale=3600)
    upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    wall.now += 3900
    upstream.down = Unavailable("refused")
    with pytest.raises(Unavailable, match="refused"):
        await cache.resolve(CONTEXT, REDIS, "7")


async def test_a_tag_that_was_forgotten_is_not_looked_up_in_its_history(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    cache = build(ttl=300, stale=3600)
    digest = upstream.push("7", manifest_of())
    await cache.resolve(CONTEXT, REDIS, "7")
    tags.records.clear()
    tags.events[REDIS, "7"] = [TagEvent(digest, wall.now, wall.now)]
    upstream.down = Unavailable("refused")
    with pytest.raises(Unavailable, match="refused"):
        await cache.resolve(CONTEXT, REDIS, "7")
