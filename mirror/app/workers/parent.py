"""The parent's side: workers are started, watched, replaced and ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import structlog

from ...activity.board import Board
from ...activity.news import from_json
from ...config import Config
from ...contracts.events import WorkerReplaced
from ...events import Events
from ...logs import LogSettings
from ...metrics import Metrics
from ...server.control import CommandFailed, Parameters
from ...server.http.accepting import Port
from ...tasks import until
from .. import (
    GRACE,
    settings_of,
)
from .cradle import Cradle
from .line import Numbered, ask, follow, has_unread, log_so, reports, retire
from .worker import ANSWER, FRESH, Silence, Worker, is_busy

log = structlog.get_logger()

LOOK = 0.1  # seconds between two looks at the workers
_CALM = 10.0  # a worker that lived this long is replaced at once, others after a pause
_PAUSES = (0.2, 5.0)  # seconds: the shortest and the longest
_KILL_AFTER = GRACE + 4.0
_DEAD = 2.0  # seconds that the kernel has to end what was killed
_SERVES = 60.0  # seconds that a new worker has to begin to serve
_FOLLOWS = 30.0  # seconds that workers have to take another configuration


class Workers:
    """The processes."""

    def __init__(
        self,
        config: Config,
        cradle: Cradle,
        ports: Sequence[Sequence[Port]],
        metrics: Metrics,
        events: Events,
        board: Board | None = None,
        silence: Silence | None = None,
    ) -> None:
        self._given = Numbered(1, config)
        self._cradle = cradle
        self._ports = ports
        self._metrics = metrics
        metrics.watch_workers(
            lambda: {worker.number: worker.pid for worker in self._workers.values()}
        )
        self._events = events
        self._board = board or Board()
        self._log = settings_of(config)
        self._silence = silence or Silence()
        self._workers: dict[int, Worker] = {}
        self._leaving: set[Worker] = set()  # which others replace
        self._renewing = asyncio.Lock()
        self._pauses: dict[int, float] = {}
        self._again_at: dict[int, float] = {}
        self._looked = 0.0
        self._heard = asyncio.Event()

    @property
    def serving(self) -> int:
        """How many answer on the port."""
        return sum(worker.serves for worker in self._all())

    def _all(self) -> Sequence[Worker]:
        return [*self._workers.values(), *self._leaving]

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
        for worker in self._all():
            log_so(worker.writer, settings)

    async def exposition(self) -> bytes:
        """What all of them and this process count, for Prometheus. Those that hang are shown as
        they were when they were last heard from."""
        asked = [worker for worker in self._all() if worker.silent < FRESH]
        for worker in asked:
            worker.asked += 1
            ask(worker.writer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER):
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
        for worker in self._all():
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
                    await asyncio.wait_for(stop.wait(), LOOK)
                await self._look()
            await self._end()
        finally:  # told to stop twice, too
            for worker in self._all():
                worker.process.kill()

    async def _start(self, number: int) -> None:
        now = time.monotonic()
        if now < self._again_at.get(number, 0.0):
            return
        # What it needs to know is not among its arguments: there are secrets in it.
        given = self._given
        ours, theirs = socket.socketpair()
        try:
            process = self._cradle.fork(given, theirs, self._ports[number])
        except OSError as error:  # no memory, no descriptors, a limit of tasks
            ours.close()
            reason = error.strerror or str(error)
            log.error("worker_cannot_be_started", worker=number, reason=reason)
            self._again_at[number] = now + _PAUSES[1]
            return
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        worker = self._workers[number] = Worker(number, process, writer, now, given.number)
        worker.hearing = asyncio.create_task(self._hear(worker, reader))
        log_so(writer, self._log)
        log.info("worker_started", worker=number, pid=process.pid)

    async def _hear(self, worker: Worker, reader: asyncio.StreamReader) -> None:
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
        self._cradle.look()
        self._kill_hung()
        self._send()
        for worker in list(self._workers.values()):
            if not worker.process.is_alive():
                await self._bury(worker)
        for worker in list(self._leaving):
            if not worker.process.is_alive():
                self._leaving.discard(worker)
                await worker.leave()
                self._metrics.forget(worker.pid)
                self._board.forget(worker.pid)

    def _kill_hung(self) -> None:
        now = time.monotonic()
        # When this process did not run either, because the machine or all its processes were
        # suspended, that is nobody's silence.
        awake = min(now - self._looked, 2 * LOOK)
        self._looked = now
        for worker in self._all():
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

    def _bound(self, worker: Worker) -> float:
        if not worker.has_served:
            return self._silence.starting
        return self._silence.busy if is_busy(worker.pid) else self._silence.idle

    async def _bury(self, worker: Worker) -> None:
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

    async def renew(self, _: Parameters) -> AsyncGenerator[Mapping[str, Any], None]:
        """The command `restart`: replaces them one by one, each by one that serves before the other
        accepts no more. Tells of each; raises CommandFailed where one cannot be replaced, which
        goes on then."""
        if self._renewing.locked():
            raise CommandFailed("its workers are being replaced already")
        async with self._renewing:
            for number in range(self.wanted):
                began = time.monotonic()
                old = await self._replaced(number)
                line = {"worker": number, "pid": self._workers[number].pid, "instead_of": old.pid}
                yield {**line, "seconds": round(time.monotonic() - began, 3), "ended": False}
                await until(partial(self._has_left, old), LOOK)
                yield {**line, "seconds": round(time.monotonic() - began, 3), "ended": True}

    async def _replaced(self, number: int) -> Worker:
        """Returns the old one, which has been told to leave. Raises CommandFailed."""
        old = self._workers.pop(number, None)
        if old is None:
            raise CommandFailed(
                f"worker {number} has died, and is not there again yet: see the log"
            )
        self._leaving.add(old)
        self._again_at.pop(number, None)
        try:
            async with asyncio.timeout(_SERVES):
                await until(lambda: self._answers(number), LOOK)  # `run` starts it
        except TimeoutError:
            raise CommandFailed(
                f"no new worker {number} serves within {_SERVES:g} s, so that the one before goes "
                "on: see the log"
            ) from None
        else:
            old.is_retired = True
            retire(old.writer)
            log.info("worker_replaced", worker=number, pid=self._workers[number].pid)
            return old
        finally:
            if not old.is_retired:  # whoever has asked may be gone, too
                self._take_back(number, old)

    def _answers(self, number: int) -> bool:
        return number in self._workers and self._workers[number].serves

    def _has_left(self, worker: Worker) -> bool:
        return worker not in self._leaving

    def _take_back(self, number: int, old: Worker) -> None:
        """It goes on in the place of the one that was to replace it."""
        if old not in self._leaving:
            return  # it has died meanwhile
        self._leaving.discard(old)
        new = self._workers.pop(number, None)
        if new is not None:
            self._leaving.add(new)
            new.process.terminate()
        self._workers[number] = old

    async def _end(self) -> None:
        for port in chain(*self._ports):  # else whoever connects now would wait for the end
            port.socket.close()
        for worker in self._all():
            worker.process.terminate()
        if not await self._ended(_KILL_AFTER):
            for worker in self._all():
                if worker.process.is_alive():
                    log.error("worker_killed", reason="it did not drain", pid=worker.pid)
                    worker.process.kill()
            await self._ended(_DEAD)
        for worker in self._all():
            await worker.leave()

    async def _ended(self, within: float) -> bool:
        """Waits until all have, but for `within` seconds only; returns whether they have."""
        deadline = time.monotonic() + within
        while any(worker.process.is_alive() for worker in self._all()):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK)
            self._cradle.look()
            self._kill_hung()
        return True
