"""A wire between a mirror and a server, that breaks: it hands bytes through, of TLS too."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from enum import Enum
from urllib.parse import urlsplit


class Break(Enum):
    CUT = "cut"
    """Both sides are reset."""
    ENDS = "ends"
    """The server seems to have said its last byte; of TLS, without its end."""
    HANGS = "hangs"
    """Nothing comes any more, not even the rest of a record of TLS."""
    TURNS = "turns"
    """One bit is another."""


class Wire:
    """What servers send is broken once for each break that was ordered, in this order: of the
    first connections that bring so much."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname, parts.port)
        self._scheme = parts.scheme
        self._breaks: deque[tuple[Break, int]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.url = ""

    def breaks(self, how: Break, after: int) -> None:
        """Behind so many bytes of a connection."""
        self._breaks.append((how, after))

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far, onward = await asyncio.open_connection(*self._place)
        except OSError:
            back.transport.abort()
            return
        there = asyncio.create_task(_copy(near, onward))
        here = asyncio.create_task(self._back(far, back))
        self._running |= {there, here}
        await asyncio.wait((there, here), return_when=asyncio.FIRST_COMPLETED)
        for task in (there, here):
            task.cancel()
            self._running.discard(task)
        for writer in (onward, back):
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came = 0
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                if self._breaks and came + len(piece) > self._breaks[0][1]:
                    how, after = self._breaks.popleft()
                    at = max(after - came, 0)
                    if how is not Break.TURNS:
                        writer.write(piece[:at])
                        await writer.drain()
                    match how:
                        case Break.CUT:
                            writer.transport.abort()
                            return
                        case Break.ENDS:
                            return
                        case Break.HANGS:
                            await asyncio.Future()
                        case Break.TURNS:
                            piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
                came += len(piece)
                writer.write(piece)
                await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()


@contextlib.asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """To the server of this URL; its own, of the same host, is `url`."""
    made = Wire(url)
    server = await asyncio.start_server(made._connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made.url = f"{made._scheme}://{made._place[0]}:{port}"
    try:
        yield made
    finally:
        server.close()
        running = list(made._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
