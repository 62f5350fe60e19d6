"""Several who use one store: slow readers and eviction, two mirrors, and workers that die."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp

from ...waiting import eventually
from ..bodies import MIB
from ..house import PORT, House, Mirror
from .clients import all_of, hold, is_kept, reading


async def test_f36_slow_readers_finish_what_is_evicted(house: House) -> None:
    size = 16 * MIB  # more than the sockets' buffers hold
    old, new = os.urandom(size), os.urandom(size)
    digest, other = house.hub.add_blob(old), house.hub.add_blob(new)
    mirror = await house.mirror(storage={"max_size": "24MiB"})
    assert (await mirror.blob(digest)).is_whole(digest)
    async with reading(mirror, digest, clients=3) as clients:
        assert (await mirror.blob(other)).is_whole(other)
        assert await mirror.metric("cache_bytes") == size
        assert [path.name for path in mirror.blobs()] == [other.partition(":")[2]]
        assert await all_of(*clients) == [old] * 3
    assert await is_kept(house, mirror, other)


async def test_f40_a_worker_is_killed_while_another_follows_its_fill(house: House) -> None:
    data = os.urandom(6 * MIB)
    digest = house.hub.add_blob(data)
    until = asyncio.Event()
    hold(house.hub, 4 * MIB, until)
    mirror = await house.mirror(workers=2)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True)
    ) as session:
        url = f"{mirror.url}/v2/library/redis/blobs/{digest}"
        # The kernel deals the connections out: with so many, each worker has some.
        clients = await asyncio.gather(*(session.get(url) for _ in range(24)))
        workers = [_worker_of(mirror, client) for client in clients]
        await eventually(lambda: [path.stat().st_size for path in mirror.partials()] == [4 * MIB])
        [lock] = mirror.locks()
        writer = int(lock.split()[4])
        assert len(set(workers)) == 2
        assert writer in workers
        os.kill(writer, signal.SIGKILL)
        bodies = asyncio.gather(*(client.read() for client in clients), return_exceptions=True)
        await eventually(lambda: house.hub.count("blobs", "GET") == 2)
        until.set()
        for worker, body in zip(workers, await bodies, strict=True):
            if worker == writer:
                assert isinstance(body, aiohttp.ClientPayloadError)
            else:
                assert body == data, "a client of the living noticed"
    second = house.hub.seen("blobs", "GET")[1]
    assert second.headers["Range"] == f"bytes={4 * MIB}-"
    await eventually(lambda: mirror.events("worker_died"))
    await eventually(lambda: writer not in mirror.processes() and _workers(mirror) == 2)
    for _ in range(8):  # whichever answers
        assert await is_kept(house, mirror, digest)


def _workers(mirror: Mirror) -> int:
    """How many workers listen on its port."""
    listening = {inode for inode, _, state in _sockets() if state == "0A"}
    listening &= {inode for inode, address, _ in _sockets() if address[0][1] == PORT}
    others = set(mirror.processes()) - {mirror.pid}  # the parent only holds the sockets
    return sum(bool(listening & _open_sockets(pid)) for pid in others)


def _worker_of(mirror: Mirror, client: aiohttp.ClientResponse) -> int:
    """The process at the other end of this connection."""
    assert client.connection is not None
    assert client.connection.transport is not None
    port = client.connection.transport.get_extra_info("sockname")[1]
    ours = {inode for inode, (here, there), _ in _sockets() if (here[1], there[1]) == (PORT, port)}
    [worker] = [pid for pid in mirror.processes() if ours & _open_sockets(pid)]
    return worker


def _sockets() -> list[tuple[str, tuple[tuple[str, int], tuple[str, int]], str]]:
    """Inode, ends and state of each TCP socket of this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [(row[9], (_end(row[1]), _end(row[2])), row[3]) for row in rows]


def _end(text: str) -> tuple[str, int]:
    address, _, port = text.partition(":")
    return address, int(port, 16)


def _open_sockets(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            found.add(target[len("socket:[") : -1])
    return found
