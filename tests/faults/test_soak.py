"""Whole images through two registries that lie, cut and fall silent, beside clients that misbehave,
while the mirror is killed: no wrong byte, no request without an end, and nothing left behind.

`SOAK_SECONDS=600 pytest tests/faults/test_soak.py` goes on for longer, with clients of all kinds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
from collections import Counter

import aiohttp
import pytest

from ..fakes.hub import Hub
from ..waiting import eventually
from . import misbehaving
from .bodies import MIB
from .house import House, Mirror, digest_of
from .neighbourhood import KIB, program
from .test_torture import Weather, workers_of

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SOAK_SEED", str(random.randrange(1 << 32))))

ROOM = 256 * MIB
CLIENTS = 4
LAYERS = (4 * KIB, 700 * KIB, 4 * MIB, 20 * MIB)  # below a MiB, over one connection, over several
LARGEST = 90 * MIB
STUCK = 60  # seconds: an answer takes less, however the registries are
MISBEHAVING_FOR = 5  # seconds
GIVEN_UP = 150  # seconds, at most: until what a registry that has gone was asked for is
MEMORY = 512 * MIB  # of all processes

# The registry of the mirror's default is `neighbourhood`'s, which misbehaving clients ask.
NAME = "hub.example/library/app"

KINDS = [
    kind
    for kind in vars(misbehaving).values()
    if asyncio.iscoroutinefunction(kind)
    and kind.__module__ == misbehaving.__name__
    and list(kind.__annotations__) == ["mirror", "return"]
]


class Soak:
    """One run. `done` says what happened, for whoever reads a failure."""

    def __init__(self, mirror: Mirror, hubs: list[Hub], chance: random.Random) -> None:
        self.mirror = mirror
        self.done: Counter[str] = Counter()
        self.weather = [Weather(hub, chance) for hub in hubs]
        self.tags = [f"v{number}" for number in range(12)]
        self._chance = chance
        for number, tag in enumerate(self.tags):
            sizes = [LARGEST] if number == 0 else chance.choices(LAYERS, k=3)
            layers = [chance.randbytes(size) for size in sizes]
            for hub in hubs:
                hub.add_image("library/app", tag, *layers)

    async def run(self, seconds: float) -> None:
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        others = [asyncio.create_task(self._fate()), asyncio.create_task(self._strangers())]
        tasks = [*clients, *others]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def pull(self, tag: str) -> str:
        """Pulls the image, each request on a connection of its own; how that ended. Fails upon a
        wrong byte, and when there is no end."""
        answers = []
        async with asyncio.timeout(STUCK):
            answers.append(await self.mirror.manifest(tag, name=NAME))
        if answers[0].status == 200 and not answers[0].cut:
            manifest = json.loads(answers[0].body)
            blobs = [manifest["config"], *manifest["layers"]]
            async with asyncio.timeout(STUCK):
                answers += await asyncio.gather(
                    *(self.mirror.blob(blob["digest"], name=NAME) for blob in blobs)
                )
            for blob, answer in zip(blobs, answers[1:], strict=True):
                if answer.status == 200:
                    assert answer.cut or digest_of(answer.body) == blob["digest"], "wrong bytes"
                    assert not answer.cut or len(answer.body) < blob["size"], "cut with all bytes"
        for answer in answers:
            assert answer.status == 200 or answer.code, "no clean error"
            if answer.status != 200 or answer.cut:
                return "cut" if answer.cut else str(answer.status)
        return "whole"

    async def _client(self) -> None:
        while True:
            try:
                self.done[await self.pull(self._chance.choice(self.tags))] += 1
            except aiohttp.ClientError:  # the mirror was killed
                self.done["no answer"] += 1
                await asyncio.sleep(0.05)

    async def _strangers(self) -> None:
        kinds = self._chance.sample(KINDS, len(KINDS))
        for kind in itertools.cycle(kinds):
            self.done[kind.__name__] += 1
            with contextlib.suppress(AssertionError):  # the mirror was killed while it began
                async with program("misbehaving", kind.__name__, self.mirror.url, "127.0.0.9"):
                    await asyncio.sleep(MISBEHAVING_FOR)

    async def _fate(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(2, 10))
            self.done["kill"] += 1
            workers = workers_of(self.mirror)
            if workers and self._chance.random() < 0.8:
                os.kill(self._chance.choice(workers), signal.SIGKILL)
            else:
                self.mirror.kill()
                assert self.mirror.rotten() == []
                await self.mirror.start()


@pytest.mark.parametrize("workers", [1, 2])
async def test_soak(house: House, workers: int) -> None:
    print(f"SOAK_SEED={SEED}")
    chance = random.Random(SEED + workers)
    house.partials = True  # of what misbehaving clients have asked for
    hubs = [house.hub, await house.another_hub()]
    async with program("neighbourhood", "3", "0.0") as others:
        urls = others.words
        names = ("slow.example", "slower.example")
        registries = {
            name: {"endpoints": [{"url": url}]} for name, url in zip(names, urls[1:3], strict=True)
        }
        registries["hub.example"] = {
            "endpoints": [{"url": hub.url, "trust": "tags"} for hub in hubs]
        }
        mirror = await house.mirror(
            urls[0],
            registries=registries,
            workers=workers,
            storage={"max_size": str(ROOM), "durability": "none"},
        )
        soak = Soak(mirror, hubs, chance)
        await soak.run(SECONDS / 2)
        print(dict(soak.done), *(dict(weather.moods) for weather in soak.weather))
        assert soak.done["whole"], "nobody ever got an image"

        # The storm is over: whoever asks gets it.
        for weather in soak.weather:
            weather.bad = False
        for tag in soak.tags:
            await eventually(lambda tag=tag: _is_had(soak, tag), STUCK)
        assert mirror.memory() < MEMORY
    assert mirror.rotten() == []
    await mirror.at_rest(partials=True, seconds=GIVEN_UP)


async def _is_had(soak: Soak, tag: str) -> bool:
    try:
        return await soak.pull(tag) == "whole"
    except aiohttp.ClientError:  # a worker's last breath
        return False
