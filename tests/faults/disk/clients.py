"""Clients that have begun to read, and upstreams that keep them waiting."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

import aiohttp
from aiohttp import web

from ...fakes.hub import Fault, Hub
from ..house import House, Mirror


async def is_kept(house: House, mirror: Mirror, digest: str) -> bool:
    """Whether it is given out without anybody being asked."""
    before = len(house.hub.requests)
    return (await mirror.blob(digest)).is_whole(digest) and len(house.hub.requests) == before


@contextlib.asynccontextmanager
async def reading(
    mirror: Mirror, digest: str, clients: int
) -> AsyncIterator[list[Callable[[], Awaitable[bytes]]]]:
    """So many clients that have the head of their answer; each reads the rest when it is called,
    and raises ClientError when its connection is cut."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        )
        url = f"{mirror.url}/v2/library/redis/blobs/{digest}"
        responses = await asyncio.gather(*(session.get(url) for _ in range(clients)))
        for response in responses:
            stack.callback(response.close)
            assert response.status == 200
        yield [response.read for response in responses]


async def all_of(*readers: Callable[[], Awaitable[bytes]]) -> list[bytes]:
    """What they have read in the end."""
    return await asyncio.gather(*(read() for read in readers))


def waits_unmeasured(data: bytes, at: int, until: asyncio.Event) -> Fault:
    """As `waits`, without a Content-Length, and without Range."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(data[:at])
        await until.wait()
        await response.write(data[at:])
        await response.write_eof()
        return response

    return fault


def pace(hub: Hub, pause: float, piece: int = 64 << 10) -> None:
    """From now on its blobs come a piece at a time, with so many seconds between them: long enough
    for something to happen meanwhile."""

    async def send(response: web.StreamResponse, data: bytes, start: int) -> None:
        for offset in range(start, len(data), piece):
            await response.write(data[offset : offset + piece])
            await asyncio.sleep(pause)

    hub.fail("blobs", _sent_by(hub, send), times=10_000)


def hold(hub: Hub, at: int, until: asyncio.Event) -> None:
    """From now on its blobs come up to this offset, and the rest of them after the event."""

    async def send(response: web.StreamResponse, data: bytes, start: int) -> None:
        await response.write(data[start:at])
        await until.wait()
        await response.write(data[max(start, at) :])

    hub.fail("blobs", _sent_by(hub, send), times=10_000)


def _sent_by(
    hub: Hub, send: Callable[[web.StreamResponse, bytes, int], Coroutine[None, None, None]]
) -> Fault:
    """What is asked for, from where it is asked; `send` writes the body."""

    async def fault(request: web.Request) -> web.StreamResponse:
        data = hub.blobs[request.path.rpartition("/")[2]]
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= len(data):
            headers = {"Content-Range": f"bytes */{len(data)}"}
            return web.Response(status=416, headers=headers)
        response = web.StreamResponse(status=206 if asked else 200)
        if asked:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        await response.prepare(request)
        if request.method == "GET":
            await send(response, data, start)
        return response

    return fault
