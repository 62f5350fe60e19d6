"""A registry of several replicas, one of which lags: what it names is there a moment later."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import FrameType

import pytest

from mirror.asking.negative_cache import NegativeCache
from mirror.clock import Clock
from mirror.contracts.registry import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, Denied, ManifestUnknown, Unavailable, Unknown
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.fill import Fill
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.freshness import Freshness, Rules
from mirror.pullthrough.policy import AnswerPatience, CachePolicy, TroublePatience
from mirror.pullthrough.shared import Shared

from ..fakes import CONTEXT, FakeTags, FakeUpstream, HandClock, MemoryContent, manifest_of
from .test_fills import BIG, REDIS, read_all

OTHER = Repository("docker.io", "library/other")
CONFIG, MANIFEST = b"{}", manifest_of(b"{}", BIG)
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": str(Digest.of(MANIFEST)),
                "size": len(MANIFEST),
                "platform": {"os": "linux", "architecture": "amd64"},
            }
        ],
    }
).encode()
NEGATIVE_TTL = 20.0


@dataclass
class LaggingRegistry:
    """A cache, and what a test moves: its clocks, and how long its upstream lags."""

    upstream: FakeUpstream
    build: Callable[[], PullThrough]
    wall: HandClock

    def lag(self, kind: str, times: int) -> None:
        """The next `times` asks of this kind find nothing."""
        asked, left = getattr(self.upstream, kind), iter(range(times))
        missing = ManifestUnknown if kind == "manifest" else BlobUnknown

        async def ask(*arguments: object, **more: object) -> object:
            if next(left, None) is not None:
                self.upstream.asked["missed"] += 1
                raise missing("not here yet")
            return await asked(*arguments, **more)

        setattr(self.upstream, kind, ask)


@pytest.fixture
async def lagging(
    upstream: FakeUpstream, store: MemoryContent, fills: Fills, wall: HandClock
) -> AsyncIterator[LaggingRegistry]:
    upstream.push("7", INDEX, CONFIG, BIG)
    upstream.manifests[Digest.of(MANIFEST)] = MANIFEST
    caches: list[PullThrough] = []
    tags = FakeTags()

    def build() -> PullThrough:
        """One more worker of the same node."""
        caches.append(
            PullThrough(
                upstream,
                Shared.over(store, tags, fills, clock=Clock(wall=wall, monotonic=wall)),
                CachePolicy(
                    Rules((), Freshness(ttl=300, stale=3600, negative_ttl=NEGATIVE_TTL)),
                    patience=AnswerPatience(stale=0.1, unknown=5),
                    trouble=TroublePatience(promised=1, other=0.5, lagging=0.2, pause=0.01),
                ),
            )
        )
        return caches[-1]

    yield LaggingRegistry(upstream, build, wall)
    for cache in caches:
        await cache.close()


async def test_a_tag_whose_manifest_comes_a_moment_later_is_answered(
    lagging: LaggingRegistry,
) -> None:
    lagging.lag("manifest", 2)
    resolved = await lagging.build().resolve(CONTEXT, REDIS, "7")
    assert resolved.descriptor.digest == Digest.of(INDEX)
    assert lagging.upstream.asked["missed"] == 2


async def test_a_known_tag_goes_to_its_new_image_as_soon_as_that_is_there(
    lagging: LaggingRegistry,
) -> None:
    cache = lagging.build()
    await cache.resolve(CONTEXT, REDIS, "7")
    new = lagging.upstream.push("7", manifest_of(note="new"))
    lagging.lag("manifest", 1)
    lagging.wall.now += 301
    assert (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest == new


async def test_a_tag_whose_manifest_stays_away_is_asked_for_again_moments_later(
    lagging: LaggingRegistry,
) -> None:
    cache = lagging.build()
    lagging.lag("manifest", 1000)
    with pytest.raises(Unavailable, match="no such manifest"):
        await cache.resolve(CONTEXT, REDIS, "7")
    before = lagging.upstream.asked["missed"]
    assert 3 <= before <= 10
    with pytest.raises(Unavailable, match="no such manifest"):
        await cache.resolve(CONTEXT, REDIS, "7")
    assert lagging.upstream.asked["missed"] > before


@pytest.mark.parametrize("worker", ["the same", "another"])
async def test_what_a_given_manifest_names_is_asked_for_again(
    lagging: LaggingRegistry, worker: str
) -> None:
    cache = lagging.build()
    await cache.manifest(
        CONTEXT, REDIS, (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest
    )
    if worker == "another":
        cache = lagging.build()
    lagging.lag("manifest", 3)
    assert (await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))).data == MANIFEST
    if worker == "another":
        cache = lagging.build()
    lagging.lag("stat", 3)
    assert (await cache.stat(CONTEXT, REDIS, Digest.of(BIG))).size == len(BIG)
    lagging.lag("blob", 3)
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(BIG))) == BIG
    assert lagging.upstream.asked["missed"] == 9


async def test_what_a_given_manifest_names_is_missing_for_moments_only(
    lagging: LaggingRegistry,
) -> None:
    cache = lagging.build()
    await cache.manifest(
        CONTEXT, REDIS, (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest
    )
    asks: tuple[tuple[str, Digest, Callable[..., Awaitable[object]]], ...] = (
        ("manifest", Digest.of(MANIFEST), cache.manifest),
        ("stat", Digest.of(CONFIG), cache.stat),
        ("blob", Digest.of(BIG), cache.blob),
    )
    for kind, digest, ask in asks:
        lagging.lag(kind, 1000)
        with pytest.raises(Unknown, match="not here yet"):
            await ask(CONTEXT, REDIS, digest)
        asked = lagging.upstream.asked["missed"]
        assert asked
        with pytest.raises(Unknown, match="not here yet"):
            await ask(CONTEXT, REDIS, digest)
        assert lagging.upstream.asked["missed"] == asked  # within the moment, nobody is asked
        lagging.upstream.asked.clear()
        lagging.wall.now += 2
        with pytest.raises(Unknown, match="not here yet"):
            await ask(CONTEXT, REDIS, digest)
        assert lagging.upstream.asked["missed"]
        lagging.upstream.asked.clear()


async def test_what_was_asked_for_before_it_was_pushed_is_there_when_it_is_named(
    lagging: LaggingRegistry,
) -> None:
    cache = lagging.build()
    image, layer = manifest_of(b"{}", b"layer", note="pushed later"), b"layer"
    for _ in range(8):  # again and again: so it is believed for long
        with pytest.raises(ManifestUnknown):
            await cache.manifest(CONTEXT, REDIS, Digest.of(image))
        with pytest.raises(BlobUnknown):
            await cache.blob(CONTEXT, REDIS, Digest.of(layer))
        lagging.wall.now += NEGATIVE_TTL
    lagging.upstream.push("8", image, b"{}", layer)
    digest = (await cache.resolve(CONTEXT, REDIS, "8")).descriptor.digest
    assert (await cache.manifest(CONTEXT, REDIS, digest)).data == image
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(layer))) == layer


async def test_what_was_asked_for_by_digest_just_before_it_was_pushed_is_there_soon(
    lagging: LaggingRegistry,
) -> None:
    cache = lagging.build()
    image = manifest_of(note="pushed later")
    with pytest.raises(ManifestUnknown):
        await cache.manifest(CONTEXT, REDIS, Digest.of(image))
    lagging.upstream.push("8", image)
    lagging.wall.now += 2
    assert (await cache.manifest(CONTEXT, REDIS, Digest.of(image))).data == image


async def test_what_nobody_names_is_asked_for_ever_more_seldom(lagging: LaggingRegistry) -> None:
    """Up to the configured time: a flood of one digest is no flood upstream."""
    cache = lagging.build()
    asked_at = []
    for second in range(200):
        lagging.upstream.asked.clear()
        with pytest.raises(BlobUnknown):
            await cache.blob(CONTEXT, REDIS, Digest.of(b"nowhere"))
        if lagging.upstream.asked["blob"]:
            asked_at.append(second)
        lagging.wall.now += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2
    assert set(pauses[5:]) == {NEGATIVE_TTL}


async def test_missing_digests_of_one_repository_do_not_push_out_anothers(
    lagging: LaggingRegistry,
) -> None:
    cache = lagging.build()
    with pytest.raises(BlobUnknown):
        await cache.blob(CONTEXT, OTHER, Digest.of(b"nowhere"))
    for number in range(2000):
        with pytest.raises(ManifestUnknown):
            await cache.manifest(CONTEXT, REDIS, Digest.of(b"%d" % number))
    lagging.upstream.asked.clear()
    with pytest.raises(BlobUnknown):
        await cache.blob(CONTEXT, OTHER, Digest.of(b"nowhere"))
    assert not lagging.upstream.asked


def test_what_is_remembered_as_missing_is_bounded(wall: HandClock) -> None:
    missing = NegativeCache(Clock(monotonic=wall))

    def remembered(repository: Repository, digest: Digest) -> bool:
        try:
            missing.check(repository, digest, 30.0)
        except Unknown:
            return True
        return False

    def fill(*asked: tuple[Repository, Digest]) -> int:
        for repository, digest in asked:
            missing.note(repository, digest, BlobUnknown("none"), 30.0)
        return sum(remembered(*each) for each in asked)

    digests = [Digest.of(b"%d" % number) for number in range(2000)]
    repositories = [Repository("docker.io", f"a/{number}") for number in range(2000)]
    assert 0 < fill(*((REDIS, digest) for digest in digests)) <= 256
    assert 0 < fill(*((repository, digests[0]) for repository in repositories)) <= 256


def frames_of_the_cache() -> int:
    gc.collect()
    frames = [each for each in gc.get_objects() if isinstance(each, FrameType)]
    return sum("/mirror/pullthrough/" in each.f_code.co_filename for each in frames)


async def test_of_what_is_missing_facts_are_remembered_and_no_frames(
    lagging: LaggingRegistry,
) -> None:
    cache = lagging.build()
    asks = (cache.manifest, cache.stat, cache.blob)
    before = frames_of_the_cache()
    for number in range(300):
        with pytest.raises(Unknown):
            await asks[number % 3](CONTEXT, REDIS, Digest.of(b"%d" % number))
    await asyncio.sleep(0)
    assert frames_of_the_cache() - before < 30
    with pytest.raises(BlobUnknown) as refused:
        await cache.blob(CONTEXT, REDIS, Digest.of(b"299"))
    assert refused.value.__context__ is None


async def test_a_fresh_tag_is_found_again_though_its_manifest_lags(
    lagging: LaggingRegistry, store: MemoryContent
) -> None:
    """The manifest has gone from here, and a replica lags when it is asked for again."""
    cache = lagging.build()
    digest = (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest
    await store.delete(digest)
    lagging.lag("manifest", 2)
    assert (await lagging.build().resolve(CONTEXT, REDIS, "7")).descriptor.digest == digest


@pytest.mark.parametrize("error", [BlobUnknown("hidden"), Denied("hidden")])
async def test_what_other_repositories_lack_is_never_held_against_this_one(
    lagging: LaggingRegistry, fills: Fills, monkeypatch: pytest.MonkeyPatch, error: Unknown | Denied
) -> None:
    """Though each download that it meets is theirs."""
    cache = lagging.build()
    join = fills.join

    def of_others(digest: Digest, *_: object) -> tuple[Fill, Outcome]:
        fill = Fill(digest, OTHER, 1)
        fill.fail(error)
        return fill, Outcome.JOINED

    monkeypatch.setattr(fills, "join", of_others)
    with pytest.raises(Unavailable):
        await cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    monkeypatch.setattr(fills, "join", join)
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(BIG))) == BIG
