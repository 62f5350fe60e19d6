"""Leases in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from mirror.contracts.events import LeasesSwitched, TagStoreSwitched
from mirror.contracts.fleet import Holder, Wanted
from mirror.oci.digest import Digest
from mirror.redis_url import RedisAccess
from mirror.storage.fleet.leases import LeasePeriods, RedisLeases
from mirror.storage.redis_client import redis_client

from ..fakes import Recorder
from ..redis_server import RedisServer
from ..waiting import eventually

WANTED = Wanted("docker.io", Digest.of(b"layer"))
KEY = f"registry-mirror:1:fleet:lease:docker.io:{WANTED.digest}"
ONE, TWO = "http://10.0.0.1:5003", "http://10.0.0.2:5003"
QUICK = LeasePeriods(limit=1.0, lease=0.6, renew=0.1, pauses=(0.05, 0.1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")).start() as server:
        yield server


class Leases(RedisLeases):
    """Of a node, over a line of its own."""

    def __init__(
        self, url: str, server: RedisServer, secret: bytes = b"secret", **periods: float
    ) -> None:
        self.told = Recorder()
        client = redis_client(RedisAccess(server.url), 1.0)
        super().__init__(client, url, secret, self.told, QUICK)

    @property
    def works(self) -> list[bool]:
        return [event.works for event in self.told.of(LeasesSwitched)]


@pytest.fixture
async def raw(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis(host=server.host, port=server.port)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def one(server: RedisServer, raw: Redis) -> AsyncIterator[Leases]:
    leases = Leases(ONE, server)
    yield leases
    await leases.close()


@pytest.fixture
async def two(server: RedisServer, raw: Redis) -> AsyncIterator[Leases]:
    leases = Leases(TWO, server)
    yield leases
    await leases.close()


async def test_one_has_it_and_keeps_it_up(one: Leases, two: Leases, raw: Redis) -> None:
    lease = await one.ask(WANTED)
    assert lease is not None
    assert not isinstance(lease, Holder)
    for _ in range(3):  # longer than a lease
        await asyncio.sleep(QUICK.lease / 2)
        held = await two.ask(WANTED)
        assert isinstance(held, Holder)
        assert (held.url, held.is_here) == (ONE, False)
    await lease.give_back()
    await free(two)


async def free(leases: Leases) -> None:
    async with asyncio.timeout(10):
        while isinstance(await leases.ask(WANTED), Holder):
            await asyncio.sleep(0.02)


async def test_it_lapses_when_nobody_keeps_it_up(one: Leases, two: Leases) -> None:
    await one.ask(WANTED)
    assert one._keeping is not None
    one._keeping.cancel()
    await free(two)


async def test_who_has_it_is_told_and_can_be_replaced(one: Leases, two: Leases, raw: Redis) -> None:
    lease = await one.ask(WANTED)
    assert lease is not None
    assert not isinstance(lease, Holder)
    await lease.has_come()
    assert 590_000 < await raw.pttl(KEY) <= 600_000
    held = await two.ask(WANTED)
    assert isinstance(held, Holder)
    assert held.is_here
    taken = await two.ask(WANTED, instead=held)
    assert not isinstance(taken, Holder)
    assert taken is not None
    assert isinstance(await one.ask(WANTED, instead=held), Holder)  # it is another's by now


async def test_a_node_is_not_its_own_holder(one: Leases, server: RedisServer) -> None:
    """Another process of it, or the one before it."""
    first, beside = await one.ask(WANTED), Leases(ONE, server)
    lease = await beside.ask(WANTED)
    assert lease is not None
    assert not isinstance(lease, Holder)
    await lease.has_come()
    assert not isinstance(await one.ask(WANTED), Holder)
    assert first is not None
    await beside.close()


async def test_a_note_does_not_replace_another_lease(one: Leases, two: Leases, raw: Redis) -> None:
    lease = await one.ask(WANTED)
    assert lease is not None
    assert not isinstance(lease, Holder)
    await raw.delete(KEY)  # as when it has lapsed
    await two.ask(WANTED)
    await lease.has_come()
    held = await one.ask(WANTED)
    assert isinstance(held, Holder)
    assert (held.url, held.is_here) == (TWO, False)


async def test_what_nobody_has_signed_directs_nobody(
    one: Leases, server: RedisServer, raw: Redis
) -> None:
    stranger = Leases("http://evil:1", server, secret=b"another")
    await stranger.ask(WANTED)
    assert await one.ask(WANTED) is None
    for value in (b"", b"fetches http://evil:1 0", b"\xff " * 100, b"fetches  "):
        await raw.set(KEY, value)
        held = await one.ask(WANTED)
        assert held is None or value == b""
        await raw.delete(KEY)
    await raw.lpush(KEY, "a list")
    assert await one.ask(WANTED) is None
    assert one.works == []
    await stranger.close()


async def test_a_signed_word_is_good_for_its_content_alone(
    one: Leases, two: Leases, raw: Redis
) -> None:
    await one.ask(WANTED)
    other = Wanted("docker.io", Digest.of(b"other"))
    await raw.set(KEY.replace(WANTED.digest.hex, other.digest.hex), await raw.get(KEY) or b"")
    assert await two.ask(other) is None


async def test_leases_go_back_when_the_node_stops(one: Leases, two: Leases) -> None:
    await one.ask(WANTED)
    await one.close()
    assert not isinstance(await two.ask(WANTED), Holder)
    assert await one.ask(WANTED) is None


async def test_a_redis_that_is_away_is_waited_for_once(tmp_path: Path) -> None:
    with RedisServer(tmp_path).start() as server:
        leases = Leases(ONE, server)
        lease = await leases.ask(WANTED)
        assert lease is not None
        assert not isinstance(lease, Holder)
        server.pause()
        await eventually(lambda: leases.works == [False])  # by renewing, behind
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(100):
            assert await leases.ask(WANTED) is None
        await lease.give_back()
        assert loop.time() - began < QUICK.limit
        server.resume()
        await eventually(lambda: leases.works == [False, True])
        assert await leases.ask(WANTED) is not None
        server.kill()
        assert await leases.ask(WANTED) is None
        assert leases.works == [False, True, False]
        server.start()
        await eventually(lambda: leases.works[-1])
        assert await leases.ask(WANTED) is not None
        await leases.close()


async def test_what_the_tag_memory_has_waited_for_is_not_waited_for_again(one: Leases) -> None:
    one.told.emit(TagStoreSwitched("redis", "reach", works=False))
    assert await one.ask(WANTED) is None
    await eventually(lambda: one.works == [False, True])


async def test_who_stood_still_learns_that_another_has_it(
    one: Leases, two: Leases, raw: Redis
) -> None:
    lease = await one.ask(WANTED)
    assert lease is not None
    assert not isinstance(lease, Holder)
    await raw.flushall()  # a Redis that has lost all: it is taken again
    async with asyncio.timeout(10):
        while not await raw.exists(KEY):
            await asyncio.sleep(0.02)
        assert not lease.is_lost
        while isinstance(await two.ask(WANTED), Holder):  # or it was quicker to renew
            await raw.delete(KEY)
    await eventually(lambda: lease.is_lost)
