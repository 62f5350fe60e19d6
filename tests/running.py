"""A whole mirror in the test's own process, before a hub that does as the test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import apsw

from mirror import app as assembly
from mirror import config
from mirror.pullthrough.images import this_platform

from .commands import ran
from .e2e.programs import loopback_address
from .fakes.hub import Hub

LAYER = b"layer" * 1000
DAY = 86400.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class RunningMirror:
    """A mirror that may be started again and again on its store, and what its client sees."""

    @classmethod
    @asynccontextmanager
    async def built(cls, folder: Path) -> AsyncIterator[RunningMirror]:
        async with Hub() as hub:
            mirror = cls(folder, hub)
            try:
                yield mirror
            finally:
                await mirror.stop()

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.client: aiohttp.ClientSession
        self._running = AsyncExitStack()

    def _read(self, more: str, docker_io: dict[str, str]) -> config.Config:
        self.address = loopback_address()
        text = (
            f"listen: {self.address}:5000\nadmin: {self.address}:5001\n"
            f"storage: {{path: '{self.folder / 'store'}'}}\n"
            f"registries:\n  docker.io:\n    endpoints: [{{url: '{self.hub.url}'}}]\n"
        )
        text += "".join(f"    {key}: {value}\n" for key, value in docker_io.items())
        self.file = self.folder / "mirror.yaml"
        self.file.write_text(text + more)
        return config.load(self.file)

    async def start(self, more: str = "", **docker_io: str) -> None:
        """`more`: keys of mirror.yaml; `docker_io`: of that registry."""
        await self.stop()
        await self._running.enter_async_context(
            assembly.running(self._read(more, docker_io), self.file)
        )
        self.client = aiohttp.ClientSession(f"http://{self.address}:5000")
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

    async def command(self, *words: str) -> tuple[int, str]:
        """One beside the mirror, with the same configuration: its status, and what it printed."""
        done = await ran(*words, "--config", self.file)
        return done.status, done.stdout

    async def is_ready(self, image: str = "redis:1") -> bool:
        """What the admin port and the command say, which has to be the same."""
        url = f"http://{self.address}:5001/readyz"
        asked = {"image": image, "platform": this_platform()}
        async with self.client.get(url, params=asked) as answer:
            said = answer.status
        status, _ = await self.command("ready", image)
        assert (said, status) in ((200, 0), (503, 1))
        return said == 200

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
