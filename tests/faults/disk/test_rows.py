"""Small content, which is rows of one database: a kill amid its commits, a disk without room, a
database that is damaged, and two workers of one store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path

import aiohttp
import pytest

from ..bodies import MIB
from ..house import House, Mirror
from .mounts import Mounts, fill_up

DISK = 24 * MIB


def shelf(house: House, chance: random.Random, count: int = 20) -> list[str]:
    """Tags of images whose manifests and blobs are small."""
    house.hub.challenge, house.hub.redirects = "none", False
    tags = [f"{chance.randrange(1 << 32)}" for _ in range(count)]
    for tag in tags:
        layers = (chance.randbytes(chance.randrange(1, 30 << 10)) for _ in range(3))
        house.hub.add_image("library/redis", tag, *layers)
    return tags


async def pull(mirror: Mirror, tags: list[str]) -> None:
    """All at once; everything has to come whole."""
    await asyncio.gather(*(pulled(mirror, tag) for tag in tags))


async def pulled(mirror: Mirror, tag: str) -> None:
    manifest = await mirror.manifest(tag)
    assert manifest.status == 200, manifest.body
    found = json.loads(manifest.body)
    digests = [each["digest"] for each in (found["config"], *found["layers"])]
    answers = await asyncio.gather(*map(mirror.blob, digests))
    for digest, answer in zip(digests, answers, strict=True):
        assert answer.is_whole(digest), (answer.status, answer.body[:300])


async def are_kept(house: House, mirror: Mirror, tags: list[str]) -> None:
    asked = house.hub.count("registry", path="/blobs/")
    await pull(mirror, tags)
    assert house.hub.count("registry", path="/blobs/") == asked
    assert len(mirror.rows()) >= len(tags)


async def test_f30_a_mirror_killed_amid_commits_has_what_it_has_kept_and_nothing_half(
    house: House,
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    house.partials = True  # of what a fill brings
    tags = shelf(house, chance)

    async def client(tag: str) -> None:
        with contextlib.suppress(aiohttp.ClientError, json.JSONDecodeError):
            manifest = await mirror.manifest(tag)
            found = json.loads(manifest.body)
            for digest in (each["digest"] for each in (found["config"], *found["layers"])):
                answer = await mirror.blob(digest)
                assert answer.cut or answer.is_whole(digest)

    mirror = await house.mirror()
    for _ in range(4):
        clients = [asyncio.create_task(client(tag)) for tag in tags]
        done = chance.randrange(len(tags))
        while sum(task.done() for task in clients) < done:
            await asyncio.wait(
                [task for task in clients if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
        mirror.kill()
        await asyncio.gather(*clients)
        assert mirror.rotten() == []
        await mirror.start()
    await pull(mirror, tags)
    await are_kept(house, mirror, tags)
    assert not mirror.events("content_quarantined")


async def test_f31_where_no_row_can_be_written_clients_have_their_bytes(
    mounts: Mounts, house: House
) -> None:
    disk = mounts.tmpfs(DISK)
    tags = shelf(house, random.Random(1))
    mirror = await house.mirror(storage={"path": str(disk / "storage")})
    await pull(mirror, tags[:5])
    ballast = fill_up(disk)
    await pull(mirror, tags)
    assert mirror.rotten() == []
    ballast.unlink()
    await pull(mirror, tags)
    await are_kept(house, mirror, tags)
    await mirror.stop()
    await mirror.start()
    await are_kept(house, mirror, tags)


@pytest.mark.parametrize("runs", [True, False], ids=["amid requests", "before the start"])
async def test_f33_a_damaged_database_costs_what_was_in_it_and_no_answer(
    house: House, runs: bool
) -> None:
    tags = shelf(house, random.Random(2))
    mirror = await house.mirror()
    await pull(mirror, tags)
    await mirror.stop()
    if not runs:
        _damage(mirror.storage)
    await mirror.start()  # whose memory has nothing of it yet
    if runs:
        _damage(mirror.storage)
    for _ in range(2):
        await pull(mirror, tags)
    assert list(mirror.storage.glob("small.db.*aside*")), "nobody has met the damage"
    more = shelf(house, random.Random(3), 10)
    await pull(mirror, more)
    await are_kept(house, mirror, [*tags, *more])
    assert mirror.rotten() == []


def _damage(store: Path) -> None:
    """The database, all but its first page, and its log, all but its head."""
    garbage = random.Random(4)
    for file in store.glob("small.db*"):
        if not file.name.endswith("-shm"):
            with file.open("r+b") as opened:
                size = opened.seek(0, 2)
                opened.seek(4096)
                opened.write(garbage.randbytes(max(0, size - 4096)))


async def test_two_workers_keep_rows_of_one_database(house: House) -> None:
    tags = shelf(house, random.Random(5))
    mirror = await house.mirror(workers=2)
    await pull(mirror, [*tags, *tags])
    await are_kept(house, mirror, tags)
    assert mirror.rotten() == []
