"""Connections of one party to another, through this process, so that they can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from ...e2e.programs import loopback_address

_PIECE = 1 << 18  # bytes


class Line:
    """Whoever connects to `host` and `port` is connected to `to`, unless the line is cut. It has
    an address of its own."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.to = to
        self.host, self.port = loopback_address(), to[1]
        self._goes = asyncio.Event()
        self._goes.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.mend()
        if self._server is not None:
            self._server.close()
        self._close()

    def silence(self) -> None:
        """As a network that drops packets: nothing comes, and nobody is told."""
        self._goes.clear()

    def mend(self) -> None:
        """What was held up comes now."""
        self._goes.set()

    def _close(self) -> None:
        for writer in self._ends:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            await self._goes.wait()
            there = await asyncio.open_connection(*self.to, limit=_PIECE)
            self._ends.add(there[1])
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._carry(reader, there[1]))
                    both.create_task(self._carry(there[0], writer))
            finally:
                self._ends.discard(there[1])
                there[1].transport.abort()
        except* (ConnectionError, OSError):
            pass
        finally:
            self._ends.discard(writer)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await self._goes.wait()
            writer.write(piece)
            await writer.drain()
        await self._goes.wait()
        with contextlib.suppress(OSError):
            writer.write_eof()
