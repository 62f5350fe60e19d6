"""Bodies so big that they are taken from the connection without aiohttp's parser."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import hashlib
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.ranges import ByteRange
from mirror.upstream.client.remote import Remote
from mirror.upstream.http.heads import Connector
from mirror.upstream.http.receiver import Receiver
from mirror.upstream.http.receiving import ReceiverThread, Reception
from mirror.upstream.http.stream import BlobStream

from ..fakes import CONTEXT
from ..waiting import eventually, until
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


@asynccontextmanager
async def remote_of(
    host: Host,
    make_remote: MakeRemote,
    folder: Path,
    scheme: str,
    connections: int = 1,
    most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> AsyncIterator[Remote]:
    limits = replace(QUICK, connections=connections)
    authority = Authority(folder)
    trusting = authority.trusted()
    context = authority.server("registry.example") if scheme == "https" else None
    if context is not None:
        context.maximum_version = most
    async with served(host, context) as port:
        url = f"{scheme}://registry.example:{port}"
        yield make_remote(url, resolver=Names("127.0.0.1"), tls=trusting, limits=limits)


@pytest.fixture(params=["http", "https"])
async def remote(
    request: pytest.FixtureRequest, host: Host, make_remote: MakeRemote, tmp_path: Path
) -> AsyncIterator[Remote]:
    async with remote_of(host, make_remote, tmp_path, request.param) as remote:
        yield remote


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


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_who_leaves_in_the_middle_gives_the_connection_back(
    host: Host, remote: Remote
) -> None:
    assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG
    before = descriptors()
    for _ in range(3):
        stream = await remote.blob(CONTEXT, REDIS, DIGEST)
        for _ in range(3):
            assert await stream.read()
        await stream.close()
    assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG
    await eventually(lambda: descriptors() <= before)


async def test_a_remote_that_is_closed_in_the_middle_ends_the_body(
    host: Host, remote: Remote
) -> None:
    host.stop, host.stall = 5_000_000, asyncio.Event()
    stream = await remote.blob(CONTEXT, REDIS, DIGEST)
    data = bytearray()
    while len(data) < host.stop:
        data += await stream.read()
    waiting = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    await remote.close()
    with pytest.raises(Unavailable, match="cut a blob short"):
        await waiting
    await stream.close()
    host.stall.set()


async def test_many_bodies_that_stall_hold_up_no_other(
    host: Host, make_remote: MakeRemote, tmp_path: Path
) -> None:
    """More than there are threads for."""
    host.stop, host.stall = 1_000_000, asyncio.Event()
    async with remote_of(host, make_remote, tmp_path, "https", connections=16) as remote:
        stalled = [await remote.blob(CONTEXT, REDIS, DIGEST) for _ in range(12)]
        for stream in stalled:
            came = 0
            while came < host.stop:
                came += len(await stream.read())
        waiting = [asyncio.create_task(stream.read()) for stream in stalled]
        host.stop = len(BIG)
        assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG
        assert not any(task.done() for task in waiting)
        host.stall.set()
        for stream, task in zip(stalled, waiting, strict=True):
            assert await task == BIG[1_000_000:][: len(task.result())]
            await stream.close()


async def test_what_there_was_room_for_is_told_when_other_bodies_take_the_room() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    arrived = asyncio.Event()
    reception = Reception(reading, None, 64 << 20, arrived.set, lambda error: None)
    thread = ReceiverThread()  # whose turns are taken here
    try:
        reception.came = 2 << 20  # from now on the loop is told when half of the room is taken
        os.write(writing, bytes(1 << 20))
        thread.jobs = 1
        thread._advance(reception)
        assert not reception.parked
        thread.jobs = 64
        thread._advance(reception)
        assert reception.parked
        await asyncio.wait_for(arrived.wait(), 10)
    finally:
        thread.end(reception)
        thread.release()
        os.close(reading)
        os.close(writing)


async def test_a_socket_that_cannot_be_waited_for_ends_its_body_and_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(reception: Reception) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    reception = Reception(reading, None, 1 << 20, lambda: None, ended.set_result)
    thread = ReceiverThread()  # whose turn is taken here
    monkeypatch.setattr(thread, "_wait", full)
    try:
        thread._advance(reception)
        error = await asyncio.wait_for(ended, 10)
        assert isinstance(error, OSError)
        assert error.errno == errno.ENOSPC
    finally:
        thread.release()
        os.close(reading)
        os.close(writing)


async def test_tls_1_2(host: Host, make_remote: MakeRemote, tmp_path: Path) -> None:
    old = ssl.TLSVersion.TLSv1_2
    async with remote_of(host, make_remote, tmp_path, "https", most=old) as remote:
        for _ in range(2):
            assert await read(await remote.blob(CONTEXT, REDIS, DIGEST)) == BIG
    assert len(host.connections) == 1


async def test_what_comes_behind_the_last_byte_is_no_answer(
    make_remote: MakeRemote, tmp_path: Path
) -> None:
    """In the same record as the end of a body, so that it has been decrypted with it."""
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    body = BIG[: 1 << 20]
    digest = Digest.parse("sha256:" + hashlib.sha256(body).hexdigest())
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                writer.write(body[:-1000])
                writer.write(body[-1000:] + smuggled)

    authority = Authority(tmp_path)
    context = authority.server("registry.example")
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://registry.example:{server.sockets[0].getsockname()[1]}"
        remote = make_remote(url, resolver=Names("127.0.0.1"), tls=authority.trusted())
        for _ in range(2):
            assert await read(await remote.blob(CONTEXT, REDIS, digest)) == body
        assert len(connections) == 2
        await remote.close()


def test_threads_end_with_their_loop(host: Host) -> None:
    def threads() -> int:
        return sum(thread.name == "upstream" for thread in threading.enumerate())

    async def receive() -> None:
        async with (
            served(host, None) as port,
            aiohttp.ClientSession(connector=Connector()) as session,
            session.get(f"http://127.0.0.1:{port}/") as response,
        ):
            came = len(await response.content.read(100_000))
            receiver = Receiver.take_over(response, came)
            assert receiver is not None
            while piece := await receiver.read():
                came += len(piece)
            assert came == len(BIG)
            assert threads() == before + 1

    gc.collect()
    before = threads()
    asyncio.run(receive())
    host.seen.clear()  # they know the loop
    until(lambda: gc.collect() >= 0 and threads() <= before)
