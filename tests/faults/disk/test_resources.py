"""A mirror that is told to stop under load, that has no descriptors left, and one with many slow
readers. (A configuration cannot be loaded anew while the mirror runs, so there is no F47.)"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import aiohttp

from ...e2e.programs import needs
from ...waiting import eventually
from ..bodies import MIB
from ..client import Wire, fetch
from ..house import PORT, House, Mirror
from .clients import all_of, hold, is_kept, reading

# The command, with a second for what runs to end in place of twenty-five.
IMPATIENT = (
    sys.executable,
    "-c",
    "import sys; from mirror import cli; from mirror.app import serving; serving.GRACE = 1.0; "
    "del sys.argv[1:4]; cli.main()",
)


async def test_f41_told_to_stop_it_lets_its_clients_finish(house: House) -> None:
    digest = house.hub.add_blob(os.urandom(3 * MIB))
    until = asyncio.Event()
    hold(house.hub, 2 * MIB, until)
    mirror = await house.mirror()
    async with reading(mirror, digest, clients=8) as clients:
        mirror.terminate()
        await eventually(lambda: mirror.events("draining"))
        await eventually(lambda: _refuses(mirror))
        until.set()
        assert {len(body) for body in await all_of(*clients)} == {3 * MIB}
    assert await mirror.ended() == 0
    mirror.wrote_well()
    assert mirror.partials() == []
    assert mirror.rotten() == []


async def test_f41_after_the_grace_it_cuts_and_what_came_is_resumed(house: House) -> None:
    digest = house.hub.add_blob(os.urandom(3 * MIB))
    until = asyncio.Event()
    hold(house.hub, 2 * MIB, until)
    mirror = await house.mirror(wrap=IMPATIENT)
    async with reading(mirror, digest, clients=4) as clients:
        await eventually(lambda: [path.stat().st_size for path in mirror.partials()] == [2 * MIB])
        mirror.terminate()
        assert await mirror.ended() == 0
        ends = await asyncio.gather(*(read() for read in clients), return_exceptions=True)
        assert {type(end) for end in ends} == {aiohttp.ClientPayloadError}
    mirror.wrote_well()
    assert [path.stat().st_size for path in mirror.partials()] == [2 * MIB]
    until.set()
    await mirror.start()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert house.hub.seen("blobs", "GET")[-1].headers["Range"] == f"bytes={2 * MIB}-"


async def _refuses(mirror: Mirror) -> bool:
    try:
        await mirror.ask("/v2/")
    except aiohttp.ClientConnectorError:
        return True
    return False


async def test_f42_descriptors_run_out_and_running_transfers_go_on(house: House) -> None:
    needs("prlimit")
    limit = 100
    data = os.urandom(3 * MIB)
    kept, manifest = house.hub.add_blob(os.urandom(MIB)), house.hub.add_image("library/redis", "7")
    digest = house.hub.add_blob(data)
    mirror = await house.mirror(wrap=("prlimit", f"--nofile={limit}"))
    assert (await mirror.blob(kept)).is_whole(kept)
    assert (await mirror.manifest("7")).is_whole(manifest)
    until = asyncio.Event()
    hold(house.hub, 2 * MIB, until)
    async with reading(mirror, digest, clients=4) as clients, mirror.connection() as early:
        await early.get("/v2/")
        assert (await early.answer()).status == 200
        async with contextlib.AsyncExitStack() as idle:
            for _ in range(limit):
                await idle.enter_async_context(mirror.connection())
            await eventually(lambda: mirror.events("idle_connections_closed"))
            # One that has asked before gets what it asks for: those that have not are closed.
            await early.get(f"/v2/library/redis/blobs/{kept}")
            assert (await early.answer()).is_whole(kept)
            until.set()
            assert await all_of(*clients) == [data] * 4
        await eventually(lambda: _open(mirror) < limit // 2 + 20)
        assert await is_kept(house, mirror, kept)
        assert (await mirror.blob(digest)).is_whole(digest)
        assert await is_kept(house, mirror, digest)
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert await mirror.metric("content_rotten_total") == 0
    assert mirror.locks() == []
    log = mirror.words()
    await mirror.stop()
    assert "Traceback" not in log


async def test_f42_idle_connections_of_one_client_shut_nobody_out(house: House) -> None:
    needs("prlimit")
    mirror = await house.mirror(wrap=("prlimit", "--nofile=104"))
    async with contextlib.AsyncExitStack() as idle:
        reader, writer = await asyncio.open_connection(
            mirror.address, PORT, local_addr=("127.0.0.9", 0)
        )
        idle.callback(writer.close)
        neighbour = Wire(reader, writer)
        await neighbour.get("/v2/")
        assert (await neighbour.answer()).status == 200
        for number in range(200):
            client = await idle.enter_async_context(mirror.connection())
            if number % 2:  # half of a request's line
                client.writer.write(b"GET /v2/")
        await eventually(lambda: mirror.events("idle_connections_closed"))
        for _ in range(5):
            digest = house.hub.add_blob(os.urandom(2 * MIB))
            async with asyncio.timeout(10):
                assert (await mirror.blob(digest)).is_whole(digest)
        await neighbour.get("/v2/")
        assert (await neighbour.answer()).status == 200


async def test_f42_more_clients_than_descriptors_wait_for_their_turn(house: House) -> None:
    needs("prlimit")
    kept = house.hub.add_blob(os.urandom(8 * MIB))  # more than sockets hold
    mirror = await house.mirror(wrap=("prlimit", "--nofile=150"))
    assert (await mirror.blob(kept)).is_whole(kept)
    go = asyncio.Event()

    async def take() -> bool:
        async with mirror.connection() as client:
            await client.get(f"/v2/library/redis/blobs/{kept}")
            await go.wait()
            return (await client.answer()).is_whole(kept)

    taking = [asyncio.create_task(take()) for _ in range(120)]
    await eventually(lambda: mirror.events("connections_wait"))
    go.set()
    assert await asyncio.gather(*taking) == [True] * 120


async def test_f42_without_descriptors_the_operator_is_answered_and_the_log_is_short(
    house: House,
) -> None:
    needs("prlimit")
    digests = [house.hub.add_blob(os.urandom(300_000)) for _ in range(60)]
    mirror = await house.mirror(wrap=("prlimit", "--nofile=100"))

    async def take(digest: str) -> None:
        async with mirror.connection() as client:
            await client.get(f"/v2/library/redis/blobs/{digest}")
            await asyncio.Event().wait()

    taking = [asyncio.create_task(take(digest)) for digest in digests * 4]
    await eventually(lambda: mirror.events("connections_wait"))
    asked = 20
    for _ in range(asked):
        async with asyncio.timeout(5):
            assert (await fetch(f"{mirror.admin}/healthz")).status == 200
            assert await mirror.metrics()
    for task in taking:
        task.cancel()
    await asyncio.gather(*taking, return_exceptions=True)
    lines = mirror.words().splitlines()
    others = [line for line in lines if '"event": "request"' not in line]
    assert len(others) < 10 * len(digests)
    assert len(mirror.events("connections_wait")) < 10
    assert not [line for line in lines if "out of system resource" in line]
    assert await mirror.stop() == 0


def _open(mirror: Mirror) -> int:
    return len(os.listdir(f"/proc/{mirror.process.pid}/fd"))


async def test_f43_memory_is_bounded_with_many_slow_readers_and_many_fills(house: House) -> None:
    readers, fills, size = 300, 64, 4 * MIB
    large = house.hub.add_blob(os.urandom(16 * MIB))  # together 4.7 GiB, were it to be held
    coming = [house.hub.add_blob(os.urandom(size)) for _ in range(fills)]
    # So many that beside each that falls silent another is asked.
    endpoint = {"url": house.hub.url, "trust": "tags", "connections": 2 * fills}
    limits = {"fills": fills, "fills_per_registry": fills}
    mirror = await house.mirror(endpoint, limits=limits)
    assert (await mirror.blob(large)).is_whole(large)
    before = mirror.memory()
    until = asyncio.Event()
    hold(house.hub, 3 * MIB, until)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(reading(mirror, large, clients=readers))
        clients = [
            client
            for digest in coming
            for client in await stack.enter_async_context(reading(mirror, digest, clients=1))
        ]
        written = [3 * MIB] * fills
        await eventually(lambda: [path.stat().st_size for path in mirror.partials()] == written, 30)
        grown = mirror.memory() - before
        until.set()
        assert {len(body) for body in await all_of(*clients)} == {size}
        grown = max(grown, mirror.memory() - before)
    print(f"{grown / MIB:.0f} MiB more")
    # A MiB for each connection that brings a body: what was left has none.
    assert grown < 100 * MIB
