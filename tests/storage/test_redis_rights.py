"""The user that docs/operation.md has made in Redis may do what the mirror does, and no more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from mirror.clock import Clock
from mirror.contracts.events import TagStoreSwitched
from mirror.contracts.fleet import Wanted
from mirror.contracts.records import Absence
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown
from mirror.redis_url import RedisAccess
from mirror.storage.among_nodes.absences import SharedAbsences
from mirror.storage.among_nodes.bulletins import FleetBulletins
from mirror.storage.among_nodes.exchange import Exchange
from mirror.storage.among_nodes.links import FleetLinks
from mirror.storage.fleet.leases import RedisLeases
from mirror.storage.fleet.nodes import RedisNodes
from mirror.storage.records.links import LinkRecords
from mirror.storage.redis_checkup import redis_facts
from mirror.storage.redis_client import redis_client
from mirror.storage.tags.redis import RedisTags

from ..fakes import Recorder
from ..redis_server import RedisServer
from ..waiting import eventually
from .tag_contract import REDIS, digest, found

OPERATION = Path(__file__).parents[2] / "docs/operation.md"
PATIENT = 10.0
SECRET = b"s" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.start(maxmemory="1gb", maxmemory_policy="allkeys-lru")


@pytest.fixture
async def access(server: RedisServer) -> AsyncIterator[RedisAccess]:
    """As the documented user."""
    (rule,) = re.findall(r"(?m)^    (ACL SETUSER .*)$", OPERATION.read_text())
    async with Redis.from_url(server.url) as raw:
        await raw.flushall()
        await raw.set("others:key", "x")
        await raw.execute_command(*rule.replace(">PASSWORD", ">secret").split())
        yield RedisAccess(server.url.replace("://", "://mirror@"), "secret")


async def test_the_tag_memory_works(access: RedisAccess) -> None:
    events = Recorder()
    tags = RedisTags(access, events, Clock(), limit=PATIENT)
    await tags.put(REDIS, "7", found(), 60)
    assert await tags.get(REDIS, "7") == found()
    assert len(await tags.history(REDIS, "7")) == 1
    assert not await tags.has_forgotten(REDIS)
    await tags.freeze(REDIS, "7", digest("x"))
    assert await tags.frozen(REDIS, "7") == digest("x")
    assert await tags.unfreeze(REDIS, "7")
    assert (await tags.page("", 1000)).tags
    await tags.delete(REDIS, "7")
    await tags.close()
    assert all(each.works for each in events.of(TagStoreSwitched))


async def test_what_nodes_tell_one_another_works(access: RedisAccess, tmp_path: Path) -> None:
    events, clock, layer = Recorder(), Clock(), Digest.of(b"layer")
    exchange = Exchange(access, events, PATIENT)
    task = asyncio.create_task(exchange.run())
    links = FleetLinks(LinkRecords(tmp_path / "links.db", clock), exchange, SECRET, clock)
    absences = SharedAbsences(exchange, clock)
    heard: list[object] = []
    FleetBulletins(exchange, SECRET).join("hub", heard.append)
    FleetBulletins(exchange, SECRET).join("hub", print).tell({"n": 1}, 60)
    await links.add(REDIS, [layer])
    absences.note(REDIS, layer, Absence(BlobUnknown, "gone", 60.0))
    await eventually(lambda: links.seen_elsewhere(REDIS, layer))
    await eventually(lambda: absences.told(REDIS, layer))
    await eventually(lambda: heard)
    await links.remove(REDIS, [layer])
    await exchange.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await links.close()
    assert all(each.works for each in events.of(TagStoreSwitched))


async def test_leases_and_nodes_work(access: RedisAccess) -> None:
    url, clock = "http://127.0.0.1:5003", Clock()
    leases = RedisLeases(redis_client(access, PATIENT), url, SECRET, Recorder())
    lease = await leases.ask(Wanted("docker.io", Digest.of(b"layer")))
    assert lease is not None
    await leases.close()
    nodes = RedisNodes(redis_client(access, PATIENT), url, SECRET, clock, PATIENT)
    await nodes.enter()
    assert list(await nodes.find()) == [url]
    await nodes.close()


async def test_the_doctor_sees_all(access: RedisAccess) -> None:
    facts = await redis_facts(access, PATIENT)
    assert (facts.fault, facts.master, facts.policy) == ("", True, "allkeys-lru")


@pytest.mark.parametrize(
    "command",
    ["GET others:key", "SET others:key y", "FLUSHALL", "CONFIG GET *", "KEYS *", "ACL LIST"],
)
async def test_nothing_else_is_let_through(access: RedisAccess, command: str) -> None:
    async with redis_client(access, PATIENT) as client:
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command.split())
