"""Several processes on one port: started, watched, replaced, and stopped together.

This process serves no pull: it has the admin port, adds up what the workers count, and keeps the
store's house. The workers share the store, the tag memory and the port (SO_REUSEPORT), and nothing
else; one that dies takes only its own connections with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event

import structlog

from .assembly import (
    GRACE,
    CannotStart,
    keeping_house,
    probe_port,
    serving_admin,
    serving_pulls,
    settle,
)
from .config import Config
from .metrics import Metrics

log = structlog.get_logger()

_LOOK = 0.1  # seconds between two looks at the workers
_CALM = 10.0  # a worker that lived this long is replaced at once, others after a pause
_PAUSES = (0.2, 5.0)  # seconds: the shortest and the longest
_KILL_AFTER = GRACE + 4.0


class Workers:
    """The processes. `prepare` is called first in each, to set up its log."""

    def __init__(self, config: Config, prepare: Callable[[], None]) -> None:
        self._config = config
        self._prepare = prepare
        self._processes: dict[int, SpawnProcess] = {}
        self._started: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._listening: dict[int, Event] = {}

    @property
    def serving(self) -> int:
        """How many answer on the port."""
        return sum(
            process.is_alive() and self._listening[number].is_set()
            for number, process in self._processes.items()
        )

    async def run(self, stop: asyncio.Event, dead: Callable[[int], None]) -> None:
        """Keeps the configured number running until `stop` is set, then lets them drain.

        `dead` is told the process id of each worker that died.
        """
        for number in range(self._config.workers):
            self._start(number)
        try:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK)
                for number, process in self._processes.items():
                    if not process.is_alive() and not stop.is_set():
                        self._replace(number, process, dead)
        finally:
            await self._end()

    def _start(self, number: int) -> None:
        # Spawned, not forked: no thread, lock or database of this process is copied. What it needs
        # to know goes through a pipe, so that no secret stands among its arguments.
        context = multiprocessing.get_context("spawn")
        listening = self._listening[number] = context.Event()
        process = context.Process(
            target=_work, args=(self._config, self._prepare, listening), name=f"worker-{number}"
        )
        process.start()
        self._processes[number], self._started[number] = process, time.monotonic()
        log.info("worker started", worker=number, pid=process.pid)

    def _replace(self, number: int, process: SpawnProcess, dead: Callable[[int], None]) -> None:
        lived = time.monotonic() - self._started[number]
        pause = self._pauses.get(number, _PAUSES[0])
        if lived < pause:  # it has just been replaced, and its successor does not live either
            return
        self._pauses[number] = _PAUSES[0] if lived > _CALM else min(pause * 2, _PAUSES[1])
        log.error("worker died", worker=number, pid=process.pid, exitcode=process.exitcode)
        if process.pid is not None:
            dead(process.pid)
        self._start(number)

    async def _end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _KILL_AFTER
        for process in self._processes.values():
            await asyncio.to_thread(process.join, max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                log.error("worker killed: it did not drain", pid=process.pid)
                process.kill()
                process.join()


async def serve_with_workers(
    config: Config, counts: str, stop: asyncio.Event, prepare: Callable[[], None]
) -> None:
    """Serves until `stop` is set. `counts`: see Metrics. Raises CannotStart."""
    probe_port("listen", config.listen)
    metrics = Metrics(counts)
    workers = Workers(config, prepare)

    def ready() -> tuple[bool, Mapping[str, int]]:
        return workers.serving > 0, {"workers": workers.serving}

    async with keeping_house(config, metrics), serving_admin(config, metrics, ready):
        settle()
        await workers.run(stop, metrics.forget)


def _work(config: Config, prepare: Callable[[], None], listening: Event) -> None:
    """A worker's whole life."""
    prepare()
    # A terminal's ^C goes to the whole group: the parent tells when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(CannotStart, asyncio.CancelledError):
        asyncio.run(_serve_pulls(config, listening))


async def _serve_pulls(config: Config, listening: Event) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    parent = os.getppid()
    async with serving_pulls(config, Metrics(), reuse_port=True):
        listening.set()
        settle()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
            if os.getppid() != parent:  # an orphan would hold the port for ever
                log.error("worker stops: its parent is gone")
                return
