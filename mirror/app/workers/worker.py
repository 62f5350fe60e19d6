"""One worker process, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path

from .child import FOR_THE_PARENT
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
    process: SpawnProcess
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
        return self.process.pid or 0

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


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """A process that is started within has the signals of the group held back (signal(7): the mask
    is kept by fork and exec, a handler is not), until it can handle them itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_busy(pid: int) -> bool:
    """Whether its main thread computes (R), or waits for a disk (D): proc(5)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("R", "D")
