"""The tag memory in Redis, whatever becomes of Redis: pulls go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ...redis_server import RedisServer
from ...waiting import eventually
from ..house import House, Mirror

TAG = "registry-mirror:1:tag:docker.io/library/redis:7"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def client(server: RedisServer) -> redis.Redis:
    return redis.Redis(host=server.host, port=server.port, password=server.password)


def keys(server: RedisServer) -> list[bytes]:
    with client(server) as db:
        return sorted(db.keys("registry-mirror:1:tag:*"))


async def mirror_with(house: House, server: RedisServer, **keys: str) -> Mirror:
    return await house.mirror(
        tags={"store": server.url, **keys}, docker_io={"freshness": {"ttl": "1h"}}
    )


async def pulls(house: House, mirror: Mirror, name: str = "library/redis") -> None:
    """By tag, as clients do: the manifest, then its layers; in bounded time."""
    manifest = house.hub.tags[name]["7"]
    async with asyncio.timeout(10):
        assert (await mirror.manifest("7", name=name)).is_whole(manifest)
        assert (await mirror.manifest("7", "HEAD", name=name)).status == 200
        layer = next(iter(house.hub.blobs))
        assert (await mirror.blob(layer, name=name)).is_whole(layer)


def times_asked(house: House) -> int:
    """How often the upstream was asked what the tag is, by either way."""
    path = "library/redis/manifests/7"
    return sum(house.hub.count("registry", method, path) for method in ("HEAD", "GET"))


async def _let_go(house: House, mirror: Mirror, server: RedisServer) -> None:
    """Has the mirror find out that Redis is gone, with the connection that it kept."""
    server.kill()
    await pulls(house, mirror)
    await mirror.manifest("a-tag-nobody-asked-for")  # those from just before need no Redis


async def test_f45_redis_comes_and_goes(house: House, server: RedisServer) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    mirror = await mirror_with(house, server)  # it is not there at the start
    await pulls(house, mirror)
    asked = times_asked(house)
    assert await mirror.metric("tag_store_errors_total", store="redis") > 0
    assert mirror.events("tag_store_failing")

    server.start()
    await eventually(lambda: len(keys(server)) == 1, 20)  # and has what it missed
    await eventually(lambda: mirror.events("tag_store_works_again"))
    await pulls(house, mirror)

    server.pause()  # it hangs
    house.hub.add_image("library/other", "7", b"layer")
    await pulls(house, mirror, "library/other")
    await pulls(house, mirror)
    server.resume()
    await eventually(lambda: len(keys(server)) == 2, 20)

    server.kill()
    await pulls(house, mirror)
    server.start()  # empty

    async def is_told_again() -> bool:
        await pulls(house, mirror)
        return len(keys(server)) == 1

    await eventually(is_told_again, 20)
    # The memory of it was good all the time: nobody was asked about a tag again.
    assert times_asked(house) == asked
    await _let_go(house, mirror, server)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"replicaof": "127.0.0.1 1"}, "a replica that takes no writes"),
        ({"maxmemory": "1", "maxmemory_policy": "noeviction"}, "Redis is out of memory"),
    ],
)
async def test_f45_redis_takes_no_writes(
    house: House, server: RedisServer, settings: dict[str, str], reason: str
) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    server.start(**settings)
    mirror = await mirror_with(house, server)
    await pulls(house, mirror)
    await pulls(house, mirror)
    assert await mirror.metric("tag_store_errors_total", store="redis", operation="put") > 0
    assert {event["reason"] for event in mirror.events("tag_store_failing")} == {reason}
    server.kill()
    server.start()
    await eventually(lambda: len(keys(server)) == 1, 20)
    await _let_go(house, mirror, server)


async def test_f45_redis_wants_another_password(house: House, tmp_path: Path) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    (tmp_path / "password").write_text("not it")
    with RedisServer(tmp_path / "redis", password="it") as server:
        server.start()
        mirror = await mirror_with(house, server, password_file=str(tmp_path / "password"))
        await pulls(house, mirror)
        await pulls(house, mirror)
        reasons = {event["reason"] for event in mirror.events("tag_store_failing")}
        assert reasons == {"wrong user or password"}
        assert "not it" not in mirror.words()
        await _let_go(house, mirror, server)


@pytest.mark.parametrize("garbage", ["bytes", "newer", "list"])
async def test_f46_garbage_under_our_key_is_absent_and_overwritten(
    house: House, server: RedisServer, garbage: str
) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    server.start()
    first = await mirror_with(house, server)
    await pulls(house, first)
    asked = times_asked(house)
    [key] = keys(server)
    with client(server) as db:
        good = db.get(key)
        assert good is not None
        db.delete(key)
        if garbage == "list":
            db.rpush(key, "x")
        else:
            db.set(key, b"\x00garbage" if garbage == "bytes" else b"99" + good)
        second = await mirror_with(house, server)
        await pulls(house, second)
        assert db.type(key) == b"string"
        assert (db.get(key) or b"")[:20] == good[:20]
    assert times_asked(house) > asked
    for mirror in (first, second):
        await _let_go(house, mirror, server)
