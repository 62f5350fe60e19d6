"""The parent's side: workers are started, watched, replaced and ended."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog

from ...activity.board import Board
from ...activity.news import from_json
from ...activity.watching import Watch
from ...config import Config
from ...contracts.events import WorkerReplaced
from ...events import Events
from ...logs import LogSettings, log_as
from ...metrics import Metrics
from ...server.http.accepting import Port
from ...server.http.networks import network_of
from ...tasks import beside
from .. import (
    GRACE,
    ConfigWatch,
    LogSwitch,
    Notifier,
    Operations,
    Process,
    Reloader,
    ServiceManager,
    Surroundings,
    ahead,
    holding_store,
    keeping_house,
    operating,
    pull_ports,
    resources,
    seeing,
    serving_admin,
    settings_of,
    settle,
    tell_pull,
    watching,
)
from .child import FOR_THE_PARENT, live
from .line import BEAT, Numbered, Report, ask, follow, has_unread, log_so, reports

log = structlog.get_logger()

_LOOK = 0.1  # seconds between two looks at the workers
_CALM = 10.0  # a worker that lived this long is replaced at once, others after a pause
_PAUSES = (0.2, 5.0)  # seconds: the shortest and the longest
_KILL_AFTER = GRACE + 4.0
_DEAD = 2.0  # seconds that the kernel has to end what was killed
_FOLLOWS = 30.0  # seconds that workers have to take another configuration
_ANSWER = 0.5  # seconds that workers have to tell what they count, when it is asked for

_FRESH = 3 * BEAT
"""Seconds: a worker that was heard from within them answers clients."""


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
class _Worker:
    number: int
    process: SpawnProcess
    writer: asyncio.StreamWriter
    started: float
    sent: int  # the number of the configuration that it was given last
    silent: float = 0.0
    """Seconds since it was heard from, of those in which this process itself was not held up."""
    has_served: bool = False
    killed: bool = False
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
            await asyncio.wait([self.hearing], timeout=_ANSWER)
            self.hearing.cancel()
        self.writer.close()

    @property
    def serves(self) -> bool:
        return self.said.serving and self.silent < _FRESH and self.process.is_alive()


class Workers:
    """The processes."""

    def __init__(
        self,
        config: Config,
        ports: Sequence[Port],
        metrics: Metrics,
        events: Events,
        board: Board | None = None,
        silence: Silence | None = None,
    ) -> None:
        self._given = Numbered(1, config)
        self._ports = ports
        self._metrics = metrics
        metrics.watch_workers(
            lambda: {worker.number: worker.pid for worker in self._workers.values()}
        )
        self._events = events
        self._board = board or Board()
        self._log = settings_of(config)
        self._silence = silence or Silence()
        self._workers: dict[int, _Worker] = {}
        self._pauses: dict[int, float] = {}
        self._again_at: dict[int, float] = {}
        self._looked = 0.0
        self._heard = asyncio.Event()

    @property
    def serving(self) -> int:
        """How many answer on the port."""
        return sum(worker.serves for worker in self._workers.values())

    @property
    def wanted(self) -> int:
        """How many are to."""
        return self._given.config.workers

    @property
    def pids(self) -> Sequence[int]:
        return [worker.pid for _, worker in sorted(self._workers.items())]

    def log(self, settings: LogSettings) -> None:
        """All log so from now on, also those that are started later."""
        self._log = settings
        for worker in self._workers.values():
            log_so(worker.writer, settings)

    async def exposition(self) -> bytes:
        """What all of them and this process count, for Prometheus. Those that hang are shown as
        they were when they were last heard from."""
        asked = [worker for worker in self._workers.values() if worker.silent < _FRESH]
        for worker in asked:
            worker.asked += 1
            ask(worker.writer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER):
                for worker in asked:
                    await worker.answered()
        return self._metrics.exposition()

    async def follow(self, config: Config) -> Sequence[str]:
        """Has all workers go on by this configuration, also those that are started from now on.
        Says, in words, which of them have not said that they do within `_FOLLOWS`."""
        self._given = Numbered(self._given.number + 1, config)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FOLLOWS):
                while self._behind():
                    self._heard.clear()
                    self._send()
                    await self._heard.wait()
        return [
            f"worker {number} has not taken the new configuration within {_FOLLOWS:g} s: it does "
            "when it answers again, or is replaced"
            for number in self._behind()
        ]

    def _behind(self) -> Sequence[int]:
        now = self._given.number
        found = (self._workers.get(number) for number in range(self._given.config.workers))
        return [
            number
            for number, worker in enumerate(found)
            if worker is None or worker.said.configuration < now
        ]

    def _send(self) -> None:
        """Only the newest configuration waits for a worker that hangs."""
        for worker in self._workers.values():
            if worker.sent < self._given.number and not has_unread(worker.writer):
                follow(worker.writer, self._given)
                worker.sent = self._given.number

    async def run(self, stop: asyncio.Event) -> None:
        """Keeps the configured number running until `stop` is set, then lets them drain."""
        self._looked = time.monotonic()
        try:
            while not stop.is_set():
                for number in range(self._given.config.workers):
                    if number not in self._workers:
                        await self._start(number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK)
                await self._look()
            await self._end()
        finally:  # told to stop twice, too
            for worker in self._workers.values():
                worker.process.kill()

    async def _start(self, number: int) -> None:
        now = time.monotonic()
        if now < self._again_at.get(number, 0.0):
            return
        # Spawned, not forked: no thread, lock or database of this process is copied. What it needs
        # to know goes through a pipe, so that no secret stands among its arguments.
        given = self._given
        ours, theirs = socket.socketpair()
        process = multiprocessing.get_context("spawn").Process(
            target=live, args=(given, theirs, self._ports), name=f"worker-{number}", daemon=True
        )
        try:
            with _held_back():
                # Python's helper process for spawned ones. Where `start` has to start it, that
                # unblocks SIGINT before the worker is there (until Python 3.12 at least).
                resource_tracker.ensure_running()
            with _held_back():
                process.start()
        except OSError as error:  # no memory, no descriptors, a limit of tasks
            ours.close()
            log.error("worker_cannot_be_started", worker=number, reason=error.strerror)
            self._again_at[number] = now + _PAUSES[1]
            return
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        worker = self._workers[number] = _Worker(number, process, writer, now, given.number)
        worker.hearing = asyncio.create_task(self._hear(worker, reader))
        log_so(writer, self._log)
        log.info("worker_started", worker=number, pid=process.pid)

    async def _hear(self, worker: _Worker, reader: asyncio.StreamReader) -> None:
        async for report in reports(reader):
            worker.said = report
            worker.silent = 0.0
            worker.has_served = worker.has_served or report.serving
            self._metrics.hear(worker.pid, report.changes)
            if report.news is not None:
                self._board.hear(worker.pid, from_json(report.news))
            worker.news.set()
            self._heard.set()

    async def _look(self) -> None:
        self._kill_hung()
        self._send()
        for worker in list(self._workers.values()):
            if not worker.process.is_alive():
                await self._bury(worker)

    def _kill_hung(self) -> None:
        now = time.monotonic()
        # When this process did not run either, because the machine or all its processes were
        # suspended, that is nobody's silence.
        awake = min(now - self._looked, 2 * _LOOK)
        self._looked = now
        for worker in self._workers.values():
            worker.silent += awake
            if worker.silent > self._bound(worker) and not worker.killed:
                log.error(
                    "worker_hangs",
                    worker=worker.number,
                    pid=worker.pid,
                    seconds=round(worker.silent, 1),
                )
                worker.killed = True
                worker.process.kill()

    def _bound(self, worker: _Worker) -> float:
        if not worker.has_served:
            return self._silence.starting
        return self._silence.busy if _is_busy(worker.pid) else self._silence.idle

    async def _bury(self, worker: _Worker) -> None:
        number, now = worker.number, time.monotonic()
        pause = self._pauses.get(number, _PAUSES[0])
        self._again_at[number] = worker.started + pause
        lived = now - worker.started
        self._pauses[number] = _PAUSES[0] if lived > _CALM else min(pause * 2, _PAUSES[1])
        log.error("worker_died", worker=number, pid=worker.pid, exitcode=worker.process.exitcode)
        self._events.emit(WorkerReplaced("hung" if worker.killed else "died"))
        del self._workers[number]
        await worker.leave()
        self._metrics.forget(worker.pid)
        self._board.forget(worker.pid)

    async def _end(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
        if not await self._ended(_KILL_AFTER):
            for worker in self._workers.values():
                if worker.process.is_alive():
                    log.error("worker_killed", reason="it did not drain", pid=worker.pid)
                    worker.process.kill()
            await self._ended(_DEAD)
        for worker in self._workers.values():
            await worker.leave()

    async def _ended(self, within: float) -> bool:
        """Waits until all have, but for `within` seconds only; returns whether they have."""
        deadline = time.monotonic() + within
        while any(worker.process.is_alive() for worker in self._workers.values()):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK)
            self._kill_hung()
        return True


async def serve_with_workers(
    config: Config, path: Path | None, stop: asyncio.Event, manager: ServiceManager
) -> None:
    """Serves until `stop` is set. `path` is where the configuration was read, and is read again.
    Raises CannotStart."""
    process = Process(set(config.registries))
    metrics = Metrics(process.events, process.registries)

    watch = Watch(process.events, process.clock, network_of)
    board = Board(process.clock, network_of, tell_pull)

    async with (
        resources(config, process, holding_store) as opened,
        pull_ports(config, manager.given) as ports,
    ):
        workers = Workers(config, ports, metrics, process.events, board)

        def ready() -> tuple[bool, Mapping[str, int]]:
            return workers.serving > 0, {"workers": workers.serving}

        async def apply(config: Config) -> Sequence[str]:
            opened.follow(config)
            operations.follow(config)
            follow_for_admin(config)
            return await workers.follow(config)

        notifier = manager.notifier
        reloader = Reloader(path, config, process, apply, notifier=notifier)

        def log_so_everywhere(settings: LogSettings) -> None:
            log_as(settings)
            workers.log(settings)

        log_switch = LogSwitch(config, process.clock, log_so_everywhere)
        surroundings = Surroundings(
            ConfigWatch(path, process), log_switch, lambda: (workers.pids, workers.serving)
        )
        async with (
            keeping_house(config, opened, metrics),
            ahead(config, opened) as brought_ahead,
            watching(watch, board),
            seeing(config, opened, board, surroundings) as activity,
        ):
            operations = Operations(config, opened, reloader, brought_ahead, activity, log_switch)
            async with (
                serving_admin(
                    config, opened, workers.exposition, ready, operations.console, manager.given
                ) as follow_for_admin,
                operating(operations),
                notifier.watched(),
                beside(_tell(workers, notifier, stop), "service manager"),
            ):
                settle()
                await workers.run(stop)


async def _tell(workers: Workers, notifier: Notifier, stop: asyncio.Event) -> None:
    """Ready as soon as one of them answers; from then on how many do, until they end."""
    told = 0
    while not stop.is_set():
        serving = workers.serving
        if serving != told:
            tell = notifier.status if told else notifier.ready
            tell(f"{serving} of {workers.wanted} workers serve")
            told = serving
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK)
    notifier.stopping(f"lets running answers end, for {GRACE:g} s at most")


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """A process that is started within has the signals of the group held back (signal(7): the mask
    is kept by fork and exec, a handler is not), until it can handle them itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_busy(pid: int) -> bool:
    """Whether its main thread computes (R), or waits for a disk (D): proc(5)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("R", "D")
