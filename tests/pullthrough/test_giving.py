"""What a node gives to others of its fleet: what is here, and what comes, to so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mirror.clock import Clock
from mirror.contracts.events import ContentCommitted, FillSpilled, PeerFollowing
from mirror.contracts.fleet import Elsewhere, Wanted
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError, Unavailable
from mirror.oci.ranges import ByteRange
from mirror.pullthrough import giving
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.fill import HELD_BACK, SMALL
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.giving import MOST, Given, Giving
from mirror.pullthrough.shared import Shared

from ..fakes import CONTEXT, FakeTags, FakeUpstream, MemoryContent, Recorder
from ..waiting import eventually
from .test_fills import BIG, LITTLE, REDIS, Break, Hold, big, little, read_all

__all__ = ["big", "little"]


class Held:
    """A Holding of what the test says."""

    def __init__(self) -> None:
        self.wanted: set[Wanted] = set()

    def fetches(self, wanted: Wanted) -> bool:
        return wanted in self.wanted


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving, "FLEET", replace(giving.FLEET, small=0.3, silent=0.2))


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
async def gives(
    store: MemoryContent, fills: Fills, held: Held, told: Recorder
) -> AsyncIterator[Giving]:
    gives = Giving(store, fills, held, told, Clock())
    yield gives
    await gives.close()
    assert sum(event.more for event in told.of(PeerFollowing)) == 0


def wanted(digest: Digest) -> Wanted:
    return Wanted("docker.io", digest)


async def from_offset(given: Given, start: int) -> bytes:
    data = b""
    content = given.content
    try:
        while start + len(data) < given.size:
            limit = await content.readable(start + len(data))
            assert limit > start + len(data)
            data += content.pread(limit - start - len(data), start + len(data))
    finally:
        given.close()
    return data


async def test_what_is_here_is_given(
    cache: PullThrough, gives: Giving, upstream: FakeUpstream, big: Digest
) -> None:
    assert await gives.content(wanted(big), None, "b") is None
    await read_all(await cache.blob(CONTEXT, REDIS, big))
    given = await gives.content(wanted(big), None, "b")
    assert isinstance(given, Given)
    assert not given.growing
    assert await from_offset(given, 7) == BIG[7:]
    assert upstream.asked["blob"] == 1


async def test_what_comes_is_given_at_its_pace_and_its_end_once_proven(
    cache: PullThrough, gives: Giving, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=2 * SMALL)
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    given = await gives.content(wanted(big), None, "b")
    assert isinstance(given, Given)
    assert (given.size, given.growing) == (len(BIG), True)
    assert SMALL < await given.content.readable(0) <= 2 * SMALL
    reading = asyncio.create_task(from_offset(given, 1000))
    assert await gives.content(wanted(big), ByteRange(len(BIG) - 10), "c") is None  # no more yet
    hold.go.set()
    assert await reading == BIG[1000:]
    assert await read_all(client) == BIG
    assert upstream.asked["blob"] == 1


async def test_the_last_of_it_waits_for_the_proof(
    cache: PullThrough, gives: Giving, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=len(BIG))
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    given = await gives.content(wanted(big), None, "b")
    assert isinstance(given, Given)
    assert await given.content.readable(0) == len(BIG) - HELD_BACK
    hold.go.set()
    assert await from_offset(given, 0) == BIG
    client.close()


async def test_a_ninth_is_sent_to_the_eight(
    cache: PullThrough, gives: Giving, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=SMALL)
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    given = [await gives.content(wanted(big), None, f"n{n}") for n in range(MOST)]
    assert all(isinstance(each, Given) for each in given)
    ninth = await gives.content(wanted(big), None, "late")
    assert ninth == Elsewhere(tuple(f"n{n}" for n in range(MOST)))
    again = await gives.content(wanted(big), ByteRange(5), "n3")  # one more stream, no more nodes
    assert isinstance(again, Given)
    again.close()
    assert isinstance(given[0], Given)
    given[0].close()
    given[0].close()
    tenth = await gives.content(wanted(big), None, "late")
    assert isinstance(tenth, Given)
    for each in (tenth, *given):
        assert isinstance(each, Given)
        each.close()
    client.close()
    hold.go.set()


async def test_no_ring_nobody_is_given_to_by_who_has_no_more(
    cache: PullThrough, gives: Giving, held: Held, upstream: FakeUpstream, big: Digest
) -> None:
    """Not of what this node has from others, as it seems; of what it holds the lease of it is:
    that comes from no other node."""
    hold = Hold(upstream, at=2 * SMALL)
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    there = await client.readable(0)
    equal = ByteRange(there)
    assert await gives.content(wanted(big), equal, "b") is None
    held.wanted.add(wanted(big))
    asking = asyncio.create_task(gives.content(wanted(big), equal, "b"))
    await asyncio.wait([asking], timeout=0.5)
    assert not asking.done()
    hold.go.set()
    given = await asking
    assert isinstance(given, Given)
    assert await from_offset(given, there) == BIG[there:]
    assert await read_all(client) == BIG


async def test_a_part_far_ahead_is_fetched_for_its_own_sake(
    cache: PullThrough,
    gives: Giving,
    upstream: FakeUpstream,
    big: Digest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(giving, "_SOON", 0)
    monkeypatch.setattr(giving, "FLEET", replace(giving.FLEET, silent=10.0))
    hold = Hold(upstream, at=SMALL)
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    upstream.before_read = None  # of streams that are begun from now on
    part = ByteRange(2 * SMALL, 2 * SMALL + 1000)
    given = await gives.content(wanted(big), part, "b")
    assert isinstance(given, Given)
    assert await given.content.readable(part.start) >= part.start + 1000
    given.close()
    hold.go.set()
    assert await read_all(client) == BIG


async def test_small_content_of_which_the_lease_is_held_is_waited_for(
    cache: PullThrough, gives: Giving, held: Held, upstream: FakeUpstream, little: Digest
) -> None:
    held.wanted.add(wanted(little))
    asking = asyncio.create_task(gives.content(wanted(little), None, "b"))
    await asyncio.sleep(0)
    assert await read_all(await cache.blob(CONTEXT, REDIS, little)) == LITTLE
    given = await asking
    assert isinstance(given, Given)
    assert await from_offset(given, 0) == LITTLE


async def test_but_not_for_ever_and_of_others_not_at_all(
    gives: Giving, held: Held, little: Digest
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await gives.content(wanted(little), None, "b") is None
    assert loop.time() - began < 0.2
    held.wanted.add(wanted(little))
    assert await gives.content(wanted(little), None, "b") is None
    assert loop.time() - began >= 0.3


async def test_a_fill_that_fails_is_told_of(
    cache: PullThrough, gives: Giving, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=SMALL)
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    given = await gives.content(wanted(big), None, "b")
    assert isinstance(given, Given)
    Break(upstream, *[0] * 1000)
    hold.go.set()
    with pytest.raises(RegistryError):
        await from_offset(given, 0)
    client.close()


async def test_another_node_is_a_client_whose_own_has_left(
    cache: PullThrough, fills: Fills, gives: Giving, upstream: FakeUpstream, big: Digest
) -> None:
    hold = Hold(upstream, at=SMALL)
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    given = await gives.content(wanted(big), None, "http://b:1")
    assert isinstance(given, Given)
    client.close()
    fill = fills.running("docker.io", big)
    assert fill is not None
    assert fill.is_wanted
    assert "http://b:1" in fill.clients
    hold.go.set()
    assert await from_offset(given, 0) == BIG
    await eventually(lambda: fills.running("docker.io", big) is None)


async def test_where_the_disk_takes_no_more_others_go_elsewhere_and_hold_up_nobody(
    upstream: FakeUpstream, held: Held, told: Recorder, big: Digest
) -> None:
    store = MemoryContent(2 * SMALL)
    upstream.says_size = False  # so that it is found out midway
    fills = Fills(store, told)
    gives = Giving(store, fills, held, told, Clock())
    held.wanted.add(wanted(big))
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), fills))
    hold = Hold(upstream, at=SMALL + SMALL // 2)
    client = await cache.blob(CONTEXT, REDIS, big)
    await hold.reached.wait()
    fill = fills.running("docker.io", big)
    assert fill is not None
    fill.size = len(BIG)
    given = await gives.content(wanted(big), None, "b")  # and reads nothing
    assert isinstance(given, Given)
    hold.go.set()
    async with asyncio.timeout(10):
        assert await read_all(client) == BIG
    with pytest.raises(Unavailable):
        await given.content.readable(0)
    given.close()
    assert not told.of(ContentCommitted)
    [_] = told.of(FillSpilled)
    await cache.close()
    await fills.close()
    await gives.close()
