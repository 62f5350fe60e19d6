"""Bodies so big that they are taken from the connection without aiohttp's parser."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.ranges import ByteRange
from mirror.upstream.client.remote import Remote
from mirror.upstream.http import buffers
from mirror.upstream.http.stream import BlobStream

from ..fakes import CONTEXT
from .conftest import QUICK, REDIS, MakeRemote
from .test_transport import Authority, Names

BIG = os.urandom((9 << 20) + 7)
DIGEST = Digest.parse("sha256:" + hashlib.sha256(BIG).hexdigest())


@dataclass
class Host:
    """Gives BIG, or the part of it that is asked for, up to `stop`."""

    stop: int = len(BIG)
    chunked: bool = False
    stall: asyncio.Event | None = None  # what comes at `stop` is waited for, when set
    slowly: bool = False
    connections: set[int] = field(default_factory=set)
    seen: list[web.BaseRequest] = field(default_factory=list)  # keeps ids from being used again

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(id(request.transport))
        self.seen.append(request)
        start = int(request.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(BIG) - 1}/{len(BIG)}"
        if self.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(BIG) - start
        await response.prepare(request)
        for at in range(start, self.stop, 100_000):
            await response.write(BIG[at : min(at + 100_000, self.stop)])
            if self.slowly:
                await asyncio.sleep(0)
        if self.stop < len(BIG) and self.stall is not None:
            stopped = self.stop
            await self.stall.wait()
            await response.write(BIG[stopped : self.stop])
        if self.stop < len(BIG):
            assert request.transport is not None
            request.transport.close()
        return response


Open = Callable[..., Remote]


@asynccontextmanager
async def served(host: Host, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    runner = web.ServerRunner(web.Server(host.answer), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture(params=["http", "https"])
async def remote(
    request: pytest.FixtureRequest, host: Host, make_remote: MakeRemote, tmp_path: Path
) -> AsyncIterator[Remote]:
    limits = replace(QUICK, connections=1)
    authority = Authority(tmp_path)
    trusting = authority.trusted()
    context = authority.server("registry.example") if request.param == "https" else None
    async with served(host, context) as port:
        url = f"{request.param}://registry.example:{port}"
        yield make_remote(url, resolver=Names("127.0.0.1"), tls=trusting, limits=limits)


async def read(stream: BlobStream, into: bytearray | None = None) -> bytes:
    data = bytearray() if into is None else into
    try:
        while piece := await stream.read():
            data += piece
    finally:
        await stream.close()
    return bytes(data)


async def test_the_connection_is_used_again(host: Host, remote: Remote) -> None:
    for start in (0, 1234, 0):
        part = ByteRange(start) if start else None
        assert await read(await remote.blob(CONTEXT, REDIS, DIGEST, part)) == BIG[start:]
    assert len(host.seen) == 3
    assert len(host.connections) == 1


async def test_what_came_slowly_is_the_same(host: Host, remote: Remote) -> None:
    host.slowly = True
    assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG


async def test_a_body_without_a_length_is_read_to_its_end(host: Host, remote: Remote) -> None:
    host.chunked = True
    assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG


@pytest.mark.parametrize("stop", [len(BIG) - 1, 5_000_000, (1 << 20) + 1])
async def test_f02_all_that_came_before_a_cut_is_given(
    host: Host, remote: Remote, stop: int
) -> None:
    host.stop = stop
    data = bytearray()
    with pytest.raises(Unavailable, match="cut a blob short"):
        await read(await remote.blob(CONTEXT, REDIS, DIGEST), data)
    assert data == BIG[:stop]
    host.stop = len(BIG)
    assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG


async def test_f03_a_reader_that_stopped_waiting_in_a_stall_misses_nothing(
    host: Host, remote: Remote
) -> None:
    host.stop, host.stall = 5_000_000, asyncio.Event()
    stream = await remote.blob(CONTEXT, REDIS, DIGEST)
    data = bytearray()
    while len(data) < host.stop:
        data += await stream.read()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.read(), 0.05)
    host.stop = len(BIG)
    host.stall.set()
    assert await read(stream, data) == BIG


async def test_who_leaves_in_the_middle_gives_the_connection_back(
    host: Host, remote: Remote
) -> None:
    for _ in range(3):
        stream = await remote.blob(CONTEXT, REDIS, DIGEST)
        for _ in range(3):
            assert await stream.read()
        await stream.close()
    assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG


async def test_pieces_that_are_kept_stay_what_they_were(host: Host, remote: Remote) -> None:
    stream = await remote.blob(CONTEXT, REDIS, DIGEST)
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    await stream.close()
    assert b"".join(pieces) == BIG


def test_memory_is_lent_again_after_its_last_view() -> None:
    view = buffers.lend()
    view[:4] = b"mine"
    part = view[:4]
    del view
    others = [buffers.lend() for _ in range(20)]
    for other in others:
        other[:4] = b"your"
    assert bytes(part) == b"mine"


@pytest.mark.parametrize("cut", [False, True], ids=["left", "cut"])
async def test_a_stream_that_was_closed_keeps_no_memory(
    host: Host, remote: Remote, cut: bool
) -> None:
    """Also while something still refers to it, as a task's error may until the garbage is taken."""
    host.stop, host.stall = 3 << 20, None if cut else asyncio.Event()
    stream = await remote.blob(CONTEXT, REDIS, DIGEST)
    came = 0
    while came < host.stop:
        came += len(await stream.read())
    error: Exception | None = None
    if cut:
        with pytest.raises(Unavailable) as raised:
            await stream.read()
        error = raised.value
    buffers._spare.clear()
    await stream.close()
    assert len(buffers._spare) > 0
    assert stream.source  # it is there all the same, and
    assert error is None or error.__cause__ is not None  # so is the error
    if host.stall is not None:
        host.stall.set()
