"""Registries and misbehaving clients in processes of their own, for tests of what one client's
behaviour costs the others. Neither's CPU time is taken from the process that measures.

    python -m tests.faults.neighbourhood registries 2 0.0
    python -m tests.faults.neighbourhood guarded 2 0.0
    python -m tests.faults.neighbourhood client leaves http://127.1.2.3:5000 127.0.0.2

Both write one line when they are ready, and go on until they are killed or their input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from tests.e2e.programs import REPOSITORY

KIB, MIB = 1 << 10, 1 << 20
LARGE = 16 * MIB  # bytes of a blob of `drips`
DRIP = 20 * KIB  # and how many come in a second
MANY = 120  # layers of an image of `many`, a MiB each

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCTET_STREAM = "application/octet-stream"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def made_up(number: int) -> str:
    """The digest of a blob that repositories below `drips/` claim to have."""
    return digest_of(f"made up {number}".encode())


@dataclass(frozen=True)
class Image:
    """What a repository with this name has under every tag."""

    manifest: bytes
    config: bytes
    layers: Sequence[bytes]

    @classmethod
    def of(cls, name: str) -> Image:
        draw = random.Random(name)
        sizes = [MIB] * MANY if name.startswith("many/") else [5 * KIB]
        layers = [draw.randbytes(size) for size in sizes]
        config = json.dumps({"architecture": "amd64", "os": "linux", "of": name}).encode()
        described = [
            {"mediaType": OCTET_STREAM, "digest": digest_of(blob), "size": len(blob)}
            for blob in (config, *layers)
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        return cls(json.dumps(manifest).encode(), config, layers)

    @property
    def blobs(self) -> Sequence[bytes]:
        return (self.config, *self.layers)


class Registries:
    """Registries that have every image that is asked for. Below `drips/` every blob is there, is
    LARGE, and comes slowly, without an end that anybody would wait for. Each answer begins
    `latency` seconds after its request. Below `absent/` nothing is there, and below `mute/` nothing
    is ever answered. `guarded`: they want tokens of a realm, which gives them to anybody, and for
    what is below `mute/` never answers either."""

    def __init__(self, latency: float, guarded: bool = False) -> None:
        self._latency = latency
        self._guarded = guarded
        self._images: dict[str, Image] = {}
        self._blobs: dict[str, bytes] = {}

    async def serve(self, count: int) -> list[str]:
        """The URLs of so many registries."""
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for _ in range(count):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        return [f"http://127.0.0.1:{address[1]}" for address in runner.addresses]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self._latency)
        if request.path == "/token":
            return await self._token(request)
        if self._guarded and "Authorization" not in request.headers:
            wanted = f'Bearer realm="{request.url.origin()}/token",service="guarded"'
            return web.Response(status=401, headers={"WWW-Authenticate": wanted})
        if request.path.startswith("/v2/mute/"):
            await asyncio.Event().wait()
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", request.path)
        if match is None or match[1].startswith("absent/"):
            return web.Response(status=404)
        name, kind = match[1], match[2]
        if kind == "manifests":
            image = self._images.get(name) or self._images.setdefault(name, Image.of(name))
            self._blobs |= {digest_of(blob): blob for blob in image.blobs}
            headers = {
                "Content-Type": OCI_MANIFEST,
                "Docker-Content-Digest": digest_of(image.manifest),
            }
            return web.Response(body=image.manifest, headers=headers)
        data = self._blobs.get(match[3])
        if data is not None:
            return web.Response(body=data)
        return await self._drip(request) if name.startswith("drips/") else web.Response(status=404)

    async def _token(self, request: web.Request) -> web.Response:
        if request.query.get("scope", "").startswith("repository:mute/"):
            await asyncio.Event().wait()
        return web.json_response({"token": "good", "expires_in": 300})

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1 if asked and asked[2] else LARGE, LARGE)
        response = web.StreamResponse(status=206 if asked else 200)
        if asked:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{LARGE}"
        response.content_length = stop - start
        await response.prepare(request)
        # The beginning at once: the mirror's client has its head and first bytes soon.
        piece = min(2 * MIB, stop - start)
        while start < stop:
            await response.write(bytes(piece))
            start += piece
            piece = min(DRIP // 10, stop - start)
            await asyncio.sleep(0.1)
        return response


# Clients, each of which tells what it asks for and how it takes it.


@dataclass(frozen=True)
class Mirror:
    """As a client sees it. `sources`: the addresses from which it asks, in turn."""

    host: str
    port: int
    sources: Iterator[str]

    def connect(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        client.bind((next(self.sources), 0))
        client.connect((self.host, self.port))
        return client

    def ask(self, path: str, *fields: str, method: str = "GET") -> socket.socket:
        client = self.connect()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", *fields, "", ""]
        client.sendall("\r\n".join(lines).encode())
        return client


Misbehaves = Callable[[Mirror], Awaitable[None]]


async def leaves(mirror: Mirror) -> None:
    """Asks for large layers, each of which it has no use for 20 ms later."""
    for number in range(80):
        client = mirror.ask(f"/v2/drips/left/blobs/{made_up(number)}")
        await asyncio.sleep(0.02)
        client.close()


async def ranges(mirror: Mirror) -> None:
    """Reads the same large blob over many connections, each from far within, at 8 kB/s."""
    clients = [
        mirror.ask(f"/v2/drips/far/blobs/{made_up(0)}", f"Range: bytes={8 * MIB + number * KIB}-")
        for number in range(60)
    ]
    _go_on(_reads(clients, 8000))


async def stays(mirror: Mirror) -> None:
    """Asks for more layers of one registry than may be fetched at once, and reads them all."""
    clients = [mirror.ask(f"/v2/drips/stays/blobs/{made_up(number)}") for number in range(80)]
    _go_on(_reads(clients, 64 * KIB))


async def two_registries(mirror: Mirror) -> None:
    """As `stays`, of two other registries."""
    clients = [
        mirror.ask(f"/v2/drips/of-{name}/blobs/{made_up(number)}?ns={name}")
        for number in range(40)
        for name in ("slow.example", "slower.example")
    ]
    _go_on(_reads(clients, 64 * KIB))


async def one_registry(mirror: Mirror) -> None:
    """As `stays`, of one other registry."""
    clients = [
        mirror.ask(f"/v2/drips/one/blobs/{made_up(number)}?ns=slow.example") for number in range(40)
    ]
    _go_on(_reads(clients, 64 * KIB))


async def asks_in_vain(mirror: Mirror) -> None:
    """Asks a registry for more than it may be asked at once, all of which it never answers."""
    asked = ("tags/list", "manifests/1", f"manifests/{made_up(0)}", f"blobs/{made_up(0)}")
    _background.extend(
        mirror.ask(f"/v2/mute/a{number}/{what}") for what in asked for number in range(40)
    )


async def made_up_tags(mirror: Mirror) -> None:
    """Asks for tags that do not exist, faster than the registry answers, and does not wait."""

    async def flood() -> None:
        for number in itertools.count():
            client = mirror.ask(f"/v2/absent/a{number}/manifests/1", method="HEAD")
            client.setblocking(False)
            clients.append(client)
            if len(clients) > 500:
                clients.pop(0).close()
            await asyncio.sleep(0.005)

    clients: list[socket.socket] = []
    _go_on(flood())


async def slow_readers(mirror: Mirror) -> None:
    """Takes what is cached over many connections, and reads next to nothing."""
    clients = [mirror.ask("/v2/many/warm/manifests/1") for _ in range(100)]
    layer = digest_of(Image.of("many/warm").layers[0])
    clients += [mirror.ask(f"/v2/many/warm/blobs/{layer}") for _ in range(400)]
    _go_on(_reads(clients, 100))


async def idle_connections(mirror: Mirror) -> None:
    """Connects, often, and asks nothing, or not to the end."""
    clients = [mirror.connect() for _ in range(1000)]
    for client in clients[::2]:
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: ")
    _background.append(clients)


async def looks_at_an_image(mirror: Mirror) -> None:
    """Takes the manifest of a large image, and the first bytes of one of its layers."""
    image = Image.of("many/looked-at")
    for path in ("manifests/1", f"blobs/{digest_of(image.layers[0])}"):
        client = mirror.ask(f"/v2/many/looked-at/{path}")
        await asyncio.get_running_loop().run_in_executor(None, client.recv, 1)
        client.close()


async def nothing(mirror: Mirror) -> None:
    """Behaves."""


_background: list[object] = []


def _go_on(work: Awaitable[None]) -> None:
    _background.append(asyncio.ensure_future(work))


async def _reads(clients: Sequence[socket.socket], speed: int) -> None:
    """Reads so many bytes a second from each."""
    for client in clients:
        client.setblocking(False)
    while True:
        for client in clients:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.recv(speed // 2)
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def process(*words: str) -> AsyncIterator[list[str]]:
    """One of these programs, running; the words with which it says that it is ready."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.neighbourhood", *words),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert running.stdout is not None
        async with asyncio.timeout(60):
            line = await running.stdout.readline()
        assert line, f"{words} has ended"
        yield line.decode().split()
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


async def _main(what: str, *words: str) -> None:
    if what in ("registries", "guarded"):
        registries = Registries(float(words[1]), what == "guarded")
        print(*await registries.serve(int(words[0])), flush=True)
    else:
        misbehaves: Misbehaves = globals()[words[0]]
        url = urlsplit(words[1])
        assert url.hostname is not None
        assert url.port is not None
        await misbehaves(Mirror(url.hostname, url.port, itertools.cycle(words[2:])))
        print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever began it ends, in whatever way


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
