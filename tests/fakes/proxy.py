"""An HTTP proxy that runs in the test: CONNECT and absolute form, with a login or without."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Passed:
    """One request as the proxy saw it."""

    method: str
    target: str
    headers: Mapping[str, str]


class FakeProxy:
    """Connects each host of `names` to 127.0.0.1 and the port that is asked for, all others as
    they are. `login` is `name:password`. As squid does, it forbids URLs with `forbidden` in them.
    With `status` it answers every request so, with `headers` and `page`, which it sends in answer
    to a HEAD, too; with `behaviour` that one speaks after the request was read. `connected` is the
    head of its answer to CONNECT."""

    def __init__(
        self,
        *names: str,
        login: str = "",
        forbidden: str = "",
        status: int = 200,
        headers: str = "",
        page: str = "",
        connected: str = "HTTP/1.1 200 Connection established",
        behaviour: Behaviour | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.names = names
        self.login = login
        self.forbidden = forbidden
        self.status = status
        self.headers = headers
        self.page = page
        self.connected = connected
        self.behaviour = behaviour
        self.seen: list[Passed] = []
        self.certificates: list[object] = []
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cuts all that it carries."""
        for task in list(self._tasks):
            task.cancel()

    def targets(self, method: str) -> list[str]:
        return [one.target for one in self.seen if one.method == method]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._tls is not None:
            self.certificates.append(writer.get_extra_info("peercert"))
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.title(): value for name, value in (f.split(": ", 1) for f in fields)}
        self.seen.append(Passed(method, target, headers))
        if self.behaviour is not None:
            return await self.behaviour(reader, writer)
        expected = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and headers.get("Proxy-Authorization") != expected:
            words = "407 Login\r\nProxy-Authenticate: Basic realm=x"
            writer.write(f"HTTP/1.1 {words}\r\nContent-Length: 0\r\n\r\n".encode())
            return await writer.drain()
        if self.forbidden and self.forbidden in target:
            words = "403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 0"
            writer.write(f"HTTP/1.1 {words}\r\n\r\n".encode())
            return await writer.drain()
        if self.status != 200:
            words = f"{self.status} No\r\n{self.headers}Content-Length: {len(self.page)}"
            writer.write(f"HTTP/1.1 {words}\r\n\r\n{self.page}".encode())
            return await writer.drain()
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host = "127.0.0.1" if url.hostname in self.names else url.hostname
        theirs, ours = await asyncio.open_connection(host, url.port or 80)
        try:
            if method == "CONNECT":
                writer.write(f"{self.connected}\r\n\r\n".encode())
            else:
                path = f"{url.path}?{url.query}" if url.query else url.path
                kept = [f for f in fields if not f.lower().startswith(("proxy-", "connection:"))]
                lines = [f"{method} {path} HTTP/1.1", *kept, "Connection: close"]
                ours.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            await asyncio.gather(_pump(reader, ours), _pump(theirs, writer))
        finally:
            ours.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    if not writer.is_closing():
        writer.close()
