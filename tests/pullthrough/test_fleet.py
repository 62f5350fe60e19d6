"""Nodes that fetch together: one download, whatever happens to who fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from mirror.clock import Clock
from mirror.contracts.context import RequestContext
from mirror.contracts.events import (
    FillEnded,
    FillSpilled,
    FleetAsked,
    FleetWentOn,
    UpstreamRejected,
)
from mirror.contracts.fleet import Holder, Wanted
from mirror.contracts.registry import FileContent
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, Unknown, Untrustworthy
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.parallel import ParallelPolicy
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.fleet.fetches import Fetch, Fetches
from mirror.pullthrough.fleet.following import Following
from mirror.pullthrough.fleet.together import Together
from mirror.pullthrough.shared import Shared
from mirror.times import Fleet

from ..fakes import FakeTags, FakeUpstream, MemoryContent, Recorder, manifest_of
from ..fakes.fleet import ListedNodes, MemoryLeases, MemoryNode, MemoryPeers, MemoryRedis
from ..waiting import eventually

REDIS = Repository("docker.io", "library/redis")
ASKER = RequestContext("1", "10.0.0.1")
LARGE = bytes(range(256)) * 16_384  # 4 MiB
DIGEST = Digest.of(LARGE)
WANTED = Wanted("docker.io", DIGEST)
HALF = len(LARGE) // 2
QUICK = Fleet(lease=0.4, silent=0.2, again=0.05)
URLS = tuple(f"http://10.0.0.{number}:5003" for number in (1, 2, 3))


class _Node:
    def __init__(self, url: str, upstream: FakeUpstream, fleet: _Fleet) -> None:
        self.url = url
        self.told = Recorder()
        self.store = MemoryContent()
        quick = DownloadPatience(first_byte=20, stalled=20, pause=0.01, longest_pause=0.02)
        self.fills = Fills(self.store, self.told, patience=quick, parting=fleet.parting)
        self.fetches = Fetches(MemoryLeases(fleet.redis, url), self.told)
        self.peers = MemoryPeers(fleet.nodes)
        nodes = ListedNodes(url, frozenset(URLS))
        self.following = Following(self.fetches, self.peers, nodes, self.told, Clock(), QUICK)
        shared = Shared.over(self.store, FakeTags(), self.fills)
        self.cache = PullThrough(Together(upstream, self.following), shared)
        fleet.nodes[url] = MemoryNode(self.store, self.fills, self.fetches.fetches)

    async def pull(self, digest: Digest = DIGEST, part: ByteRange | None = None) -> bytes:
        return await whole(await self.cache.blob(ASKER, REDIS, digest, part))

    async def close(self) -> None:
        await self.cache.close()
        await self.fills.close()
        await self.fetches.close()


@dataclass
class _Fleet:
    redis: MemoryRedis = field(default_factory=MemoryRedis)
    nodes: dict[str, MemoryNode] = field(default_factory=dict)
    parting: ParallelPolicy = field(default_factory=ParallelPolicy)

    async def kill(self, node: _Node) -> None:
        await node.peers.kill(node.url)
        for other in self.mine:
            await other.peers.kill(node.url)
        self.redis.kill(node.url)

    mine: list[_Node] = field(default_factory=list)


@pytest.fixture
async def fleet(upstream: FakeUpstream) -> AsyncIterator[_Fleet]:
    fleet = _Fleet()
    fleet.mine = [_Node(url, upstream, fleet) for url in URLS]
    upstream.blobs[DIGEST] = LARGE
    yield fleet
    await asyncio.gather(*(node.close() for node in fleet.mine))


async def whole(content: FileContent) -> bytes:
    return await rest_of(content, 0)


def stands_still(upstream: FakeUpstream, at: int, once: bool = True) -> asyncio.Event:
    """At this byte, the first stream that comes to it, or all, until this is set."""
    goes_on, reached = asyncio.Event(), list[int]()

    async def hold(position: int) -> None:
        if position >= at and (not once or not reached):
            reached.append(position)
            await goes_on.wait()

    upstream.before_read = hold  # type: ignore[assignment]
    return goes_on


async def test_a_blob_is_asked_of_the_registry_once(fleet: _Fleet, upstream: FakeUpstream) -> None:
    pulled = await asyncio.gather(*(node.pull() for node in fleet.mine))
    assert set(pulled) == {LARGE}
    assert (upstream.asked["blob"], upstream.blob_bytes) == (1, len(LARGE))
    results = sorted(event.result for node in fleet.mine for event in node.told.of(FleetAsked))
    assert results == ["fetches", "follows", "follows"]
    assert fleet.redis.held[WANTED].is_here


async def test_who_comes_later_is_sent_to_who_has_it(fleet: _Fleet, upstream: FakeUpstream) -> None:
    first, second, _ = fleet.mine
    await first.pull()
    assert await second.pull() == LARGE
    assert upstream.asked["blob"] == 1


async def test_a_node_that_has_lost_it_is_replaced(fleet: _Fleet, upstream: FakeUpstream) -> None:
    first, second, third = fleet.mine
    await first.pull()
    await first.store.delete(DIGEST)
    assert await second.pull() == LARGE
    assert upstream.asked["blob"] == 2
    assert await third.pull() == LARGE
    assert upstream.asked["blob"] == 2
    assert fleet.redis.held[WANTED] == Holder(second.url, is_here=True)


async def test_a_manifest_is_asked_of_the_registry_once(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    digest = upstream.push("8", manifest_of(b"{}", LARGE), b"{}")
    pulled = await asyncio.gather(
        *(node.cache.manifest(ASKER, REDIS, digest) for node in fleet.mine)
    )
    assert {content.data for content in pulled} == {upstream.manifests[digest]}
    assert upstream.asked["manifest"] == 1


async def test_what_the_registry_lacks_is_asked_for_by_one_at_a_time(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    missing = Digest.of(b"missing")
    refused = await asyncio.gather(
        *(node.pull(missing) for node in fleet.mine), return_exceptions=True
    )
    assert all(isinstance(error, Unknown) for error in refused)
    assert not fleet.redis.held


@pytest.mark.parametrize("at", [0, 1, HALF])
async def test_another_goes_on_from_the_byte_when_who_fetches_is_killed(
    fleet: _Fleet, upstream: FakeUpstream, at: int
) -> None:
    first, *others = fleet.mine
    held = stands_still(upstream, at)
    own = asyncio.create_task(first.pull())
    await eventually(lambda: upstream.asked["blob"] == 1)
    pulls = [asyncio.create_task(node.pull()) for node in others]
    await eventually(lambda: all(node.peers.asked for node in others))
    if at:
        await eventually(lambda: all(came(node) for node in others))
    await fleet.kill(first)
    assert set(await asyncio.gather(*pulls)) == {LARGE}
    assert upstream.asked["blob"] == 2
    rest = upstream.ranges[1]
    assert at == 0 or (rest is not None and rest.start > 0)
    held.set()
    assert await own == LARGE


def came(node: _Node) -> bool:
    fill = node.fills.running("docker.io", DIGEST)
    return fill is not None and fill.written > 0


async def test_who_is_slow_and_lives_is_waited_for(fleet: _Fleet, upstream: FakeUpstream) -> None:
    """Longer than a node is silent before its lease is looked at."""
    held = stands_still(upstream, HALF, once=False)
    pulls = [asyncio.create_task(node.pull()) for node in fleet.mine]
    await eventually(lambda: all(came(node) for node in fleet.mine))
    asked = fleet.redis.asked
    await eventually(lambda: fleet.redis.asked > asked + 4)  # several looks of each
    held.set()
    assert set(await asyncio.gather(*pulls)) == {LARGE}
    assert upstream.asked["blob"] == 1
    assert not [event for node in fleet.mine for event in node.told.of(FleetWentOn)]


async def test_who_is_frozen_is_left(fleet: _Fleet, upstream: FakeUpstream) -> None:
    first, second, _ = fleet.mine
    held = stands_still(upstream, HALF)
    own = asyncio.create_task(first.pull())
    await eventually(lambda: upstream.asked["blob"] == 1)
    pull = asyncio.create_task(second.pull())
    await eventually(lambda: came(second))
    fleet.nodes[first.url].answers.clear()
    fleet.redis.kill(first.url)
    assert await pull == LARGE
    (went_on,) = second.told.of(FleetWentOn)
    assert went_on.result == "fetches"
    held.set()
    assert await own == LARGE  # it wakes, and goes on


async def test_an_answer_that_comes_when_it_is_too_late_is_let_go(fleet: _Fleet) -> None:
    """While it is asked whether who is silent still fetches it, which it does not."""
    first, second, _ = fleet.mine
    await second.store.put(DIGEST, LARGE)
    node = fleet.nodes[second.url]
    node.answers.clear()
    asking = second.fetches.ask(WANTED)
    assert isinstance(await asking, Fetch)
    ask = first.fetches.ask

    async def late(wanted: Wanted, instead: Holder | None = None) -> Fetch | Holder | None:
        node.answers.set()
        await eventually(lambda: first.peers.streams)
        fleet.redis.kill(second.url)
        return await ask(wanted, instead)

    first.fetches.ask = late  # type: ignore[method-assign]
    holder = Holder(second.url)
    assert await first.following.content(second.url, holder, WANTED, None) is None
    [(_, stream)] = first.peers.streams
    assert not stream._is_open


async def test_who_is_cut_off_is_not_waited_for_again(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    """Its lease is kept up, and it is not reached: that its node lives is found out once."""
    other = b"other" * 300_000
    upstream.blobs[Digest.of(other)] = other
    first, second, _ = fleet.mine
    for digest in (DIGEST, Digest.of(other)):
        fleet.redis.held[Wanted("docker.io", digest)] = Holder(first.url)
    del fleet.nodes[first.url]
    assert await second.pull() == LARGE
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await second.pull(Digest.of(other)) == other
    assert loop.time() - began < QUICK.lease
    assert [event.result for event in second.told.of(FleetAsked)] == ["alone", "alone"]


async def test_without_redis_each_fetches_for_itself(fleet: _Fleet, upstream: FakeUpstream) -> None:
    fleet.redis.away = True
    pulled = await asyncio.gather(*(node.pull() for node in fleet.mine))
    assert set(pulled) == {LARGE}
    assert upstream.asked["blob"] == 3


async def test_redis_goes_while_others_follow(fleet: _Fleet, upstream: FakeUpstream) -> None:
    held = stands_still(upstream, HALF)
    pulls = [asyncio.create_task(node.pull()) for node in fleet.mine]
    await eventually(lambda: all(came(node) for node in fleet.mine))
    fleet.redis.away = True
    held.set()
    assert set(await asyncio.gather(*pulls)) == {LARGE}
    assert upstream.asked["blob"] == 1


async def test_a_node_that_has_enough_followers_sends_to_them(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    first, second, third = fleet.mine
    await first.pull()
    assert await second.pull() == LARGE
    fleet.nodes[first.url].others = (third.url, second.url, first.url, "http://evil:1")
    assert await third.pull() == LARGE
    assert upstream.asked["blob"] == 1
    assert {url for url, _ in third.peers.asked} == {first.url, second.url}


async def test_only_nodes_of_the_fleet_are_asked(fleet: _Fleet, upstream: FakeUpstream) -> None:
    fleet.redis.held[WANTED] = Holder("http://169.254.169.254:80")
    assert await fleet.mine[0].pull() == LARGE
    assert not fleet.mine[0].peers.asked


async def test_a_node_that_lies_is_fetched_around(fleet: _Fleet, upstream: FakeUpstream) -> None:
    first, second, _ = fleet.mine
    await first.pull()
    fleet.nodes[first.url].lies = True
    with pytest.raises(Untrustworthy):  # but for the end, its bytes were given out
        await second.pull()
    assert await second.pull() == LARGE
    assert upstream.asked["blob"] == 2
    assert UpstreamRejected("", "fleet") in second.told.seen


async def test_a_manifest_of_a_node_that_lies(fleet: _Fleet, upstream: FakeUpstream) -> None:
    digest = upstream.push("8", manifest_of(b"{}", LARGE), b"{}")
    first, second, _ = fleet.mine
    await first.cache.manifest(ASKER, REDIS, digest)
    fleet.nodes[first.url].lies = True
    content = await second.cache.manifest(ASKER, REDIS, digest)
    assert content.data == upstream.manifests[digest]
    assert UpstreamRejected("", "fleet") in second.told.seen


async def test_a_fill_that_fails_gives_its_lease_back(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    first, second, _ = fleet.mine
    upstream.down = Denied("not to this node")
    with pytest.raises(Denied):
        await first.pull()
    await eventually(lambda: not fleet.redis.held)
    upstream.down = None
    assert await second.pull() == LARGE


async def test_what_is_put_off_gives_its_lease_back(fleet: _Fleet, upstream: FakeUpstream) -> None:
    """What is fetched ahead keeps nobody waiting who wants it."""
    first, second, _ = fleet.mine
    stands_still(upstream, HALF)
    ahead = RequestContext("2", "ahead", is_ahead=True)
    content = await first.cache.blob(ahead, REDIS, DIGEST)
    await eventually(lambda: came(first))
    assert fleet.redis.held[WANTED] == Holder(first.url)
    content.close()
    await eventually(lambda: not fleet.redis.held)
    assert await second.pull() == LARGE


async def test_a_fill_that_the_disk_does_not_take_keeps_nobody_waiting(fleet: _Fleet) -> None:
    """Nobody can join it: also not when it asks anew, or has had no place on the disk at all."""
    first, second, _ = fleet.mine
    first.told.emit(FillSpilled(7, REDIS, DIGEST))
    assert await first.fetches.ask(WANTED) is None
    await eventually(lambda: not fleet.redis.held)
    assert isinstance(await second.fetches.ask(WANTED), Fetch)
    assert await first.fetches.ask(WANTED) == Holder(second.url)
    fleet.redis.kill(second.url)
    first.told.emit(FillEnded(7, REDIS, DIGEST, "uncached", 0))
    assert isinstance(await first.fetches.ask(WANTED), Fetch)


async def test_what_another_brings_is_not_asked_for_in_parts(upstream: FakeUpstream) -> None:
    parting = ParallelPolicy(over=1 << 20, fast=1e12, part=1 << 18, measure=0.02)
    fleet = _Fleet(parting=parting)
    fleet.mine = [_Node(url, upstream, fleet) for url in URLS]
    upstream.blobs[DIGEST] = LARGE
    first, second, _ = fleet.mine
    held = stands_still(upstream, HALF, once=False)
    pulls = [asyncio.create_task(node.pull()) for node in (first, second)]
    await eventually(lambda: came(second))
    await eventually(lambda: upstream.asked["blob"] > 1)  # its own, in parts
    held.set()
    assert set(await asyncio.gather(*pulls)) == {LARGE}
    # Where it goes on, at most: no part on its own.
    assert all(part is None or part.stop is None for _, part in second.peers.asked)
    assert len(second.peers.asked) <= 2
    await asyncio.gather(*(node.close() for node in fleet.mine))


async def test_who_has_stood_still_follows_who_fetches_by_now(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    first, second, _ = fleet.mine
    held = stands_still(upstream, HALF)
    own = asyncio.create_task(first.pull())
    await eventually(lambda: came(first))
    fleet.redis.kill(first.url)
    assert await second.pull() == LARGE
    before = upstream.blob_bytes
    held.set()
    assert await own == LARGE
    assert upstream.blob_bytes - before <= upstream.piece
    assert [event.result for event in first.told.of(FleetWentOn)] == ["follows"]


async def test_who_has_lost_its_lease_and_has_all_asks_nobody(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    first, second, _ = fleet.mine

    async def lose(position: int) -> None:
        if position == len(LARGE) - upstream.piece:  # with the last bytes
            fleet.redis.held[WANTED] = Holder(second.url)

    upstream.before_read = lose  # type: ignore[assignment]
    assert await first.pull() == LARGE
    assert first.peers.asked == []
    assert upstream.asked["blob"] == 1


async def test_a_range_comes_from_who_fetches_the_whole(
    fleet: _Fleet, upstream: FakeUpstream
) -> None:
    """As a client asks for it that was cut at another node."""
    first, second, third = fleet.mine
    held = stands_still(upstream, HALF)
    own = asyncio.create_task(first.pull())
    await eventually(lambda: came(first))
    content = await second.cache.blob(ASKER, REDIS, DIGEST, ByteRange(1 << 20))
    assert await content.readable(1 << 20) > 1 << 20  # before the whole is there
    held.set()
    assert await rest_of(content, 1 << 20) == LARGE[1 << 20 :]
    assert await own == LARGE
    part = await third.cache.blob(ASKER, REDIS, DIGEST, ByteRange(HALF, HALF + 1000))
    assert (await rest_of(part, HALF))[:1000] == LARGE[HALF : HALF + 1000]
    assert upstream.asked["blob"] == 1


async def rest_of(content: FileContent, start: int) -> bytes:
    data = bytearray()
    try:
        while (readable := await content.readable(start + len(data))) > start + len(data):
            at = start + len(data)
            data += content.pread(readable - at, at)
        return bytes(data)
    finally:
        content.close()
