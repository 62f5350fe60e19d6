"""What nodes tell one another through Redis, beside tags: an upstream is asked for it once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..e2e.programs import loopback_address
from ..redis_server import RedisServer
from ..waiting import eventually
from .disk.test_redis import client
from .house import House, digest_of
from .test_hidden import NAME, hidden

SECRET = "s" * 32


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server.start()


def fleet() -> dict[str, Any]:
    address = loopback_address()
    return {
        "listen": f"{address}:5003",
        "url": f"http://{address}:5003",
        "secret_env": "SECRET",
    }


async def test_f45_what_a_private_repository_has_shown_to_one_node_another_gives_without_asking(
    house: House, server: RedisServer
) -> None:
    near = await house.another_hub()  # an accelerator, that lacks no secrets
    house.hub.limit = 100
    others = {"url": near.url, "trust": "content"}
    nodes = [
        await house.mirror(
            house.hub,
            others,
            tags={"store": server.url},
            fleet=fleet(),
            docker_io=hidden(house.hub, 404),
            env={"PASSWORD": "secret", "SECRET": SECRET},
        )
        for _ in range(2)
    ]

    async def is_given_without_asking(number: int) -> bool:
        layer = os.urandom(20_000)
        near.add_image(NAME, f"{number}", layer)
        image = house.hub.add_image(NAME, f"{number}", layer)
        assert (await nodes[0].manifest(f"{number}", name=NAME)).is_whole(image)
        assert (await nodes[0].blob(digest_of(layer), name=NAME)).is_whole(digest_of(layer))

        async def is_shared() -> bool:
            """Manifest, configuration and layer, which are written behind; and the other node
            hears, though it has pulled nothing of what is counted."""
            left = await nodes[1].metric("upstream_quota_remaining", login="ann")
            return len(_links(server)) >= 3 + 2 * number and left == 99 - number

        await eventually(is_shared, 30)
        asked = len(house.hub.seen("registry"))
        assert (await nodes[1].blob(digest_of(layer), name=NAME)).is_whole(digest_of(layer))
        assert (await nodes[1].manifest(image, name=NAME)).is_whole(image)
        return all(one.method != "HEAD" for one in house.hub.seen("registry")[asked:])

    # A machine that is busy may miss the quarter of a second in which Redis has to answer.
    for number in range(4):
        if await is_given_without_asking(number):
            return
    raise AssertionError("the registry was asked each time")


def _links(server: RedisServer) -> list[bytes]:
    with client(server) as db:
        return list(db.keys("registry-mirror:1:link:*"))


async def test_f45_what_one_node_was_told_is_missing_another_does_not_ask_for(
    house: House, server: RedisServer
) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    nodes = [await house.mirror(tags={"store": server.url}) for _ in range(2)]
    missing = digest_of(b"nobody has this")

    def asked() -> int:
        return len([one for one in house.hub.seen("registry") if missing in one.path])

    async def is_spared() -> bool:
        """Each word that repeats it is believed for longer."""
        assert (await nodes[0].blob(missing)).status == 404
        before = asked()
        assert (await nodes[1].blob(missing)).status == 404
        return before == asked()

    await eventually(is_spared, 30)
    assert asked() > 0
