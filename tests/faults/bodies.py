"""What a hub is told to send in place of a blob: the beginnings and ends that upstreams make up.

Each honours a Range, as a good server does, unless its words say otherwise.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

from aiohttp import web

from ..fakes.hub import Fault, Hub

MIB = 1 << 20


def mend(hub: Hub) -> None:
    """No fault that was ordered is served any more."""
    hub._faults.clear()


def wrong(data: bytes) -> bytes:
    """The same length, and another last byte."""
    return data[:-1] + bytes([data[-1] ^ 1])


def sends(data: bytes, headers: Mapping[str, str] | None = None) -> Fault:
    """All of it, from the beginning, whatever was asked."""

    async def fault(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers=headers)

    return fault


def breaks(data: bytes, at: int, headers: Mapping[str, str] | None = None) -> Fault:
    """The body up to this offset; then the connection is closed."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = await _begin(request, data, at, headers)
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


def stalls(data: bytes, at: int) -> Fault:
    """The body up to this offset; then nothing, for ever."""

    async def fault(request: web.Request) -> web.StreamResponse:
        await _begin(request, data, at)
        return await asyncio.Future()

    return fault


def stalls_once(blobs: Mapping[str, bytes], count: int) -> Fault:
    """The first answer for each of these blobs falls silent after so many bytes; all others are
    good. To be ordered for all asks."""
    return _once(stalls, blobs, count)


def drips_once(blobs: Mapping[str, bytes], count: int) -> Fault:
    """As `stalls_once`: after so many bytes a byte comes at a time."""
    return _once(drips, blobs, count)


def _once(ends: Callable[[bytes, int], Fault], blobs: Mapping[str, bytes], count: int) -> Fault:
    ended: set[str] = set()

    async def fault(request: web.Request) -> web.StreamResponse | None:
        digest = request.path.rpartition("/")[2]
        if digest in ended or digest not in blobs:
            return None
        ended.add(digest)
        start, _ = asked_range(request, blobs[digest])
        return await ends(blobs[digest], start + count)(request)

    return fault


def trickles(data: bytes, pause: float) -> Fault:
    """The body, 64 KiB at a time with a pause before each: slow, and never silent for long."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = await _begin(request, data, 0)
        for at in range(0, len(data), 1 << 16):
            await response.write(data[at : at + (1 << 16)])
            await asyncio.sleep(pause)
        return response

    return fault


def comes_late(seconds: float) -> Fault:
    """A good answer, after so many seconds."""

    async def fault(request: web.Request) -> None:
        await asyncio.sleep(seconds)

    return fault


def waits(data: bytes, at: int, until: asyncio.Event) -> Fault:
    """The body up to this offset, and the rest after the event."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = await _begin(request, data, at)
        await until.wait()
        await response.write(_rest(request, data, at))
        return response

    return fault


def drips(data: bytes, at: int) -> Fault:
    """The body up to this offset, and what follows a byte at a time."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = await _begin(request, data, at)
        for byte in _rest(request, data, at):
            await asyncio.sleep(0.02)  # a drip is made of time
            await response.write(bytes([byte]))
        return response

    return fault


def unmeasured(*pieces: bytes, endless: bool = False) -> Fault:
    """Chunked, without a Content-Length; `endless`: the last piece comes again and again."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        while endless:
            await response.write(pieces[-1])
        await response.write_eof()
        return response

    return fault


def part(data: bytes, claim: str | None, status: int = 206) -> Fault:
    """These bytes, with this Content-Range, whatever was asked."""
    return _answer(status, {"Content-Range": claim} if claim else {}, data)


def _answer(status: int, headers: Mapping[str, str], data: bytes) -> Fault:
    async def fault(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, body=data)

    return fault


async def _begin(
    request: web.Request, data: bytes, at: int, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """The head, and the body from where it was asked up to the offset `at`."""
    start, stop = asked_range(request, data)
    response = web.StreamResponse(status=206 if stop else 200, headers=headers)
    if stop:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    response.content_length = (stop or len(data)) - start
    await response.prepare(request)
    await response.write(data[start : min(at, stop or at)])
    return response


def _rest(request: web.Request, data: bytes, at: int) -> bytes:
    """What follows `_begin`: from the offset `at`, or from where it was asked, if that is later."""
    start, stop = asked_range(request, data)
    return data[max(at, start) : stop or len(data)]


def asked_range(request: web.Request, data: bytes) -> tuple[int, int]:
    """From where and up to where a body was asked for; 0 and 0 when it was the whole."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if match is None:
        return 0, 0
    return int(match[1]), min(int(match[2] or len(data) - 1) + 1, len(data))


def says_nothing() -> Fault:
    """No answer, for ever."""

    async def fault(request: web.Request) -> web.StreamResponse:
        return await asyncio.Future()

    return fault
