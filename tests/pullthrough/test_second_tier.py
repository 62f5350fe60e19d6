"""Content behind the disk: asked before the upstream, never trusted, never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.context import RequestContext
from mirror.contracts.events import (
    ContentCommitted,
    SecondTierAsked,
    SecondTierGiven,
    SecondTierWrong,
    UpstreamRejected,
)
from mirror.contracts.registry import FileContent
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable, Untrustworthy
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository
from mirror.policy.visibility import Proofs, RepositoryVisibility
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.far_uploads import FarNotes, FarUploads, UploadPace
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.second_tier import NAME, Tiered, TierPatience, TierState
from mirror.pullthrough.shared import Shared
from mirror.storage.records.links import LinkRecords
from mirror.tasks import beside
from mirror.times import STORES

from ..fakes import (
    FakeTags,
    FakeUpstream,
    MemoryContent,
    MemoryFar,
    MemoryFarContent,
    MemoryTier,
    Recorder,
    manifest_of,
)
from ..fakes.fleet import MemoryLeases, MemoryRedis

REDIS = Repository("docker.io", "library/redis")
ASKER = RequestContext("1", "10.0.0.1")
SMALL, LARGE = b"small" * 1000, bytes(range(256)) * 16_384  # 4 MiB
QUICK = UploadPace(
    look=0.05, pause=0.02, longest_pause=0.1, passed_over=0.1, longest_passed_over=0.2
)
MOST = 2.0  # seconds by which a tier delays a pull at most


@pytest.fixture
def tier() -> MemoryTier:
    return MemoryTier()


@pytest.fixture
async def state(tier: MemoryTier, told: Recorder) -> TierState:
    return TierState(tier, told, Clock())


@pytest.fixture
def records(store: MemoryContent, told: Recorder) -> MemoryFar:
    return MemoryFar(store, told)


@pytest.fixture
async def uploads(state: TierState, records: MemoryFar) -> AsyncIterator[None]:
    notes = FarNotes(state, records)
    async with beside(FarUploads(state, records, Clock(), QUICK).run(), "uploads"):
        yield
    await notes.close()
    await state.close()


@pytest.fixture
async def tiered(
    upstream: FakeUpstream, state: TierState, store: MemoryContent, tags: FakeTags, fills: Fills
) -> AsyncIterator[PullThrough]:
    cache = PullThrough(Tiered(upstream, state), Shared.over(store, tags, fills))
    yield cache
    await cache.close()


def keep(tier: MemoryTier, data: bytes, digest: Digest | None = None) -> None:
    tier.kept[digest or Digest.of(data)] = data


async def whole(content: FileContent) -> bytes:
    data = bytearray()
    try:
        while (readable := await content.readable(len(data))) > len(data):
            data += content.pread(readable - len(data), len(data))
        return data
    finally:
        content.close()


async def pulled(cache: PullThrough, digest: Digest) -> bytes:
    """As a client that asks again once what it was given is known to be wrong."""
    with contextlib.suppress(Untrustworthy):
        return await whole(await cache.blob(ASKER, REDIS, digest))
    return await whole(await cache.blob(ASKER, REDIS, digest))


async def eventually(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():
            await asyncio.sleep(0.01)


class FrozenOnce(MemoryTier):
    """Is quick, in a thread of its own; the process stands still once in each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen: set[str] = set()

    async def wait(self, operation: str) -> None:
        if operation not in self.frozen:
            self.frozen.add(operation)
            asyncio.get_running_loop().call_soon(time.sleep, 0.6)
        await asyncio.to_thread(time.sleep, 0.01)


