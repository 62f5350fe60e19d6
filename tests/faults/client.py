"""A client with no client's ways about it: it tells exactly what it got."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

DOCKERD = {"User-Agent": "docker/28.5.0 go/go1.24"}
SKOPEO = {"User-Agent": "skopeo/1.18.0"}


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a client holds in the end. `cut`: the connection ended before the body did."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False

    def is_whole(self, digest: str) -> bool:
        """200, ended as announced, and the digest is proven."""
        return self.status == 200 and not self.cut and digest_of(self.body) == digest

    @property
    def code(self) -> str:
        """The registry error's code; fails when this is no clean error."""
        return self.error["code"]

    @property
    def message(self) -> str:
        return self.error["message"]

    @property
    def error(self) -> dict[str, str]:
        assert self.status >= 400, self.status
        assert not self.cut, "an error that was cut"
        assert self.headers["Content-Type"] == "application/json"
        assert b"Traceback" not in self.body
        (error,) = json.loads(self.body)["errors"]
        assert isinstance(error, dict)
        return error


@dataclass(frozen=True)
class Wire:
    """Bytes to and from a server, with no client's ways about them."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def get(self, path: str, *fields: str) -> None:
        await self.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: m", *fields, "", ""]).encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and fields of the next answer; names in lower case."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def answer(self) -> Answer:
        """The next answer, which has a Content-Length."""
        status, headers = await self.head()
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status, {name.title(): value for name, value in headers.items()}, body)

    async def rest(self) -> bytes:
        """All that comes until the server closes, or resets."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(1 << 16):
                data += piece
        return bytes(data)


async def fetch(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own; a body that is cut is an answer too."""
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=60),
        ) as session,
        session.request(method, url, headers=headers, allow_redirects=False) as response,
    ):
        body = bytearray()
        cut = False
        try:
            async for piece in response.content.iter_any():
                body += piece
        except (aiohttp.ClientPayloadError, aiohttp.ClientOSError):
            cut = True
        return Answer(response.status, response.headers, bytes(body), cut)
