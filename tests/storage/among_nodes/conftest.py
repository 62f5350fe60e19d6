"""Nodes that share a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.asyncio import Redis

from mirror.events import Events
from mirror.redis_url import RedisAccess
from mirror.storage.among_nodes import exchange
from mirror.storage.among_nodes.exchange import Exchange

from ...redis_server import RedisServer

# A limit that a Redis which answers meets however busy this machine is.
PATIENT = 10.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.start()


@pytest.fixture
async def raw(running: RedisServer) -> AsyncIterator[Redis]:
    """The server itself, which is emptied before."""
    async with Redis.from_url(running.url) as client:
        await client.flushall()
        yield client


Node = Callable[..., Exchange]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """News come sooner than in real life."""
    monkeypatch.setattr(exchange, "_EACH", 0.05)


@pytest.fixture
async def node(running: RedisServer, raw: Redis) -> AsyncIterator[Node]:
    """Makes the exchange of one more node, and runs it."""
    made: list[tuple[Exchange, asyncio.Task[None]]] = []

    def make(url: str | None = None, limit: float = PATIENT) -> Exchange:
        one = Exchange(RedisAccess(url or running.url), Events(), limit, (0.05, 0.1))
        made.append((one, asyncio.create_task(one.run())))
        return one

    yield make
    for one, task in made:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.close()
