"""Frozen tags: by digest and by date, by the configuration and by command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from mirror.clock import Clock
from mirror.contracts.registry import Outcome
from mirror.contracts.tags import TagEvent
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, ManifestUnknown, Unavailable
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.policy import AnswerPatience, CachePolicy
from mirror.pullthrough.shared import Shared
from mirror.pullthrough.tags.pins import event_at, spoken

from ..fakes import CONTEXT, FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of

REDIS = Repository("docker.io", "library/redis")

Build = Callable[..., PullThrough]


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.fixture
async def build(
    upstream: FakeUpstream, store: MemoryContent, tags: FakeTags, fills: Fills, wall: HandClock
) -> AsyncIterator[Build]:
    """Makes a cache in which redis:7 is frozen to this."""
    caches: list[PullThrough] = []

    def build(frozen: Digest | datetime | None = None) -> PullThrough:
        cache = PullThrough(
            upstream,
            Shared.over(store, tags, fills, clock=Clock(wall=wall)),
            CachePolicy(
                pins={(REDIS, "7"): frozen} if frozen else {},
                patience=AnswerPatience(stale=0.1, unknown=0.5),
            ),
        )
        caches.append(cache)
        return cache

    yield build
    for cache in caches:
        await cache.close()


async def test_a_frozen_tag_is_answered_with_its_digest_whatever_the_upstream_says(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    old = upstream.push("7", manifest_of(note="old"))
    upstream.push("7", manifest_of(note="new"))
    cache = build(old)
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.descriptor.digest, resolved.outcome) == (old, Outcome.FILLED)
    assert resolved.descriptor.size == len(manifest_of(note="old"))
    wall.now += 365 * 86400
    upstream.down = Unavailable("refused")
    resolved = await cache.resolve(CONTEXT, REDIS, "7")
    assert (resolved.descriptor.digest, resolved.outcome, resolved.age) == (old, Outcome.HIT, 0)
    assert upstream.asked == {"manifest": 1}


async def test_other_tags_are_not_frozen(build: Build, upstream: FakeUpstream) -> None:
    old = upstream.push("7", manifest_of(note="old"))
    other = upstream.push("8", manifest_of(note="eight"))
    assert (await build(old).resolve(CONTEXT, REDIS, "8")).descriptor.digest == other


async def test_a_tag_that_is_frozen_by_command_is_so_at_once_and_until_it_is_unfrozen(
    build: Build, upstream: FakeUpstream, tags: FakeTags
) -> None:
    old = upstream.push("7", manifest_of(note="old"))
    new = upstream.push("7", manifest_of(note="new"))
    cache = build()
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == new
    await tags.freeze(REDIS, "7", old)
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == old
    await tags.unfreeze(REDIS, "7")
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == new


async def test_the_command_goes_before_the_configuration(
    build: Build, upstream: FakeUpstream, tags: FakeTags
) -> None:
    old = upstream.push("7", manifest_of(note="old"))
    new = upstream.push("7", manifest_of(note="new"))
    cache = build(old)
    await tags.freeze(REDIS, "7", new)
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == new


async def test_f45_what_the_configuration_freezes_is_frozen_without_the_tag_memory(
    build: Build, upstream: FakeUpstream, tags: FakeTags
) -> None:
    old = upstream.push("7", manifest_of(note="old"))
    upstream.push("7", manifest_of(note="new"))
    tags.failing = True
    assert (await build(old).resolve(CONTEXT, REDIS, "7")).descriptor.digest == old


async def test_a_frozen_digest_that_cannot_be_had_is_told(
    build: Build, upstream: FakeUpstream
) -> None:
    upstream.push("7", manifest_of())
    gone = Digest.of(b"gone")
    with pytest.raises(ManifestUnknown, match=f"library/redis:7 is frozen to {gone}"):
        await build(gone).resolve(CONTEXT, REDIS, "7")
    upstream.gate.clear()
    with pytest.raises(Unavailable, match="frozen to"):
        await build(Digest.of(b"hangs")).resolve(CONTEXT, REDIS, "7")
    upstream.gate.set()


async def test_a_tag_is_frozen_to_what_it_was_at_a_time(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    digests = [upstream.push("7", manifest_of(note=note)) for note in ("a", "b", "c")]
    tags.events[REDIS, "7"] = [
        TagEvent(digest, wall.now - ago, wall.now - ago + 10)
        for digest, ago in zip(reversed(digests), (1000, 2000, 3000), strict=True)
    ]
    for ago, digest in ((1000, 2), (1001, 1), (1995, 1), (2000, 1), (2001, 0), (3000, 0)):
        resolved = await build(at(wall.now - ago)).resolve(CONTEXT, REDIS, "7")
        assert resolved.descriptor.digest == digests[digest]
    assert upstream.asked["resolve"] == 0


async def test_a_time_of_which_nothing_is_known_is_denied(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    digest = upstream.push("7", manifest_of())
    tags.events[REDIS, "7"] = [TagEvent(digest, wall.now - 1000, wall.now)]
    wall.now = 1_800_000_000.0
    with pytest.raises(Denied) as denied:
        await build(datetime(1970, 1, 2, tzinfo=UTC)).resolve(CONTEXT, REDIS, "7")
    assert denied.value.message == (
        "docker.io/library/redis:7 is frozen to what it was at 1970-01-02, of which nothing is "
        "known here; pin it to a digest instead"
    )


async def test_a_tag_that_was_not_there_at_that_time_is_denied(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    upstream.push("7", manifest_of())
    tags.events[REDIS, "7"] = [TagEvent(None, wall.now - 1000, wall.now)]
    with pytest.raises(Denied, match="there was none then"):
        await build(at(wall.now - 500)).resolve(CONTEXT, REDIS, "7")


async def test_until_its_time_has_come_a_tag_is_followed(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    digest = upstream.push("7", manifest_of())
    cache = build(at(wall.now + 1000))
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == digest
    tags.events[REDIS, "7"] = [TagEvent(digest, wall.now, wall.now)]
    upstream.push("7", manifest_of(note="later"))
    wall.now += 1001
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == digest


async def test_f45_a_time_is_looked_up_once_and_refused_while_nobody_can_say(
    build: Build, upstream: FakeUpstream, tags: FakeTags, wall: HandClock
) -> None:
    digest = upstream.push("7", manifest_of())
    tags.events[REDIS, "7"] = [TagEvent(digest, wall.now - 1000, wall.now)]
    cache = build(at(wall.now - 500))
    tags.failing = True
    with pytest.raises(Unavailable, match="the tag memory does not answer"):
        await cache.resolve(CONTEXT, REDIS, "7")
    tags.failing = False
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == digest
    tags.failing = True
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == digest


def test_what_was_at_a_time_with_clocks_that_were_wrong() -> None:
    a, b = TagEvent(Digest.of(b"a"), 4e9, 4e9), TagEvent(Digest.of(b"b"), 1000.0, 2000.0)
    assert event_at([b, a], at(1500)) == b
    assert event_at([a, b], at(1500)) == b
    assert event_at([b], at(999)) is None
    assert event_at([], at(999)) is None


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (datetime(2026, 11, 1, tzinfo=UTC), "2026-11-01"),
        (datetime(2026, 11, 1, 12, 30, 5, tzinfo=UTC), "2026-11-01T12:30:05Z"),
        (datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=2))), "2026-10-31T22:00:00Z"),
    ],
)
def test_a_time_is_told_as_it_may_be_written(time: datetime, written: str) -> None:
    assert spoken(time) == written
    assert datetime.fromisoformat(written).replace(tzinfo=UTC) == time
