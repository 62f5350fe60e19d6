"""The exchange itself: what becomes of its task, and what Redis refuses."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from mirror.contracts.events import TagStoreSwitched
from mirror.events import Events
from mirror.redis_url import RedisAccess
from mirror.storage.among_nodes.exchange import Exchange

from ...fakes import Recorder
from ...redis_server import RedisServer
from ...waiting import eventually
from .conftest import PATIENT, Node


async def test_it_ends_whenever_it_is_cancelled(running: RedisServer) -> None:
    for number in range(40):
        exchange = Exchange(RedisAccess(running.url), Events(), PATIENT)
        task = asyncio.create_task(exchange.run())
        await asyncio.sleep(number * 0.0001)  # while it connects, mostly
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=30)
        assert done
        await exchange.close()


async def test_what_waits_is_written_at_the_end(
    running: RedisServer, raw: Redis, node: Node
) -> None:
    exchange = node()
    await eventually(lambda: exchange.ask("PING"))
    for number in range(1000):
        exchange.later(f"a/b:{number}", lambda number=number: ("SET", f"key {number}", "x"))
    await exchange.close()
    assert await raw.dbsize() == 1000


async def test_what_redis_refuses_is_told_and_dropped(running: RedisServer, raw: Redis) -> None:
    events = Recorder()
    exchange = Exchange(RedisAccess(running.url), events, PATIENT)
    task = asyncio.create_task(exchange.run())
    await raw.config_set("maxmemory", "1")
    try:
        exchange.later("a/b:c", lambda: ("SET", "key", "x"))

        def told() -> list[bool]:
            return [each.works for each in events.of(TagStoreSwitched) if each.ability == "share"]

        await eventually(lambda: told() == [True, False])
        assert await exchange.ask("GET", "key") is None
        assert await exchange.ask("PING")  # it can be read
    finally:
        await raw.config_set("maxmemory", "0")
    exchange.later("a/b:d", lambda: ("SET", "other", "x"))
    await eventually(lambda: told() == [True, False, True])
    assert await raw.exists("key", "other") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await exchange.close()
