"""Whose turn it is, as a real Redis says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from mirror.redis_url import RedisAccess
from mirror.storage.redis_turns import RedisTurn
from mirror.storage.turns import OwnTurn

from ..fakes import HandClock
from ..redis_server import RedisServer
from ..waiting import eventually


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server.start()


async def test_one_node_at_a_time_has_the_turn_and_then_nobody_for_a_while(
    server: RedisServer,
) -> None:
    one, other, else_ = (RedisTurn(RedisAccess(server.url), name) for name in ("a", "a", "b"))
    assert [await turn.take() for turn in (one, other, else_)] == [True, False, True]
    assert [await turn.keep() for turn in (one, other)] == [True, False]
    await other.give_back(100)  # it is not its turn
    assert await one.keep()
    await one.give_back()
    assert await other.take()
    await other.give_back(0.2)
    assert not await one.take()
    await eventually(one.take)
    for turn in (one, other, else_):
        await turn.close()


async def test_a_turn_ends_with_the_node_and_is_nobodys_without_redis(server: RedisServer) -> None:
    one, other = (RedisTurn(RedisAccess(server.url), "a") for _ in range(2))
    assert await one.take()
    client = Redis.from_url(server.url)
    (key,) = await client.keys()
    assert 0 < await client.pttl(key) <= 120_000
    await client.pexpire(key, 1)
    await eventually(other.take)
    assert not await one.keep()
    server.kill()
    async with asyncio.timeout(20):
        assert not await other.keep()
        assert not await one.take()
        await other.give_back(1)
    for closing in (one, other):
        await closing.close()
    await client.aclose()


async def test_a_node_that_shares_nothing_has_its_own_turn() -> None:
    clock = HandClock()
    turn = OwnTurn(clock.clock())
    assert await turn.take()
    assert await turn.keep()
    await turn.give_back(100)
    assert not await turn.take()
    clock.now += 100
    assert await turn.take()
    await turn.close()
