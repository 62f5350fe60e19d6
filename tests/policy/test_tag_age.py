"""The age of what a tag points to, with the memories of tags that a mirror has: to ask for many
other tags lets no young image pass by the time of building that it claims."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.tags import TagRecord, TagStore
from mirror.events import Events
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied
from mirror.oci.manifests import OCI_MANIFEST
from mirror.oci.patterns import Patterns
from mirror.oci.reference import Repository
from mirror.policy.access import AccessGuard, AccessRule
from mirror.policy.tag_age import TagAges
from mirror.redis_url import RedisAccess
from mirror.storage.tags import redis_history
from mirror.storage.tags.embedded import EmbeddedTags
from mirror.storage.tags.history_bounds import MOST
from mirror.storage.tags.redis import RedisTags

from ..fakes import CONTEXT, FakeRegistry, HandClock
from ..redis_server import RedisServer

DAY = 86400.0
APP, OTHER = Repository("docker.io", "library/a"), Repository("docker.io", "evil/x")
LONG_AGO = "2001-01-01T00:00:00Z"


@pytest.fixture
def wall() -> HandClock:
    return HandClock(time.time() - 100 * DAY)  # Redis has a clock of its own


@pytest.fixture(params=["embedded", "redis"])
async def tags(
    request: pytest.FixtureRequest, tmp_path: Path, wall: HandClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TagStore]:
    """One that has room for the history of a hundred tags."""
    clock = Clock(wall=wall)
    if request.param == "embedded":
        embedded = EmbeddedTags(tmp_path / "tags.db", clock, Events(), max_rows=100)
        yield embedded
        await embedded.close()
        return
    monkeypatch.setattr(redis_history, "MOST_TAGS", 100)
    with RedisServer(tmp_path / "redis") as server:
        redis = RedisTags(RedisAccess(server.start().url), Events(), clock, limit=30.0)
        yield redis
        await redis.close()


class DatedTags:
    def __init__(self, folder: Path, tags: TagStore, wall: HandClock) -> None:
        self.registry = FakeRegistry(folder)
        self.tags, self.wall = tags, wall
        rule = AccessRule("cool-down", Patterns(["*"]), True, 3 * DAY)
        ages = TagAges(self.registry, tags, MOST, Clock(wall=wall))
        self.guarded = AccessGuard(self.registry, [rule], ages)

    def push(self, tag: str, note: str) -> Digest:
        """An image that says it was built long ago."""
        return self.registry.add_image(LONG_AGO, tag, note=note)

    async def ask(self, repository: Repository, tag: str) -> Digest:
        """As a mirror does: what the upstream says is noted, then judged. Raises Denied."""
        said = (await self.registry.resolve(CONTEXT, repository, tag)).descriptor
        await self.tags.put(repository, tag, TagRecord(said, self.wall.now), 3600)
        return (await self.guarded.resolve(CONTEXT, repository, tag)).descriptor.digest

    async def flood(self, repository: Repository) -> None:
        for number in range(600):
            digest = Digest.of(f"{number}".encode())
            self.wall.now += 1
            record = TagRecord(Descriptor(OCI_MANIFEST, digest, 1), self.wall.now)
            await self.tags.put(repository, f"flood-{number}", record, 3600)


@pytest.fixture
def dated(tmp_path: Path, tags: TagStore, wall: HandClock) -> DatedTags:
    return DatedTags(tmp_path, tags, wall)


async def test_a_flood_of_another_repositorys_tags_lets_no_young_image_pass(
    dated: DatedTags, wall: HandClock
) -> None:
    old = dated.push("1", "old")
    assert await dated.ask(APP, "1") == old
    wall.now += 10 * DAY
    await dated.flood(OTHER)
    dated.push("1", "young")
    assert await dated.ask(APP, "1") == old


async def test_nor_does_a_flood_of_its_own(dated: DatedTags, wall: HandClock) -> None:
    """That it was another image before is forgotten; not that something is."""
    old = dated.push("1", "old")
    assert await dated.ask(APP, "1") == old
    wall.now += 10 * DAY
    await dated.flood(APP)
    young = dated.push("1", "young")
    with pytest.raises(Denied, match="cool-down"):
        await dated.ask(APP, "1")
    wall.now += 4 * DAY
    assert await dated.ask(APP, "1") == young
