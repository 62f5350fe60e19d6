"""A Transport without a network: the endpoint behind it does as its trouble says.

The waits of a real one, which end in its sessions and sockets, are made here by the same limits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_MANIFEST
from mirror.upstream.endpoint import EndpointLimits
from mirror.upstream.failures import FailureKind, Unreachable, Unreached

from ..fakes import manifest_of

LIMITS = EndpointLimits()
FOR_EVER = 1e6
PIECE = 64 << 10
CONFIG = b"{}"
LAYER = bytes(range(256)) * (16 << 10)  # 4 MiB
MANIFEST = manifest_of(CONFIG, LAYER)
BLOBS = {str(Digest.of(blob)): blob for blob in (CONFIG, LAYER)}
TAG, MANIFEST_DIGEST, LAYER_DIGEST = "7", Digest.of(MANIFEST), Digest.of(LAYER)


@dataclass
class Body:
    """The bytes of an answer. From the offset `stop` on each piece takes `pause` seconds."""

    data: bytes = b""
    stop: int = 1 << 60
    pause: float = 0.0
    piece: int = PIECE
    position: int = 0
    total_bytes: int = 0

    async def read(self, count: int) -> bytes:
        size = min(count, self.piece)
        if self.position >= self.stop:
            if self.position < len(self.data):
                await asyncio.sleep(self.pause)
        elif self.position + size > self.stop:
            size = self.stop - self.position
        piece = self.data[self.position : self.position + size]
        self.position += len(piece)
        return piece


@dataclass
class Response:
    """As much of aiohttp's as is used."""

    url: URL
    status: int = 200
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    content: Body = field(default_factory=Body)
    connection: None = None

    @property
    def content_length(self) -> int | None:
        length = self.headers.get("Content-Length")
        return None if length is None else int(length)

    def close(self) -> None: ...

    def release(self) -> None: ...


Exchange = Callable[[str, URL, Mapping[str, str]], Awaitable[Response]]


class Wire:
    """A Transport: each exchange goes by `exchange`, which the test may change."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def apart(self) -> Wire:
        return self

    async def fetch(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        authorization: str | None = None,
        within: float | None = None,
        **_of_redirects: object,
    ) -> Response:
        try:
            async with asyncio.timeout(LIMITS.waits.headers if within is None else within):
                return await self.exchange(method, url, headers)
        except TimeoutError:
            raise Unreached("no answer", FailureKind.TIMEOUT) from None

    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], within: float | None = None
    ) -> Response:
        return await self.fetch(method, url, headers, within=within)

    async def read(
        self, response: Response, limit: int, within: float | None = None
    ) -> bytes | None:
        data = b""
        try:
            async with asyncio.timeout(LIMITS.waits.body if within is None else within):
                while piece := await response.content.read(limit):
                    data += piece
        except TimeoutError:
            raise Unreached("no whole body", FailureKind.TIMEOUT) from None
        return data

    async def discard(self, response: Response) -> None: ...

    async def close(self) -> None: ...


def answer_of(method: str, url: URL, headers: Mapping[str, str], **body: Any) -> Response:
    """A registry that is well; of an answer's body, `body` says how it comes."""
    name, _, reference = url.path.rpartition("/")
    if name.endswith("/manifests"):
        data, media_type = MANIFEST, OCI_MANIFEST
    elif name.endswith("/blobs"):
        data, media_type = BLOBS[reference], "application/octet-stream"
    else:
        data, media_type = b"{}", "application/json"
    response = Response(url, 200, CIMultiDict({"Content-Type": media_type}))
    start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", headers.get("Range", ""))) else 0
    if start:
        response.status = 206
        response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    response.headers["Content-Length"] = str(len(data) - start)
    if name.endswith("/manifests"):
        response.headers["Docker-Content-Digest"] = str(Digest.of(data))
    if method == "GET":
        response.content = Body(data[start:], **body)
    return response


async def well(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    return answer_of(method, url, headers)


async def refuses(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    raise Unreachable("connection refused", FailureKind.CONNECT)


async def connects_never(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    await asyncio.sleep(LIMITS.waits.connect)
    raise Unreachable("no connection in time", FailureKind.TIMEOUT)


async def has_no_name(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    await asyncio.sleep(LIMITS.waits.dns)
    raise Unreachable("its name cannot be resolved", FailureKind.DNS)


async def says_nothing(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    await asyncio.sleep(FOR_EVER)
    raise AssertionError


async def sends_no_body(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    return answer_of(method, url, headers, stop=0, pause=FOR_EVER)


async def drips(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    """A hundred bytes a second."""
    return answer_of(method, url, headers, stop=0, pause=1.0, piece=100)


def status(code: int, **headers: str) -> Exchange:
    async def exchange(method: str, url: URL, asked: Mapping[str, str]) -> Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(url, code, CIMultiDict({"Content-Length": "0", **given}))

    return exchange


async def has_a_silent_realm(method: str, url: URL, headers: Mapping[str, str]) -> Response:
    if url.host == "auth.test":
        await asyncio.sleep(FOR_EVER)
    challenge = 'Bearer realm="https://auth.test/token",service="hub"'
    return Response(url, 401, CIMultiDict({"WWW-Authenticate": challenge, "Content-Length": "0"}))


def half_then(trouble: Exchange) -> Exchange:
    """The first half of a blob comes, and then nothing more over that connection; every exchange
    after it meets the trouble."""
    begun: list[URL] = []

    async def exchange(method: str, url: URL, headers: Mapping[str, str]) -> Response:
        if begun:
            return await trouble(method, url, headers)
        begun.append(url)
        return answer_of(method, url, headers, stop=len(LAYER) // 2, pause=FOR_EVER)

    return exchange
