"""Everything at once, at random: clients, kills, cuts, silence, wrong bytes, damage on the disk,
eviction.

`TORTURE_SECONDS=600 pytest tests/faults/test_torture.py` goes on for longer; `TORTURE_SEED=…`, as a
failed run prints it, begins the same way again (what the processes make of it is not repeated).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mirror.events import Events
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

from ..fakes.hub import Hub
from ..waiting import eventually
from .bodies import MIB
from .house import DOCKERD, House, Mirror, digest_of, taken

SECONDS = float(os.environ.get("TORTURE_SECONDS", "20"))
SEED = int(os.environ.get("TORTURE_SEED", str(random.randrange(1 << 32))))

ROOM = 8 * MIB
LARGEST = 3 * MIB
PIECE = 64 << 10
CLIENTS = 6

# What may be lost of what was sent when a connection or a process ends: it was in some buffer, or
# waited to be written.
IN_FLIGHT = 256 << 10


class Weather:
    """An upstream with moods. It counts the bytes that it sends, and those that it spoils."""

    def __init__(self, hub: Hub, chance: random.Random) -> None:
        self.sent = 0
        self.lost = 0
        self.bad = True
        self.moods: Counter[str] = Counter()
        self._hub = hub
        self._chance = chance
        hub.fail("blobs", self._answer, times=100_000)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        data = self._hub.blobs[request.path.rpartition("/")[2]]
        mood = self._mood()
        self.moods[mood] += 1
        if mood == "busy":
            return web.Response(status=503)
        asked = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        start, stop = int(asked[0]), int(asked[1] or len(data) - 1) + 1
        if start >= len(data) > 0:
            headers = {"Content-Range": f"bytes */{len(data)}"}
            return web.Response(status=416, headers=headers)
        if mood == "wrong" and data:
            at = self._chance.randrange(start, len(data))
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            self.lost += 2 * len(data)  # these, and what was right before them
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
        if response.status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        response.content_length = stop - start
        if mood in ("cut", "silent"):
            stop = self._chance.randint(start, stop)
            self.lost += IN_FLIGHT
        with contextlib.suppress(ConnectionError):  # the mirror was killed
            await response.prepare(request)
            await self._send(response, data, start, stop)
            if mood == "silent":  # as over a NAT that forgot the connection
                await asyncio.Future()
        if mood == "cut" and request.transport is not None:
            request.transport.close()
        return response

    async def _send(self, response: web.StreamResponse, data: bytes, start: int, stop: int) -> None:
        for offset in range(start, stop, PIECE):
            piece = data[offset : min(offset + PIECE, stop)]
            await response.write(piece)
            self.sent += len(piece)
            await asyncio.sleep(self._chance.choice((0, 0, 0.002, 0.01)) if self.bad else 0)

    def _mood(self) -> str:
        return self._chance.choices(
            ("fair", "cut", "busy", "wrong", "silent"),
            (68, 17, 8, 4, 3) if self.bad else (1, 0, 0, 0, 0),
        )[0]


class Torture:
    """One run. `done` says what happened, for whoever reads a failure."""

    def __init__(self, house: House, mirror: Mirror, chance: random.Random) -> None:
        sizes = [0, 1, 1000, *(chance.randrange(LARGEST) for _ in range(12)), LARGEST]
        self.blobs = [chance.randbytes(size) for size in sizes]
        self.digests = [house.hub.add_blob(data) for data in self.blobs]
        self.weather = Weather(house.hub, chance)
        self.mirror = mirror
        self.done: Counter[str] = Counter()
        self.destroyed = 0  # bytes of content
        self._damaged: set[str] = set()  # their names
        self._chance = chance

    async def run(self, seconds: float) -> None:
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        fate = asyncio.create_task(self._fate())
        done, _ = await asyncio.wait(
            (*clients, fate), timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in (*clients, fate):
            task.cancel()
        await asyncio.gather(*clients, fate, return_exceptions=True)
        for task in done:
            task.result()

    async def _client(self) -> None:
        while True:
            number = self._chance.randrange(len(self.blobs))
            data, digest = self.blobs[number], self.digests[number]
            if self._chance.random() < 0.2:
                await self._leave_midway(digest)
                continue
            try:
                answer = await self.mirror.blob(digest)
            except aiohttp.ClientError:
                self.done["no answer"] += 1
                await asyncio.sleep(0.05)  # as a client would
                continue
            if answer.status == 200:
                assert answer.cut or digest_of(answer.body) == digest, "wrong bytes, whole"
                assert not answer.cut or len(answer.body) < len(data), "a cut body with all bytes"
            else:
                assert answer.code, "no clean error"
            self.done["cut" if answer.cut else str(answer.status)] += 1

    async def _leave_midway(self, digest: str) -> None:
        try:
            async with self.mirror.connection() as wire:
                await wire.get(f"/v2/library/redis/blobs/{digest}")
                await wire.reader.read(self._chance.randrange(1, 100_000))
            self.done["left"] += 1
        except ConnectionError:
            await asyncio.sleep(0.05)

    async def _fate(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(0.05, 0.6))
            strike = self._chance.choice((self._kill, self._damage, self._damage, self._delete))
            self.done[strike.__name__.strip("_")] += 1
            await strike()

    async def _kill(self) -> None:
        """The mirror, or one of its workers, which is replaced."""
        workers = workers_of(self.mirror)
        if workers and self._chance.random() < 0.9:
            os.kill(self._chance.choice(workers), signal.SIGKILL)
        else:
            self.mirror.kill()
            assert set(self.mirror.rotten()) <= self._damaged
            await self.mirror.start()
        await eventually(self._answers, 30)

    async def _answers(self) -> bool:
        try:
            return (await self.mirror.ask("/v2/")).status == 200
        except aiohttp.ClientError:
            return False

    async def _damage(self) -> None:
        """Half a file in its place. The old one is not touched: what a socket has been given of a
        file may be those same pages, and no program could tell."""
        if path := self._some_blob():
            with contextlib.suppress(FileNotFoundError):
                data = path.read_bytes()
                half = path.with_name("half")
                half.write_bytes(data[: len(data) // 2])
                self._damaged.add(path.name)
                half.replace(path)
                self.destroyed += len(data)

    async def _delete(self) -> None:
        if path := self._some_blob():
            with contextlib.suppress(FileNotFoundError):
                self.destroyed += path.stat().st_size
                path.unlink()

    def _some_blob(self) -> Path | None:
        blobs = self.mirror.blobs()
        return self._chance.choice(blobs) if blobs else None

    def allowed(self) -> int:
        """Bytes that may have come from the upstream: each blob once, and what faults destroyed."""
        size = {digest: len(data) for digest, data in zip(self.digests, self.blobs, strict=True)}
        evicted = sum(event["bytes"] for event in self.mirror.events("evicted"))
        uncached = sum(size[event["digest"]] for event in self.mirror.events("blob_not_stored"))
        # In a kill what each fill had in flight is lost, and the word of one eviction.
        kills = self.done["kill"] * (CLIENTS * IN_FLIGHT + LARGEST)
        return (
            sum(map(len, self.blobs))
            + evicted + uncached + kills + self.destroyed + self.weather.lost
        )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
async def test_torture(house: House, workers: int) -> None:
    print(f"TORTURE_SEED={SEED}")
    chance = random.Random(SEED + workers)
    mirror = await house.mirror(
        workers=workers, storage={"max_size": str(ROOM), "durability": "none"}, quick=True
    )
    torture = Torture(house, mirror, chance)
    await torture.run(SECONDS / 2)
    print(dict(torture.done), dict(torture.weather.moods))
    assert torture.done["200"], "nobody ever got anything"

    # The storm is over: whoever asks gets it.
    torture.weather.bad = False
    for digest in torture.digests:
        await eventually(lambda digest=digest: _is_had(mirror, digest), 30)
    sent, allowed = torture.weather.sent, torture.allowed()
    print(f"{sent / MIB:.1f} MiB came, {allowed / MIB:.1f} MiB were allowed to")
    assert sent <= allowed

    # And the store is in order; what the mirror holds is looked at when the house is left.
    assert mirror.rotten() == []
    store = DiskContent(mirror.storage, Bounds(ROOM), events=Events())
    await Upkeep(store, UpkeepPolicy()).mend()
    usage = store.usage()
    await store.close()
    small = sum(-(-len(data) // 4096) * 4096 for data in mirror.rows().values())
    assert usage.content_bytes == sum(map(taken, mirror.blobs())) + small
    assert usage.content_bytes + usage.reserved_bytes <= ROOM


async def _is_had(mirror: Mirror, digest: str) -> bool:
    try:
        return (await mirror.blob(digest, DOCKERD)).is_whole(digest)
    except aiohttp.ClientError:  # a worker's last breath
        return False


def workers_of(mirror: Mirror) -> list[int]:
    """Those of its processes that serve."""
    found = []
    for pid in mirror.processes()[1:]:
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{pid}/comm").read_text() == "worker\n":
                found.append(pid)
    return found
