"""kill -9, again and again: what is visible is right, and what was begun is resumed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import signal
from pathlib import Path

import aiohttp

from mirror.events import Events
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

from ...storage.content_contract import content
from ...waiting import eventually
from ..bodies import MIB
from ..house import House, taken
from ..nursery import Forked
from .clients import is_kept, pace
from .filler import BLOBS, ROOM

ROUNDS = 40


def rotten(root: Path) -> list[str]:
    """Visible names with other bytes than theirs."""
    return [
        path.name
        for path in (root / "blobs").rglob("*")
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != path.name
    ]


async def test_f30_killed_at_any_moment_of_a_fill_or_a_commit(tmp_path: Path) -> None:
    """The store alone, where a new beginning takes milliseconds."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    root, log = tmp_path / "store", tmp_path / "log"
    resumed = 0
    for number in range(ROUNDS):
        log.write_text("")
        arguments = [str(root), str(seed + number)]
        filler = Forked("tests.faults.disk.filler", arguments, log, {})
        await eventually(lambda: "begun" in log.read_text())
        await asyncio.sleep(chance.uniform(0, 0.04))  # the moment at which it happens
        os.kill(filler.pid, signal.SIGKILL)
        assert filler.wait(10) == -signal.SIGKILL, log.read_text()
        assert rotten(root) == []
        resumed += log.read_text().count("resumed")
    assert resumed, "nothing was ever resumed"
    # And it is all in order again.
    store = DiskContent(root, Bounds(ROOM), events=Events())
    await Upkeep(store, UpkeepPolicy()).mend()
    files = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    partials = [path for path in (root / "partials").rglob("*") if path.is_file()]
    usage = store.usage()
    assert (usage.content_bytes, usage.entries) == (_size(files), len(files))
    assert usage.reserved_bytes == _size(partials)
    assert usage.content_bytes + usage.reserved_bytes <= ROOM
    for digest, data in BLOBS.items():
        assert await content(store, digest) in (data, None)
    await store.close()
    assert not list((root / "quarantine").iterdir()), "nothing looked wrong on the way"


async def test_f30_a_mirror_killed_at_any_moment(house: House) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    house.partials = True
    blobs = [chance.randbytes(size * MIB // 8) for size in (4, 12, 24, 40)]
    digests = [house.hub.add_blob(data) for data in blobs]

    async def client(number: int) -> None:
        try:
            answer = await mirror.blob(digests[number])
        except aiohttp.ClientError:
            return
        assert answer.cut or answer.is_whole(digests[number])

    pace(house.hub, 0.005)
    mirror = await house.mirror()
    for turn in range(12):
        # The first that is asked of an upstream takes its time: certificates' authorities are read.
        await mirror.blob(house.hub.add_blob(b"%d" % turn))
        clients = [asyncio.create_task(client(number)) for number in (0, 1, 2, 3, 3)]
        await asyncio.sleep(chance.uniform(0, 0.15))  # the moment at which it happens
        mirror.kill()
        await asyncio.gather(*clients)
        assert mirror.rotten() == []
        await mirror.start()
    for digest in digests:
        assert (await mirror.blob(digest)).is_whole(digest)
        assert await is_kept(house, mirror, digest)
    parts = [seen.headers.get("Range", "") for seen in house.hub.seen("blobs", "GET")]
    assert any(re.fullmatch(r"bytes=[1-9]\d*-", part) for part in parts), "nothing was resumed"
    assert not mirror.events("content_quarantined")


def _size(paths: list[Path]) -> int:
    return sum(map(taken, paths))
