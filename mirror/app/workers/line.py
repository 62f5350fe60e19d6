"""The line between a parent and each of its workers: a pair of sockets.

The worker tells once a second that its event loop runs, whether it serves, and what it has counted;
and at once when the parent asks. Either end sees at once that the other has ended, however it did:
the kernel closes its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

BEAT = 1.0
"""Seconds between two reports of a worker."""

_LENGTH = 4  # bytes before each report that say how long it is
_ASK = b"?"


@dataclass(frozen=True)
class Report:
    """What a worker says. `answers`: how many times it had been asked when it said so. `changes`:
    see Metrics."""

    serving: bool
    answers: int
    changes: Sequence[Any] = field(default=())


async def reports(reader: asyncio.StreamReader) -> AsyncIterator[Report]:
    """All that a worker says, until it has ended."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
            yield Report(**json.loads(await reader.readexactly(length)))


def ask(writer: asyncio.StreamWriter) -> None:
    """The worker reports at once, unless its loop hangs."""
    writer.write(_ASK)


class Telling:
    """The worker's end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        changes: Callable[[], Sequence[Any]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._changes = changes
        self._asked = 0
        self._serving = False

    def serves(self, serving: bool) -> None:
        """From now on it does, or does not."""
        self._serving = serving
        self._report()

    async def beat(self) -> None:
        """Reports, for ever."""
        while True:
            self._report()
            await asyncio.sleep(BEAT)

    async def answer(self) -> None:
        """Reports when it is asked to; returns when the parent has ended."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(64):
                self._asked += data.count(_ASK)
                self._report()

    def _report(self) -> None:
        # A parent that does not read (it was stopped) is told all later, in one report.
        if self._writer.transport.get_write_buffer_size():
            return
        report = Report(self._serving, self._asked, self._changes())
        data = json.dumps(asdict(report)).encode()
        self._writer.write(len(data).to_bytes(_LENGTH, "big") + data)
