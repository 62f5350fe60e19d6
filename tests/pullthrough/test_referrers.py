"""Lists of referrers through the cache: kept whole, answered filtered, aged as tags are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.registry import BytesContent, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, Unavailable
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.freshness import Freshness, Rules
from mirror.pullthrough.policy import AnswerPatience, CachePolicy
from mirror.pullthrough.shared import Shared
from mirror.storage.records.links import LinkRecords
from mirror.storage.records.referrers import ReferrerRecords

from ..fakes import CONTEXT, FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of

REDIS = Repository("docker.io", "library/redis")
OTHER = Repository("docker.io", "library/other")
SUBJECT = Digest.of(b"image")
PERIODS = Freshness(ttl=300, stale=3600, negative_ttl=30)


def index(*kinds: str) -> bytes:
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": str(Digest.of(kind.encode())),
            "size": 1,
            "artifactType": kind,
        }
        for kind in kinds
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


def kinds(content: BytesContent) -> list[str]:
    assert content.descriptor.media_type == OCI_INDEX
    assert content.descriptor.digest.matches(content.data)
    return [entry["artifactType"] for entry in json.loads(content.data)["manifests"]]


Build = Callable[..., PullThrough]


@pytest.fixture
async def links(wall: HandClock, tmp_path: Path) -> AsyncIterator[LinkRecords]:
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall))
    yield links
    await links.close()


@pytest.fixture
async def build(
    upstream: FakeUpstream,
    store: MemoryContent,
    fills: Fills,
    links: LinkRecords,
    wall: HandClock,
    tmp_path: Path,
) -> AsyncIterator[Build]:
    """A cache with these periods; what is kept outlives it."""
    lists = ReferrerRecords(tmp_path / "referrers.db", Clock())
    tags = FakeTags()
    caches: list[PullThrough] = []

    def make(periods: Freshness = PERIODS) -> PullThrough:
        caches.append(
            PullThrough(
                upstream,
                Shared.over(
                    store, tags, fills, links=links, referrers=lists, clock=Clock(wall=wall)
                ),
                CachePolicy(Rules((), periods), patience=AnswerPatience(stale=0.1, unknown=0.5)),
            )
        )
        return caches[-1]

    yield make
    for cache in caches:
        await cache.close()
    await lists.close()


async def test_a_list_is_fetched_once_while_it_is_fresh(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.lists[SUBJECT] = index("a/sbom", "a/signature")
    cache = build()
    first = await cache.referrers(CONTEXT, REDIS, SUBJECT)
    assert (kinds(first), first.outcome, first.age) == (
        ["a/sbom", "a/signature"],
        Outcome.FILLED,
        0,
    )
    assert first.data == upstream.lists[SUBJECT]
    wall.now += 299
    second = await build().referrers(CONTEXT, REDIS, SUBJECT)
    assert (second.data, second.outcome, second.age) == (first.data, Outcome.HIT, 299)
    assert upstream.asked["referrers"] == 1


async def test_a_list_is_filtered_whoever_asks_for_what(
    build: Build, upstream: FakeUpstream
) -> None:
    upstream.lists[SUBJECT] = index("a/sbom", "a/signature", "a/sbom")
    cache = build()
    assert kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT, "a/sbom")) == ["a/sbom", "a/sbom"]
    assert kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT, "a/signature")) == ["a/signature"]
    assert kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT, "a/other")) == []
    assert len(kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT))) == 3
    assert upstream.asked["referrers"] == 1


async def test_an_old_list_is_asked_about_again(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.lists[SUBJECT] = index("a/sbom")
    cache = build()
    await cache.referrers(CONTEXT, REDIS, SUBJECT)
    wall.now += 301
    same = await cache.referrers(CONTEXT, REDIS, SUBJECT)
    assert (same.outcome, same.age) == (Outcome.REVALIDATED, 0)
    wall.now += 301
    upstream.lists[SUBJECT] = index("a/sbom", "a/signature")
    longer = await cache.referrers(CONTEXT, REDIS, SUBJECT)
    assert (kinds(longer), longer.outcome) == (["a/sbom", "a/signature"], Outcome.FILLED)


@pytest.mark.parametrize("error", [Unavailable("down"), Denied("no longer ours")])
async def test_an_old_list_is_answered_stale_until_it_is_too_old(
    build: Build, upstream: FakeUpstream, wall: HandClock, error: Exception
) -> None:
    upstream.lists[SUBJECT] = index("a/sbom")
    cache = build()
    await cache.referrers(CONTEXT, REDIS, SUBJECT)
    upstream.down = error
    wall.now += 301
    for each in (cache, build()):
        stale = await each.referrers(CONTEXT, REDIS, SUBJECT)
        assert (kinds(stale), stale.outcome, stale.age) == (["a/sbom"], Outcome.STALE, 301)
    wall.now += 3600
    with pytest.raises(type(error)):
        await cache.referrers(CONTEXT, REDIS, SUBJECT)
    # Nobody else can say where no upstream is ever asked.
    assert kinds(await build(PERIODS.offline()).referrers(CONTEXT, REDIS, SUBJECT)) == ["a/sbom"]


async def test_a_list_is_answered_at_once_and_asked_about_behind(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.lists[SUBJECT] = index("a/sbom")
    cache = build(replace(PERIODS, stale_while_revalidate=60))
    await cache.referrers(CONTEXT, REDIS, SUBJECT)
    wall.now += 301
    upstream.gate.clear()
    assert (await cache.referrers(CONTEXT, REDIS, SUBJECT)).outcome is Outcome.STALE
    while upstream.asked["referrers"] < 2:
        await asyncio.sleep(0)
    upstream.gate.set()


async def test_that_there_are_none_is_believed_for_a_shorter_time(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    cache = build()
    for _ in range(3):
        assert kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT)) == []
    assert upstream.asked["referrers"] == 1
    wall.now += 31
    upstream.lists[SUBJECT] = index("a/signature")
    assert kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT)) == ["a/signature"]


async def test_signatures_of_an_immutable_tag_are_still_seen(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    upstream.lists[SUBJECT] = index("a/sbom")
    cache = build(replace(PERIODS, immutable=True))
    await cache.referrers(CONTEXT, REDIS, SUBJECT)
    wall.now += 301
    upstream.lists[SUBJECT] = index("a/sbom", "a/signature")
    assert len(kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT))) == 2


async def test_a_list_that_was_there_is_gone_only_when_said_twice(
    build: Build, upstream: FakeUpstream, wall: HandClock
) -> None:
    """Of several replicas one may lag; and on_404: keep keeps what the registry has deleted."""
    upstream.lists[SUBJECT] = index("a/signature")
    cache = build()
    await cache.referrers(CONTEXT, REDIS, SUBJECT)
    wall.now += 301
    del upstream.lists[SUBJECT]
    kept = await build(replace(PERIODS, keeps_gone=True)).referrers(CONTEXT, REDIS, SUBJECT)
    assert (kinds(kept), kept.outcome) == (["a/signature"], Outcome.STALE)
    upstream.asked.clear()
    assert kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT)) == []
    assert upstream.asked["referrers"] == 2


async def test_concurrent_asks_are_one_ask_upstream(build: Build, upstream: FakeUpstream) -> None:
    upstream.lists[SUBJECT] = index("a/sbom", "a/signature")
    cache = build()
    upstream.gate.clear()
    wanted = [None, "a/sbom"] * 10
    asks = [asyncio.create_task(cache.referrers(CONTEXT, REDIS, SUBJECT, kind)) for kind in wanted]
    while not upstream.asked["referrers"]:
        await asyncio.sleep(0)
    upstream.gate.set()
    assert {len(kinds(await ask)) for ask in asks} == {1, 2}
    assert upstream.asked["referrers"] == 1


async def test_a_list_is_its_repositorys_alone(build: Build, upstream: FakeUpstream) -> None:
    upstream.lists[SUBJECT] = index("a/signature")
    cache = build()
    await cache.referrers(CONTEXT, REDIS, SUBJECT)
    upstream.down = Denied("it is private")
    with pytest.raises(Denied):
        await cache.referrers(CONTEXT, OTHER, SUBJECT)
    assert kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT)) == ["a/signature"]


@pytest.mark.parametrize("shown", [True, False])
async def test_the_fallback_tag_stands_for_the_list_where_its_repository_has_shown_it(
    build: Build, upstream: FakeUpstream, links: LinkRecords, shown: bool
) -> None:
    """What a tag memory says, which others may write to, opens nothing by itself."""
    cache = build()
    digest = upstream.push(f"sha256-{SUBJECT.hex}", index("a/signature"))
    await cache.resolve(CONTEXT, REDIS, f"sha256-{SUBJECT.hex}")
    if shown:
        await links.add(REDIS, [digest])
    upstream.down = Unavailable("down")
    if not shown:
        with pytest.raises(Unavailable, match="down"):
            await cache.referrers(CONTEXT, REDIS, SUBJECT)
        return
    stale = await cache.referrers(CONTEXT, REDIS, SUBJECT)
    assert (kinds(stale), stale.outcome) == (["a/signature"], Outcome.STALE)
    upstream.down = None
    upstream.lists[SUBJECT] = index("a/signature", "a/sbom")  # the registry itself says more
    assert len(kinds(await cache.referrers(CONTEXT, REDIS, SUBJECT))) == 2


async def test_a_fallback_tag_that_is_an_image_stands_for_nothing(
    build: Build, upstream: FakeUpstream, links: LinkRecords
) -> None:
    cache = build()
    digest = upstream.push(f"sha256-{SUBJECT.hex}", manifest_of())
    await cache.resolve(CONTEXT, REDIS, f"sha256-{SUBJECT.hex}")
    await links.add(REDIS, [digest])
    upstream.down = Unavailable("down")
    with pytest.raises(Unavailable, match="down"):
        await cache.referrers(CONTEXT, REDIS, SUBJECT)