async def test_a_process_that_stood_still_goes_on_with_what_has_come(
    told: Recorder, upstream: FakeUpstream, store: MemoryContent, tags: FakeTags, fills: Fills
) -> None:
    tier = FrozenOnce()
    state = TierState(tier, told, Clock(), TierPatience(ask=0.2, silent=0.2, once=0.2))
    cache = PullThrough(Tiered(upstream, state), Shared.over(store, tags, fills))
    keep(tier, LARGE)
    assert await whole(await cache.blob(ASKER, REDIS, Digest.of(LARGE))) == LARGE
    assert upstream.asked["blob"] == 0
    assert not state.is_away
    assert tier.frozen == {"get", "read"}
    await cache.close()


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_a_blob_of_the_tier_is_not_asked_of_the_upstream(
    tiered: PullThrough,
    tier: MemoryTier,
    upstream: FakeUpstream,
    store: MemoryContent,
    data: bytes,
) -> None:
    keep(tier, data)
    assert await whole(await tiered.blob(ASKER, REDIS, Digest.of(data))) == data
    assert upstream.asked["blob"] == 0
    content = await store.open(Digest.of(data))
    assert content is not None
    content.close()


async def test_a_manifest_of_the_tier_is_not_asked_of_the_upstream(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    manifest = manifest_of(SMALL)
    keep(tier, manifest)
    content = await tiered.manifest(ASKER, REDIS, Digest.of(manifest))
    assert content.data == manifest
    assert upstream.asked["manifest"] == 0


async def test_what_was_fetched_is_given_to_the_tier(
    tiered: PullThrough, uploads: None, tier: MemoryTier, upstream: FakeUpstream,
    told: Recorder,
) -> None:  # fmt: skip
    manifest = manifest_of(LARGE)
    digest = upstream.push("7", manifest, LARGE)
    await tiered.manifest(ASKER, REDIS, digest)
    await whole(await tiered.blob(ASKER, REDIS, Digest.of(LARGE)))
    await eventually(lambda: [given.kept for given in told.of(SecondTierGiven)] == [True] * 2)
    assert await tier.contains(digest)
    assert await tier.contains(Digest.of(LARGE))


@pytest.mark.parametrize("hangs", ["get", "read"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_silent_tier_delays_the_first_blob_and_no_other(
    tiered: PullThrough,
    tier: MemoryTier,
    upstream: FakeUpstream,
    data: bytes,
    hangs: str,
) -> None:
    other = b"other" + data
    upstream.push("7", manifest_of(data), data, other)
    keep(tier, data)
    tier.hangs = hangs
    async with asyncio.timeout(MOST + 1):  # of which one second is the machine's
        assert await whole(await tiered.blob(ASKER, REDIS, Digest.of(data))) == data
    asked = tier.asked
    assert await whole(await tiered.blob(ASKER, REDIS, Digest.of(other))) == other
    assert tier.asked == asked


async def test_a_tier_that_refuses_is_passed_over_and_is_told_of_as_away(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream, told: Recorder
) -> None:
    upstream.push("7", manifest_of(SMALL), SMALL)
    keep(tier, SMALL)
    tier.fails = "get"
    assert await whole(await tiered.blob(ASKER, REDIS, Digest.of(SMALL))) == SMALL
    assert told.of(SecondTierAsked) == [SecondTierAsked("away")]


async def test_a_silent_tier_does_not_keep_a_manifest_back(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    digest = upstream.push("7", manifest_of(SMALL), SMALL)
    tier.hangs = "get"
    async with asyncio.timeout(MOST + 1):
        assert (await tiered.manifest(ASKER, REDIS, digest)).data == manifest_of(SMALL)


async def test_a_tier_that_breaks_off_is_followed_by_the_upstream_from_there(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    upstream.push("7", manifest_of(LARGE), LARGE)
    keep(tier, LARGE)
    tier.hangs = "read"
    assert await whole(await tiered.blob(ASKER, REDIS, Digest.of(LARGE))) == LARGE
    assert upstream.ranges == [ByteRange(1 << 20)]


async def test_an_upstream_that_sends_the_whole_goes_on_from_there_too(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    upstream.push("7", manifest_of(LARGE), LARGE)
    upstream.takes_ranges, upstream.piece = False, 100_000  # the MiB ends within one of them
    keep(tier, LARGE)
    tier.hangs = "read"
    assert await whole(await tiered.blob(ASKER, REDIS, Digest.of(LARGE))) == LARGE
    assert upstream.asked["blob"] == 1


async def test_bytes_of_the_tier_are_given_out_as_they_come_but_for_the_end(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    upstream.push("7", manifest_of(LARGE), LARGE)
    keep(tier, LARGE)
    tier.hangs = "read"  # after the first piece
    content = await tiered.blob(ASKER, REDIS, Digest.of(LARGE))
    async with asyncio.timeout(STORES.tier_silent / 2):
        assert await content.readable(1 << 19) == 1 << 20
    assert upstream.asked["blob"] == 0
    assert await whole(content) == LARGE


async def test_a_range_of_the_tier_is_not_asked_of_the_upstream(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    keep(tier, LARGE)
    start, stop = 2_000_000, 2_300_000
    content = await tiered.blob(ASKER, REDIS, Digest.of(LARGE), ByteRange(start, stop))
    data = bytearray()
    while start + len(data) < stop:
        readable = await content.readable(start + len(data))
        data += content.pread(readable - start - len(data), start + len(data))
    content.close()
    assert data[: stop - start] == LARGE[start:stop]
    assert upstream.asked["blob"] == 0


@pytest.mark.parametrize(
    "wrong",
    [b"\0" * len(LARGE), LARGE[:-1], LARGE + b"\0"],
    ids=["other bytes", "shorter", "longer"],
)
async def test_a_lying_tier_is_found_out_and_put_right(
    tiered: PullThrough,
    uploads: None,
    tier: MemoryTier,
    upstream: FakeUpstream,
    told: Recorder,
    wrong: bytes,
) -> None:
    digest = Digest.of(LARGE)
    upstream.push("7", manifest_of(LARGE), LARGE)
    keep(tier, wrong, digest)
    assert await pulled(tiered, digest) == LARGE
    assert told.of(UpstreamRejected) == [UpstreamRejected("", NAME)]
    await eventually(lambda: tier.kept[digest] == LARGE)


async def test_a_wrong_manifest_of_the_tier_is_passed_over(
    tiered: PullThrough, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    digest = upstream.push("7", manifest_of(SMALL), SMALL)
    keep(tier, manifest_of(LARGE), digest)
    assert (await tiered.manifest(ASKER, REDIS, digest)).data == manifest_of(SMALL)


async def test_what_a_full_tier_does_not_take_is_counted_and_given_again(
    tiered: PullThrough,
    uploads: None,
    tier: MemoryTier,
    upstream: FakeUpstream,
    told: Recorder,
) -> None:
    tier.takes = False
    upstream.push("7", manifest_of(SMALL), SMALL)
    assert await whole(await tiered.blob(ASKER, REDIS, Digest.of(SMALL))) == SMALL
    await eventually(lambda: len(told.of(SecondTierGiven)) == 2)
    tier.takes = True
    await eventually(lambda: told.of(SecondTierGiven)[-1].kept)
    assert tier.kept == {Digest.of(SMALL): SMALL}


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_the_tier_opens_nothing_that_the_registry_has_not_shown(
    tiered: PullThrough,
    tier: MemoryTier,
    state: TierState,
    upstream: FakeUpstream,
    tmp_path: Path,
    data: bytes,
) -> None:
    manifest = manifest_of(data)
    keep(tier, data)
    keep(tier, manifest)
    links = LinkRecords(tmp_path / "links.db", Clock(), lambda digest: False)
    guard = RepositoryVisibility(
        tiered, upstream, links, Clock(), Proofs(hold=0.1), strangers=state.has
    )
    upstream.down = Unavailable("the registry is away")
    with pytest.raises(Unavailable):
        await guard.blob(ASKER, REDIS, Digest.of(data))
    asks = [guard.manifest(ASKER, REDIS, Digest.of(manifest)) for _ in range(3)]
    answers = await asyncio.gather(*asks, return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    await guard.close()
    await links.close()


@pytest.fixture
async def guard(
    tiered: PullThrough, state: TierState, upstream: FakeUpstream, tmp_path: Path
) -> AsyncIterator[RepositoryVisibility]:
    links = LinkRecords(tmp_path / "links.db", Clock(), lambda digest: False)
    guard = RepositoryVisibility(tiered, upstream, links, Clock(), strangers=state.has)
    yield guard
    await guard.close()
    await links.close()


async def test_what_the_tier_lacks_is_proven_by_its_delivery_and_costs_no_ask_more(
    guard: RepositoryVisibility, upstream: FakeUpstream
) -> None:
    manifest = upstream.push("7", manifest_of(SMALL), SMALL)
    await guard.manifest(ASKER, REDIS, manifest)
    await whole(await guard.blob(ASKER, REDIS, Digest.of(SMALL)))
    assert upstream.asked == {"manifest": 1, "blob": 1}


async def test_what_the_repository_has_shown_comes_from_the_tier_without_an_ask(
    guard: RepositoryVisibility, tier: MemoryTier, upstream: FakeUpstream
) -> None:
    manifest = upstream.push("7", manifest_of(SMALL), SMALL)
    keep(tier, SMALL)
    await guard.resolve(ASKER, REDIS, "7")
    await guard.manifest(ASKER, REDIS, manifest)
    upstream.asked.clear()
    await whole(await guard.blob(ASKER, REDIS, Digest.of(SMALL)))
    assert "stat" not in upstream.asked
    assert "blob" not in upstream.asked


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_one_ask_of_the_tier_says_that_it_has_a_content_and_brings_it(
    guard: RepositoryVisibility, tier: MemoryTier, upstream: FakeUpstream, data: bytes
) -> None:
    upstream.push("7", manifest_of(data), data)
    keep(tier, data)
    tier.hangs = "contains"  # the other way to ask
    assert await whole(await guard.blob(ASKER, REDIS, Digest.of(data))) == data
    assert tier.asked == 1
    assert upstream.asked == {"stat": 1}


@pytest.mark.parametrize("operation", ["get", "read", "put", "contains"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_tier_that_hangs_or_fails_in_any_operation_holds_no_pull_back(
    guard: RepositoryVisibility,
    uploads: None,
    tier: MemoryTier,
    upstream: FakeUpstream,
    operation: str,
    data: bytes,
) -> None:
    manifest = upstream.push("7", manifest_of(data), data)
    keep(tier, data)
    tier.fails = operation
    async with asyncio.timeout(MOST + 1):
        await guard.manifest(ASKER, REDIS, manifest)
        assert await whole(await guard.blob(ASKER, REDIS, Digest.of(data))) == data
    other = b"other" + data
    manifest = upstream.push("8", manifest_of(other), other)
    keep(tier, other)
    tier.fails, tier.hangs = "", operation
    async with asyncio.timeout(MOST + 1):
        await guard.manifest(ASKER, REDIS, manifest)
        assert await whole(await guard.blob(ASKER, REDIS, Digest.of(other))) == other


async def test_a_tier_that_loses_its_files_is_given_them_again_when_they_come_again(
    tiered: PullThrough,
    uploads: None,
    tier: MemoryTier,
    upstream: FakeUpstream,
    store: MemoryContent,
    told: Recorder,
) -> None:
    digest = Digest.of(SMALL)
    upstream.push("7", manifest_of(SMALL), SMALL)
    for times in (1, 2):
        assert await whole(await tiered.blob(ASKER, REDIS, digest)) == SMALL
        await eventually(lambda: len(told.of(SecondTierGiven)) == times)  # noqa: B023
        tier.kept.clear()
        await store.delete(digest)


async def test_one_registrys_flood_keeps_back_nothing_that_the_tier_is_to_be_given_of_another(
    state: TierState, tier: MemoryTier, store: MemoryContent, told: Recorder
) -> None:
    records = MemoryFar(store, told)
    flood = [await _committed(store, told, "docker.io", bytes([n])) for n in range(20)]
    rare = await _committed(store, told, "ghcr.io", b"rare")
    one_by_one = FarUploads(state, records, Clock(), replace(QUICK, at_once=1))
    async with beside(one_by_one.run(), "uploads"):
        await eventually(lambda: len(told.of(SecondTierGiven)) == 21)
    given = [event.digest for event in told.of(SecondTierGiven)]
    assert given.index(rare) < 3
    assert given.index(flood[0]) < 5 > given.index(flood[-1])  # the oldest and the newest in turn
    assert set(tier.kept) == {rare, *flood}


async def test_what_nodes_of_a_fleet_got_together_is_given_by_one_of_them(
    tier: MemoryTier,
) -> None:
    """The others look later, and go on where that one dies."""
    redis, nodes = MemoryRedis(), []
    tier.hangs = "put"
    async with contextlib.AsyncExitStack() as stack:
        for url in ("http://10.0.0.1:5003", "http://10.0.0.2:5003"):
            told, store = Recorder(), MemoryContent()
            records = MemoryFar(store, told)
            digest = await _committed(store, told, "docker.io", LARGE)
            uploads = FarUploads(
                TierState(tier, told, Clock()),
                records,
                Clock(),
                replace(QUICK, passed_over=0.02, longest_passed_over=0.02),
                MemoryLeases(redis, url),
            )
            await stack.enter_async_context(beside(uploads.run(), "uploads"))
            nodes.append(told)
        await eventually(lambda: redis.asked > 5)
        (held,) = redis.held.values()
        assert tier.puts == 1
        redis.kill(held.url)  # it has stopped, and puts no more
        await eventually(lambda: tier.puts == 2)
        assert not any(told.of(SecondTierGiven) for told in nodes)
    assert digest not in tier.kept


async def test_what_is_wrong_in_an_object_store_is_set_aside_there_and_put_right(
    store: MemoryContent, tier: MemoryTier, upstream: FakeUpstream, tags: FakeTags, fills: Fills,
    told: Recorder, wrong_far: Digest,
) -> None:  # fmt: skip
    far, records = MemoryFarContent(tier), MemoryFar(store, told)
    state = TierState(tier, told, Clock(), far=far)
    notes = FarNotes(state, records)
    cache = PullThrough(Tiered(upstream, state), Shared.over(store, tags, fills))
    wrong = tier.kept[wrong_far]
    async with beside(FarUploads(state, records, Clock(), QUICK).run(), "uploads"):
        assert await pulled(cache, wrong_far) == LARGE
        await eventually(lambda: tier.kept.get(wrong_far) == LARGE)
    assert far.aside == {wrong_far: wrong}
    assert told.of(SecondTierWrong) == [SecondTierWrong(wrong_far, set_aside=True)]
    await cache.close()
    await notes.close()
    await state.close()


async def test_what_could_not_be_set_aside_is_when_it_can_be(
    store: MemoryContent, tier: MemoryTier, upstream: FakeUpstream, tags: FakeTags, fills: Fills,
    told: Recorder, wrong_far: Digest,
) -> None:  # fmt: skip
    far, records = MemoryFarContent(tier), MemoryFar(store, told)
    far.refuses, wrong = True, tier.kept[wrong_far]
    state = TierState(tier, told, Clock(), far=far)
    notes = FarNotes(state, records)
    cache = PullThrough(Tiered(upstream, state), Shared.over(store, tags, fills))
    async with beside(FarUploads(state, records, Clock(), QUICK).run(), "uploads"):
        assert await pulled(cache, wrong_far) == LARGE
        await eventually(lambda: len(told.of(SecondTierGiven)) > 1)
        assert tier.kept[wrong_far] == wrong
        far.refuses = False
        await eventually(lambda: tier.kept.get(wrong_far) == LARGE)
    assert far.aside == {wrong_far: wrong}
    assert told.of(SecondTierWrong) == [SecondTierWrong(wrong_far, set_aside=False)]
    await cache.close()
    await notes.close()
    await state.close()


@pytest.fixture(params=["other bytes", "shorter", "longer"])
def wrong_far(request: pytest.FixtureRequest, tier: MemoryTier, upstream: FakeUpstream) -> Digest:
    upstream.push("7", manifest_of(LARGE), LARGE)
    wrongs = {
        "other bytes": bytes(len(LARGE)),
        "shorter": LARGE[:-1],
        "longer": LARGE + bytes(1),
    }
    keep(tier, wrongs[request.param], Digest.of(LARGE))
    return Digest.of(LARGE)


async def _committed(store: MemoryContent, told: Recorder, registry: str, data: bytes) -> Digest:
    digest = Digest.of(data)
    await store.put(digest, data)
    repository = Repository(registry, "library/redis")
    told.emit(ContentCommitted(digest, len(data), repository, ("hub",), "", ()))
    return digest
