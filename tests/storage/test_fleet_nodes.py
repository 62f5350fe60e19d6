"""The nodes of a fleet in a real Redis: who enters itself is found, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis

from mirror.clock import Clock
from mirror.peering import mac_of
from mirror.redis_url import RedisAccess
from mirror.storage.fleet.nodes import RedisNodes
from mirror.storage.redis_client import redis_client

from ..fakes import HandClock
from ..redis_server import RedisServer
from ..waiting import eventually

SECRET = b"0123456789abcdef0123456789abcdef"
A, B = "http://10.0.0.1:5003", "http://10.0.0.2:5003"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.start()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    with Redis(host=server.host, port=server.port) as redis:
        redis.flushall()
        yield redis


@asynccontextmanager
async def node(
    server: RedisServer,
    own: str,
    secret: bytes = SECRET,
    limit: float = 10.0,
    clock: Clock | None = None,
) -> AsyncIterator[RedisNodes]:
    client = redis_client(RedisAccess(server.url), limit)
    nodes = RedisNodes(client, own, secret, clock or Clock(), limit)
    yield nodes
    await nodes.close()


def list_in(redis: Redis) -> bytes:
    [key] = redis.keys("registry-mirror:1:fleet:nodes:*")
    return key


async def test_nodes_find_one_another(server: RedisServer, redis: Redis) -> None:
    async with node(server, A) as a, node(server, B) as b:
        await a.enter()
        assert await b.find() == {A}
        await b.enter()
        assert await a.find() == await b.find() == {A, B}
        assert 80000 < redis.ttl(list_in(redis)) <= 86400


async def test_fleets_of_other_secrets_have_other_nodes(server: RedisServer, redis: Redis) -> None:
    async with node(server, A) as a, node(server, B, SECRET[::-1]) as b:
        await a.enter()
        await b.enter()
        assert await a.find() == {A}
        assert await b.find() == {B}


async def test_who_has_no_secret_enters_nobody(server: RedisServer, redis: Redis) -> None:
    now = int(time.time())
    mac = mac_of(SECRET, "node", A, str(now))
    async with node(server, A) as a:
        await a.enter()
        forged = {
            B: f"{now} {mac}",  # another's
            "http://evil:1": f"{now} {'0' * 64}",
            "http://late:1": f"{now + 5} {mac_of(SECRET, 'node', 'http://late:1', str(now))}",
            "x" * 400: f"{now} {mac_of(SECRET, 'node', 'x' * 400, str(now))}",
            b"\xff\xfe": b"\xff" * 2000,
            "no time": "",
        }
        redis.hset(list_in(redis), mapping=forged)
        assert await a.find() == {A}


async def test_who_is_gone_is_named_no_more_and_taken_out(
    server: RedisServer, redis: Redis
) -> None:
    def entry(url: str, age: int) -> dict[str, str]:
        at = str(int(time.time()) - age)
        return {url: f"{at} {mac_of(SECRET, 'node', url, at)}"}

    async with node(server, A) as a:
        await a.enter()
        redis.hset(list_in(redis), mapping=entry("http://here:1", 5))
        redis.hset(list_in(redis), mapping=entry("http://silent:1", 25))
        redis.hset(list_in(redis), mapping=entry("http://gone:1", 100))
        redis.hset(list_in(redis), mapping=entry("http://to-come:1", -100))
        assert await a.find() == {A, "http://here:1"}
        assert set(redis.hkeys(list_in(redis))) == {
            A.encode(),
            b"http://here:1",
            b"http://silent:1",
        }


async def test_who_enters_itself_by_a_clock_that_stood_still_is_found_again(
    server: RedisServer, redis: Redis
) -> None:
    """As of a machine that was suspended, or where the clock of Redis was set forward."""
    hand = HandClock()
    async with node(server, A, clock=hand.clock()) as a, node(server, B) as b:
        await a.enter()
        assert await b.find() == {A}
        hand.now -= 100
        await a.enter()
        await a.find()
        await a.enter()
        assert await b.find() == {A}


async def test_of_garbage_only_so_much_is_read(server: RedisServer, redis: Redis) -> None:
    async with node(server, A) as a:
        await a.enter()
        redis.hset(list_in(redis), mapping={f"http://{n}": "x" for n in range(13_000)})
        assert await a.find() <= {A}
        before = redis.hlen(list_in(redis))
        await a.find()
        assert redis.hlen(list_in(redis)) < before  # and taken out, some at a time


async def test_a_redis_that_is_away_is_told_of_in_words(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.start()
        async with node(server, A, limit=0.2) as a:
            await a.enter()
            server.kill()
            for ask in (a.enter, a.find):
                with pytest.raises(OSError, match=r"refused|answer|broke"):
                    await ask()
            staying = asyncio.create_task(a.stay())
            server.start()
            await eventually(lambda: found_by(a))
            staying.cancel()


async def found_by(nodes: RedisNodes) -> bool:
    with contextlib.suppress(OSError):
        return await nodes.find() == {A}
    return False
