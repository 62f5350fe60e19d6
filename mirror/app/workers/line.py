"""The line between a parent and each of its workers: a pair of sockets.

The worker tells once a second that its event loop runs, whether it serves, by which configuration,
and what it has counted; and at once when the parent asks, or sends it another configuration. Either
end sees at once that the other has ended, however it did:
the kernel closes its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, field
from typing import Any

from ...config import Config
from ...frozen import dataclass
from ...logs import LogSettings

BEAT = 1.0
"""Seconds between two reports of a worker."""

_LENGTH = 4  # bytes before each report, and each configuration, that say how long it is
_ASK, _FOLLOW, _LOG, _RETIRE = b"?", b"=", b"!", b"-"


@dataclass(frozen=True, slots=True)
class Numbered:
    """A configuration; a later one has a larger number."""

    number: int
    config: Config


Given = Numbered | LogSettings
"""What a worker is to go by."""


@dataclass(frozen=True)
class Report:
    """What a worker says. `answers`: how many times it had been asked when it said so.
    `configuration`: the number of that by which it serves. `changes`: see Metrics. `news`: see
    mirror/activity/news.py; None in what is told between two beats."""

    serving: bool
    answers: int
    configuration: int = 0
    changes: Sequence[Any] = field(default=())
    news: Mapping[str, Any] | None = None


async def reports(reader: asyncio.StreamReader) -> AsyncIterator[Report]:
    """All that a worker says, until it has ended."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
            yield Report(**json.loads(await reader.readexactly(length)))


def ask(writer: asyncio.StreamWriter) -> None:
    """The worker reports at once, unless its loop hangs."""
    writer.write(_ASK)


def log_so(writer: asyncio.StreamWriter, settings: LogSettings) -> None:
    """The worker logs so from now on."""
    data = json.dumps(asdict(settings)).encode()
    writer.write(_LOG + len(data).to_bytes(_LENGTH, "big") + data)


def has_unread(writer: asyncio.StreamWriter) -> bool:
    """Whether something waits for the worker to read it."""
    return writer.transport.get_write_buffer_size() > 0


def follow(writer: asyncio.StreamWriter, given: Numbered) -> None:
    """The worker goes on by this configuration, and reports, unless its loop hangs."""
    data = pickle.dumps(given)
    writer.write(_FOLLOW + len(data).to_bytes(_LENGTH, "big") + data)


def retire(writer: asyncio.StreamWriter) -> None:
    """The worker leaves its ports to the one that replaces it, and ends."""
    writer.write(_RETIRE)


class Telling:
    """The worker's end. `take` is given each configuration that the parent sends, and how the
    worker is to log. `news`: what it has seen since it was last asked. `leave` is called when
    another worker serves in its place."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        changes: Callable[[], Sequence[Any]],
        take: Callable[[Given], object],
        news: Callable[[], Mapping[str, Any]],
        leave: Callable[[], object],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._changes = changes
        self._take = take
        self._news = news
        self._leave = leave
        self._asked = 0
        self._configuration = 0
        self._serving = False

    def serves(self, serving: bool) -> None:
        """From now on it does, or does not."""
        self._serving = serving
        self._report()

    def follows(self, number: int) -> None:
        """From now on it goes by the configuration of this number."""
        self._configuration = number
        self._report()

    async def beat(self) -> None:
        """Reports, for ever."""
        while True:
            self._report(with_news=True)
            await asyncio.sleep(BEAT)

    def end(self) -> None:
        """Tells what there is to tell yet: the worker ends."""
        self._report(with_news=True)

    async def answer(self) -> None:
        """Does what it is asked to; returns when the parent has ended."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind = await self._reader.readexactly(1)
                if kind == _ASK:
                    self._asked += 1
                    self._report()
                    continue
                if kind == _RETIRE:
                    self._leave()
                    continue
                length = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
                data = await self._reader.readexactly(length)
                if kind == _LOG:
                    self._take(LogSettings(**json.loads(data)))
                    continue
                # The other end is the parent's: nobody else can write there.
                self._take(pickle.loads(data))  # noqa: S301

    def _report(self, *, with_news: bool = False) -> None:
        # A parent that does not read (it was stopped) is told all later, in one report.
        if self._writer.transport.get_write_buffer_size():
            return
        report = Report(
            self._serving,
            self._asked,
            self._configuration,
            self._changes(),
            self._news() if with_news else None,
        )
        data = json.dumps(asdict(report)).encode()
        self._writer.write(len(data).to_bytes(_LENGTH, "big") + data)
