"""What somebody only says of a blob: its length takes no room, and evicts nobody's content."""

from __future__ import annotations

import asyncio
import os

import pytest
from aiohttp import web

from ...fakes.hub import Fault
from ...waiting import eventually
from ..bodies import MIB
from ..house import House, Mirror

ROOM = 16 * MIB


def claims(size: int, data: bytes, until: asyncio.Event) -> Fault:
    """Says that a blob has so many bytes, sends these, and keeps the connection."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = size
        await response.prepare(request)
        if request.method == "GET":
            await response.write(data)
            await until.wait()
        return response

    return fault


async def filled(house: House, mirror: Mirror) -> int:
    """Fills the cache; how many blobs it has then."""
    for _ in range(15):
        digest = house.hub.add_blob(os.urandom(MIB))
        assert (await mirror.blob(digest)).is_whole(digest)
    return len(mirror.blobs())


@pytest.mark.parametrize("trust", ["tags", "content"])
async def test_a_length_that_is_only_claimed_evicts_nothing(house: House, trust: str) -> None:
    liar = await house.another_hub()
    endpoints = [house.hub, {"url": liar.url, "trust": trust}] if trust == "content" else [liar]
    house.partials = True
    mirror = await house.mirror(*endpoints, storage={"max_size": "16MiB"})
    if trust == "tags":
        house.hub = liar
    full = await filled(house, mirror)
    until = asyncio.Event()
    names = [f"sha256:{number:064x}" for number in range(12)]
    for hub in {house.hub, liar}:
        hub.blobs |= dict.fromkeys(names, b"")  # or so it says
        hub.fail("blobs", claims(ROOM - MIB, os.urandom(1000), until), times=1000)
    asking = [asyncio.create_task(mirror.blob(name)) for name in names]
    await eventually(lambda: len(mirror.partials()) == len(names))
    for _ in range(3):
        await asyncio.sleep(0.1)  # it would have evicted by now
        assert len(mirror.blobs()) >= full - 1
    used = await mirror.metric("cache_bytes") + await mirror.metric("cache_reserved_bytes")
    assert used <= ROOM
    for task in asking:
        task.cancel()
    until.set()
    await asyncio.gather(*asking, return_exceptions=True)
    mirror.kill()  # it would ask again for minutes
