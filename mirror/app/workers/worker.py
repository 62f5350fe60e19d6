"""One worker process, as its parent sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from .cradle import Born
from .line import BEAT, Report

FRESH = 3 * BEAT
"""Seconds: a worker that was heard from within them answers clients."""

ANSWER = 0.5
"""Seconds that workers have to tell what they count, when it is asked for."""


@dataclass(frozen=True)
class Silence:
    """How many seconds a worker may say nothing before it is taken for hung, and killed.

    `idle`: its main thread sleeps or is stopped, so that nothing can come of it. `busy`: it
    computes, or waits for a disk, and may yet come back. `starting`: it has not yet served, and
    imports, or opens a large store.
    """

    idle: float = 10.0
    busy: float = 60.0
    starting: float = 120.0


@dataclass(eq=False)
class Worker:
    number: int
    process: Born
    writer: asyncio.StreamWriter
    started: float
    sent: int  # the number of the configuration that it was given last
    silent: float = 0.0
    """Seconds since it was heard from, of those in which this process itself was not held up."""
    has_served: bool = False
    killed: bool = False
    is_retired: bool = False
    """It was told to leave, since another serves in its place."""
    asked: int = 0
    said: Report = field(default=Report(False, 0))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    hearing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    async def answered(self) -> None:
        """Returns when it has reported after it was asked last."""
        while self.said.answers < self.asked:
            self.news.clear()
            await self.news.wait()

    async def leave(self) -> None:
        """It has ended: what it said last is heard."""
        if self.hearing is not None:
            await asyncio.wait([self.hearing], timeout=ANSWER)
            self.hearing.cancel()
        self.writer.close()

    @property
    def serves(self) -> bool:
        return self.said.serving and self.silent < FRESH and self.process.is_alive()


def is_busy(pid: int) -> bool:
    """Whether its main thread computes (R), or waits for a disk (D): proc(5)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("R", "D")
