"""Long heads of answers, and how long they may be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
from aiohttp import web

from mirror.asking.retry_policy import RetryPolicy
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.upstream.endpoint import KIB, MIB
from mirror.upstream.http.heads import LONGEST_HEAD

from ..fakes import CONTEXT
from ..fakes.hub import Hub, status
from .conftest import REDIS, MakeRemote
from .test_remote import read

LAYER = b"layer " * 1000
ONCE = RetryPolicy(tries=1)


@contextlib.asynccontextmanager
async def bare(pieces: Callable[[], Iterable[bytes]]) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that answers every request with these pieces; its URL, and how many bytes of each
    answer were taken."""
    taken: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        taken.append(0)
        with contextlib.suppress(ConnectionError):
            for piece in pieces():
                writer.write(piece)
                await writer.drain()
                taken[-1] += len(piece)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", taken
    finally:
        server.close()


@pytest.mark.parametrize("length", [9, 16, 64, 200])
async def test_a_signed_url_may_be_long(hub: Hub, make_remote: MakeRemote, length: int) -> None:
    hub.challenge = "none"
    asked: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(len(await reader.readuntil(b"\r\n\r\n")))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LAYER) + LAYER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=MIB)
    async with server:
        host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        location = f"{host}/data?X-Amz-Security-Token={'t' * length * KIB}"
        hub.fail("registry", status(307, {"Location": location}))
        stream = await make_remote(hub.url).blob(CONTEXT, REDIS, Digest.of(LAYER))
        assert await read(stream) == LAYER
    assert asked[0] > length * KIB


@pytest.mark.parametrize("before", [1, 20])
async def test_a_challenge_may_be_long_and_one_of_many(
    hub: Hub, make_remote: MakeRemote, before: int
) -> None:
    digest = hub.add_image("library/redis", "7")

    async def challenged(request: web.Request) -> web.StreamResponse | None:
        if "Authorization" in request.headers:
            return None
        scope = " ".join(f"repository:project-{number}/app:pull" for number in range(300))
        answer = web.Response(status=401)
        for number in range(before):
            answer.headers.add("WWW-Authenticate", f'Digest realm="{number}", nonce="a,b"')
        wanted = f'Bearer realm="{hub.realm_url}",error="{"x" * 20_000}",service="hub"'
        answer.headers.add("WWW-Authenticate", f'{wanted},error_description="{scope}"')
        return answer

    hub.fail("registry", challenged, times=2)
    assert str((await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")).digest) == digest


async def test_headers_may_be_many(hub: Hub, make_remote: MakeRemote) -> None:
    hub.challenge = "none"
    digest = hub.add_image("library/redis", "7")

    async def decorated(request: web.Request) -> web.StreamResponse:
        data, media_type = hub.manifests[digest]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        answer = web.Response(body=data, headers=headers)
        for number in range(700):
            answer.headers.add("Set-Cookie", f"a{number}={'b' * 700}; Path=/")
        return answer

    hub.fail("registry", decorated)
    assert str((await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")).digest) == digest


def _field(number: int, length: int) -> bytes:
    return b"X-%d: " % number + b"a" * length + b"\r\n"


def _one_long() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX: "
    while True:
        yield b"a" * 8 * KIB


def _many() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in range(100_000):
        yield _field(number, 1)


def _much() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in range(2000):
        yield _field(number, 128 * KIB)


def _a_long_reason() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 "
    while True:
        yield b"a" * 8 * KIB


def _provisional() -> Iterable[bytes]:
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\n" + _field(0, 8 * KIB) + b"\r\n"


def _trailers() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    for number in range(2000):
        yield _field(number, 128 * KIB)


def _a_long_chunk_header() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2;"
    while True:
        yield b"a" * 8 * KIB


@pytest.mark.parametrize(
    "pieces",
    [_one_long, _many, _much, _a_long_reason, _provisional, _trailers, _a_long_chunk_header],
)
async def test_a_head_without_end_is_given_up_soon(
    make_remote: MakeRemote, pieces: Callable[[], Iterable[bytes]]
) -> None:
    async with bare(pieces) as (url, taken):
        remote = make_remote(url, policy=ONCE)

        async def asked() -> None:
            stream = await remote.blob(CONTEXT, REDIS, Digest.of(LAYER))
            await read(stream)

        with pytest.raises(Unavailable):
            await asyncio.wait_for(asked(), 20)
    # What the sockets hold is not memory of ours.
    assert taken[0] < LONGEST_HEAD + 8 * MIB


async def test_a_body_may_be_longer_than_a_head(hub: Hub, make_remote: MakeRemote) -> None:
    hub.challenge, hub.redirects = "none", False
    data = b"x" * (3 * LONGEST_HEAD)

    async def chunked(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        for start in range(0, len(data), 100_000):
            await answer.write(data[start : start + 100_000])
        return answer

    remote = make_remote(hub.url)
    digest = Digest.parse(hub.add_blob(data))
    for _ in range(3):  # over a connection that is kept
        assert await read(await remote.blob(CONTEXT, REDIS, digest)) == data
        hub.fail("registry", chunked)
