"""What processes that were killed leave: it is given back, or gone on with, while others serve."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time

import aiohttp

from ...waiting import eventually
from ..bodies import MIB
from ..client import digest_of
from ..house import House, Mirror, taken
from .clients import hold, is_kept, reading


async def test_f40_what_a_killed_worker_has_set_aside_is_given_back(house: House) -> None:
    house.partials = True
    digest = house.hub.add_blob(os.urandom(60 * MIB))
    until = asyncio.Event()
    hold(house.hub, 9 * MIB, until)
    mirror = await house.mirror(workers=2)
    async with aiohttp.ClientSession() as session:
        client = await session.get(f"{mirror.url}/v2/library/redis/blobs/{digest}")
        await eventually(lambda: [path.stat().st_size for path in mirror.partials()] == [9 * MIB])
        assert await mirror.metric("cache_reserved_bytes") > 9 * MIB
        [lock] = mirror.locks()
        os.kill(int(lock.split()[4]), signal.SIGKILL)
        client.close()
    await eventually(lambda: _reserved(mirror, 9 * MIB), 20)
    until.set()


async def test_f40_a_partial_with_holes_counts_for_what_is_on_the_disk(house: House) -> None:
    house.partials = True
    digest = house.hub.add_blob(os.urandom(60 * MIB))
    until = asyncio.Event()
    hold(house.hub, 9 * MIB, until)
    mirror = await house.mirror()
    async with reading(mirror, digest, clients=1):
        await eventually(lambda: [path.stat().st_size for path in mirror.partials()] == [9 * MIB])
    mirror.kill()
    [partial] = mirror.partials()
    os.truncate(partial, 50 * MIB)  # as what came ahead of a hole leaves it
    assert taken(partial) < 10 * MIB
    await mirror.start()
    await eventually(lambda: _reserved(mirror, 9 * MIB), 20)
    until.set()


async def test_f30_a_resumed_blob_has_its_length_at_once(house: House) -> None:
    """As it was announced to the writer that was killed: the upstream may be slow to say it."""
    house.partials = True
    data = os.urandom(8 * MIB)
    digest = house.hub.add_blob(data)
    until = asyncio.Event()
    hold(house.hub, 4 * MIB, until)
    mirror = await house.mirror()
    async with reading(mirror, digest, clients=1):
        await eventually(lambda: [path.stat().st_size for path in mirror.partials()] == [4 * MIB])
    mirror.kill()
    await mirror.start()
    async with aiohttp.ClientSession() as session:
        client = await session.get(f"{mirror.url}/v2/library/redis/blobs/{digest}")
        assert client.headers["Content-Length"] == str(len(data))
        until.set()
        assert await client.read() == data


async def test_what_lives_for_a_moment_is_swept(house: House) -> None:
    mirror = house.prepare()
    folder = mirror.storage / "partials" / "sha256"
    folder.mkdir(parents=True)
    name = "a" * 64
    left = [
        mirror.storage / "login-abc.json.0123456789abcdef",
        mirror.storage / ".probe-1",
        folder / f"{name}.ahead",
    ]
    kept = [mirror.storage / "login-abc.json", mirror.storage / "login-abc.json.new"]
    for path in (*left, *kept):
        path.touch()
    for path in (*left, kept[0]):
        os.utime(path, (time.time() - 86400,) * 2)
    await mirror.start()
    await eventually(lambda: not any(path.exists() for path in left))
    assert all(path.exists() for path in kept)
    kept[1].unlink()


async def test_f35_an_index_that_somebody_locks_costs_pulls_a_moment(house: House) -> None:
    """What is here is served, the rest passes through."""
    mirror = await house.mirror()
    before = house.hub.add_blob(os.urandom(MIB))
    manifest = house.hub.add_image("library/redis", "7", os.urandom(MIB))
    assert (await mirror.blob(before)).is_whole(before)
    with contextlib.closing(sqlite3.connect(mirror.storage / "index.db")) as db:
        db.isolation_level = None
        db.execute("BEGIN EXCLUSIVE")
        new = [house.hub.add_blob(os.urandom(MIB)) for _ in range(4)]
        asking = asyncio.gather(*map(mirror.blob, new), mirror.manifest("7"))
        answers = await asyncio.wait_for(asking, 8)
        for digest, answer in zip([*new, manifest], answers, strict=True):
            assert answer.is_whole(digest)
        assert await is_kept(house, mirror, before)
        assert await mirror.stop() == 0
        await asyncio.wait_for(mirror.start(), 20)
        assert await is_kept(house, mirror, before)
        assert (await asyncio.wait_for(mirror.blob(new[0]), 8)).is_whole(new[0])
    await eventually(lambda: _keeps(house, mirror), 30)


async def test_databases_that_somebody_locks_cost_the_first_pull_a_moment_and_no_other(
    house: House,
) -> None:
    mirror = await house.mirror()
    with contextlib.ExitStack() as stack:
        for path in mirror.storage.glob("*.db"):
            db = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
            db.isolation_level = None
            db.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(10):  # and not 2 s and more for each
            for number in range(8):
                layer = os.urandom(MIB)
                manifest = house.hub.add_image("library/redis", f"{number}", layer)
                assert (await mirror.manifest(f"{number}")).is_whole(manifest)
                assert (await mirror.manifest(manifest)).is_whole(manifest)
                assert (await mirror.blob(digest_of(layer))).is_whole(digest_of(layer))
                assert (await mirror.ask(f"/v2/library/redis/referrers/{manifest}")).status == 200
    assert await mirror.stop() == 0


async def _keeps(house: House, mirror: Mirror) -> bool:
    """Whether a blob that nobody has asked for yet is kept."""
    digest = house.hub.add_blob(os.urandom(MIB // 2))
    assert (await mirror.blob(digest)).is_whole(digest)
    return await is_kept(house, mirror, digest)


async def _reserved(mirror: Mirror, size: int) -> bool:
    """Whether so much is set aside, and a note."""
    return size <= await mirror.metric("cache_reserved_bytes") <= size + 4096
