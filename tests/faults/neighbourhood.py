"""Registries, good and hostile, in a process of their own, for tests of what one client's behaviour
costs the others; the clients are in misbehaving.py. Neither's CPU time is taken from the process
that measures.

    python -m tests.faults.neighbourhood 3 0.1
    python -m tests.faults.neighbourhood 3 0.1 guarded

It writes one line with the URLs when it is ready, and goes on until it is killed or its input ends.
Then it writes, as JSON, how often it was asked for names with which first part.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from ..e2e.programs import REPOSITORY

KIB, MIB = 1 << 10, 1 << 20
LARGE = 16 * MIB  # bytes of a blob of `drips`
DRIP = 20 * KIB  # and how many come in a second
MANY = 120  # layers of an image of `many`, a MiB each
CLAIM = 60 * MIB  # bytes that a blob of `claims` is said to have; next to none of them come
COLD = [f"small/cold-{number}" for number in range(20)]  # nobody has asked for them before
WIDE = 4096  # layers of an image of `wide`: as many as are taken
HUGE = 34_000  # layers of an image of `huge`, in 4 MB

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
OCTET_STREAM = "application/octet-stream"

# As long as a line may be, with many ways to be read as a list of links.
LINK = ("<a>" * 1300 + ";" * 4200)[:8100]


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
        words = {"architecture": "amd64", "os": "linux", "created": "2020-02-02T00:00:00Z"}
        config = json.dumps({**words, "of": name}).encode()
        described = [
            {"mediaType": OCTET_STREAM, "digest": digest_of(blob), "size": len(blob)}
            for blob in (config, *layers)
        ]
        return cls(_manifest(described[0], described[1:]), config, layers)

    @property
    def blobs(self) -> Sequence[bytes]:
        return (self.config, *self.layers)


def _manifest(config: object, layers: Sequence[object]) -> bytes:
    words = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(words, separators=(",", ":")).encode()


@functools.cache
def _of_layers(count: int) -> bytes:
    """A manifest with so many layers, none of which there is."""
    described = [
        {"mediaType": "a/b", "digest": made_up(number), "size": 1} for number in range(count + 1)
    ]
    return _manifest(described[0], described[1:])


class Registries:
    """Registries that have every image that is asked for. Each answer begins `latency` seconds
    after its request. What is different has its name's first part:

    - `drips`: every blob is there, is LARGE, and comes slowly, without an end that anybody would
      wait for;
    - `claims`: every blob is there, is said to have CLAIM bytes, and falls silent after some;
    - `absent`: nothing is there;
    - `public`: what neighbours will ask for (COLD) is there, too;
    - `mute`: nothing is ever answered;
    - `strict`: lists of tags are refused as wrong requests;
    - `links`: lists of tags come with LINK;
    - `wide`, `huge`: the image has that many layers;
    - `old`: the image's manifest is one of Docker's schema 1.

    `guarded`: they want tokens of a realm, which gives them to anybody, and for what is `mute`
    never answers either.

    The last of their URLs is an accelerator's: it has nothing, but says that all blobs of `public`
    are there, and sends as many other bytes, slowly. It counts them as `junk`.
    """

    def __init__(self, latency: float, guarded: bool = False) -> None:
        self._latency = latency
        self._guarded = guarded
        self._images: dict[str, Image] = {}
        self._blobs = {digest_of(blob): blob for name in COLD for blob in Image.of(name).blobs}
        self.asked: Counter[str] = Counter()

    async def serve(self, count: int) -> list[str]:
        """The URLs of so many registries, and of the accelerator."""
        return [*await _serve(self._answer, count), *await _serve(self._lie, 1)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self._latency)
        if request.path == "/token":
            return await self._token(request)
        if self._guarded and "Authorization" not in request.headers:
            wanted = f'Bearer realm="{request.url.origin()}/token",service="guarded"'
            return web.Response(status=401, headers={"WWW-Authenticate": wanted})
        match = re.fullmatch(r"/v2/((\w+)/.+)/(manifests|blobs|tags)/([^/]+)", request.path)
        if match is None:
            return web.Response(status=404)
        name, first, kind, reference = match.groups()
        self.asked[first] += 1
        if first == "absent":
            return web.Response(status=404)
        if first == "mute":
            await asyncio.Event().wait()
        if kind == "tags":
            return _tags(first, name)
        if kind == "manifests":
            return self._manifest(first, name)
        if first in ("drips", "claims"):
            return await _sends_slowly(request, LARGE if first == "drips" else CLAIM)
        data = self._blobs.get(reference)
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _token(self, request: web.Request) -> web.Response:
        if request.query.get("scope", "").startswith("repository:mute/"):
            self.asked["mute"] += 1
            await asyncio.Event().wait()
        return web.json_response({"token": "good", "expires_in": 300})

    def _manifest(self, first: str, name: str) -> web.Response:
        kind = OCI_MANIFEST
        if first in ("wide", "huge"):
            body = _of_layers(WIDE if first == "wide" else HUGE)
        elif first == "old":
            kind, body = SCHEMA_1, json.dumps({"schemaVersion": 1, "name": name}).encode()
        else:
            image = self._images.get(name) or self._images.setdefault(name, Image.of(name))
            self._blobs |= {digest_of(blob): blob for blob in image.blobs}
            body = image.manifest
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest_of(body)}
        return web.Response(body=body, headers=headers)

    async def _lie(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self._latency)
        blob = self._blobs.get(request.path.rpartition("/")[2])
        if blob is None or not request.path.startswith("/v2/public/"):
            return web.Response(status=404)
        self.asked["junk"] += 1
        response = web.StreamResponse()
        response.content_length = len(blob)
        with contextlib.suppress(ConnectionError):  # whoever asked has left
            await response.prepare(request)
            for _ in blob:
                await response.write(b"?")
                await asyncio.sleep(0.1)
        return response


async def _serve(answer: Answer, count: int) -> list[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for _ in range(count):
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    return [f"http://127.0.0.1:{address[1]}" for address in runner.addresses]


def _tags(first: str, name: str) -> web.Response:
    if first == "strict":
        return web.Response(status=405)
    headers = {"Link": LINK} if first == "links" else {}
    return web.json_response({"name": name, "tags": ["1"]}, headers=headers)


async def _sends_slowly(request: web.Request, size: int) -> web.StreamResponse:
    """As many zeros, or the range of them that was asked for. Of a blob of CLAIM, 1000 come."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    start = int(asked[1]) if asked else 0
    stop = min(int(asked[2]) + 1 if asked and asked[2] else size, size)
    response = web.StreamResponse(status=206 if asked else 200)
    if asked:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response.content_length = stop - start
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    if size == CLAIM:
        await response.write(bytes(min(1000, stop - start)))
        await asyncio.Event().wait()
    # The beginning at once: the mirror's client has its head and first bytes soon.
    piece = min(2 * MIB, stop - start)
    while start < stop:
        await response.write(bytes(piece))
        start += piece
        piece = min(DRIP // 10, stop - start)
        await asyncio.sleep(0.1)
    return response


@dataclass(frozen=True)
class Program:
    """One that runs. `words`: with which it said that it is ready."""

    words: Sequence[str]
    _process: asyncio.subprocess.Process

    async def end(self) -> Mapping[str, int]:
        """Ends it; what it has counted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        async with asyncio.timeout(30):
            counts: dict[str, int] = json.loads(await self._process.stdout.readline())
            return counts


@contextlib.asynccontextmanager
async def program(module: str, *words: str) -> AsyncIterator[Program]:
    """`python -m tests.faults.MODULE WORDS`, as soon as it is ready."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.faults.{module}", *words),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert running.stdout is not None
        async with asyncio.timeout(60):
            line = await running.stdout.readline()
        assert line, f"{words} has ended"
        yield Program(line.decode().split(), running)
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


async def _main(count: str, latency: str, *guarded: str) -> None:
    registries = Registries(float(latency), bool(guarded))
    print(*await registries.serve(int(count)), flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever began it ends, in whatever way
    print(json.dumps(registries.asked), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
