"""A mirror without its upstreams, whole: by its configuration, and because none of them answers."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import apsw
import pytest

from mirror import assembly, config
from mirror.cache.images import this_platform

from .upstream.hub import Hub

LAYER = b"layer" * 1000
DAY = 86400.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class House:
    """A mirror in this process, before a hub that may go."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.client: aiohttp.ClientSession
        self._running = AsyncExitStack()

    def config(self, more: str = "") -> config.Config:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.admin = one.getsockname()[1], other.getsockname()[1]
        text = (
            f"listen: {self.port}\nadmin: {self.admin}\n"
            f"storage: {{path: '{self.folder / 'store'}'}}\n"
            f"registries: {{docker.io: {{endpoints: [{{url: '{self.hub.url}'}}]}}}}\n"
        )
        return config.parse(text + more, "mirror.yaml")

    async def start(self, more: str = "") -> None:
        await self.stop()
        await self._running.enter_async_context(assembly.running(self.config(more)))
        self.client = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}")
        self._running.push_async_callback(self.client.close)

    async def stop(self) -> None:
        await self._running.aclose()
        self._running = AsyncExitStack()

    async def get(self, path: str) -> Answer:
        async with self.client.get(path) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.read())

    async def pull(self, tag: str = "1") -> Answer:
        """A whole image; gives back its tag's answer."""
        answer = await self.get(f"/v2/library/redis/manifests/{tag}")
        assert answer.status == 200, answer.body
        manifest = json.loads(answer.body)
        for blob in (manifest["config"], *manifest["layers"]):
            got = await self.get(f"/v2/library/redis/blobs/{blob['digest']}")
            assert got.status == 200, got.body
        return answer

    async def ready(self, image: str = "redis:1") -> int:
        url = f"http://127.0.0.1:{self.admin}/readyz"
        asked = {"image": image, "platform": this_platform()}
        async with self.client.get(url, params=asked) as answer:
            return answer.status

    async def grow_old(self, days: float) -> None:
        """The tag memory is so much older when the mirror starts again: what was kept for less is
        forgotten."""
        await self.stop()
        seconds = days * DAY
        db = apsw.Connection(str(self.folder / "store" / "tags.db"))
        for key, record in db.execute("SELECT key, record FROM tags").fetchall():
            document = json.loads(bytes(record))
            document["checked_at"] -= seconds
            aged = (json.dumps(document).encode(), seconds, key)
            db.execute(
                "UPDATE tags SET record = ?, expires_at = expires_at - ? WHERE key = ?", aged
            )
        db.execute(
            "UPDATE history SET first_seen = first_seen - ?, last_seen = last_seen - ?",
            (seconds, seconds),
        )
        db.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Hub() as hub:
        house = House(tmp_path, hub)
        yield house
        await house.stop()


@pytest.mark.parametrize("days", [0.5, 30, 390])
async def test_offline_by_configuration_a_cached_tag_is_served_however_old(
    house: House, days: float
) -> None:
    house.hub.add_image("library/redis", "1", LAYER)
    await house.start()
    await house.pull()
    await house.grow_old(days)
    house.hub.requests.clear()
    await house.start("offline: true\n")
    answer = await house.pull()
    assert house.hub.requests == []
    assert answer.headers["Warning"].startswith("299")
    assert int(answer.headers["Age"]) == pytest.approx(days * DAY, abs=60)
    assert "stale" in answer.headers["Cache-Status"]
    assert await house.ready() == 200


async def test_offline_by_configuration_what_is_not_here_is_refused_at_once(house: House) -> None:
    digest = house.hub.add_image("library/redis", "1", LAYER)
    layer = house.hub.add_blob(LAYER)
    await house.start("offline: true\n")
    assert (await house.get("/v2/library/redis/manifests/1")).status == 503
    for path in (f"manifests/{digest}", f"blobs/{layer}"):
        assert (await house.get(f"/v2/library/redis/{path}")).status == 403
    assert await house.ready() == 503
    assert house.hub.requests == []


async def test_offline_by_configuration_a_tag_that_was_gone_stays_gone(house: House) -> None:
    house.hub.add_image("library/redis", "1", LAYER)
    await house.start()
    await house.pull()
    await house.grow_old(1.5)
    del house.hub.tags["library/redis"]["1"]
    await house.start()
    assert (await house.get("/v2/library/redis/manifests/1")).status == 404
    await house.grow_old(1)
    await house.start("offline: true\n")
    assert (await house.get("/v2/library/redis/manifests/1")).status == 503
    assert await house.ready() == 503


async def test_without_that_key_the_tags_time_goes_on_to_rule_and_ready_agrees(
    house: House,
) -> None:
    house.hub.add_image("library/redis", "1", LAYER)
    await house.start()
    await house.pull()
    await house.grow_old(0.5)
    await house.hub.__aexit__(None, None, None)
    await house.start()
    assert await house.ready() == 200
    assert "Warning" in (await house.pull()).headers
    await house.grow_old(1)
    await house.start()
    assert await house.ready() == 503
    assert (await house.get("/v2/library/redis/manifests/1")).status == 503
