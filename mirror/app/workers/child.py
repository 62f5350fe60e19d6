"""A worker process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence

import structlog

from ...activity.news import to_json
from ...activity.watching import Watch
from ...config import Config
from ...logs import LogSettings, log_as, log_json
from ...metrics import Metrics
from ...server.http.accepting import Port
from ...server.http.networks import network_of
from ...tasks import first_of
from .. import (
    CannotStart,
    Process,
    resources,
    serving_pulls,
    settings_of,
    settle,
    sharing_store,
)
from .line import Given, Numbered, Telling

log = structlog.get_logger()

FOR_THE_PARENT = (signal.SIGHUP, signal.SIGINT)
"""Signals that a terminal, or a command such as `kill -HUP 0`, sends to the whole process group. A
worker is started with them blocked, and lets them through when they cannot end it any more."""


def live(given: Numbered, line: socket.socket, ports: Sequence[Port]) -> None:
    """A worker's whole life. `line` is its end of the line to its parent, `ports` are what it
    accepts on, as others do: a connection that waits there waits for whoever comes first."""
    log_json()
    log_as(settings_of(given.config))
    # What goes to the whole group the parent sees too: it tells when to stop, and what to follow.
    for number in FOR_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    try:
        asyncio.run(_live(given, line, ports))
    except CannotStart as error:
        log.error("worker_cannot_start", reason=str(error))
        sys.exit(1)


async def _live(given: Numbered, line: socket.socket, ports: Sequence[Port]) -> None:
    config = given.config
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_PARENT)
    process = Process(set(config.registries))
    metrics = Metrics(process.events, process.registries)
    reader, writer = await asyncio.open_unix_connection(sock=line)
    sent: asyncio.Queue[Given] = asyncio.Queue()
    watch = Watch(process.events, process.clock, network_of)
    is_replaced = asyncio.Event()
    telling = Telling(
        reader,
        writer,
        metrics.changes,
        sent.put_nowait,
        lambda: to_json(watch.news()),
        is_replaced.set,
    )
    tasks = [
        asyncio.create_task(telling.beat()),
        asyncio.create_task(_end_with_parent(telling, stop)),
    ]
    try:
        async with (
            resources(config, process, sharing_store) as opened,
            serving_pulls(config, opened, metrics, watch, ports) as pulls,
            pulls.answering(),
        ):

            def apply(config: Config) -> None:
                opened.follow(config)
                pulls.follow(config)

            telling.follows(given.number)
            telling.serves(True)
            tasks.append(
                asyncio.create_task(_follow(sent, apply, pulls.log, opened.listener.flush, telling))
            )
            settle()
            await first_of(stop, is_replaced)
            telling.serves(False)
            if not stop.is_set():
                await pulls.retire(stop)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(ConnectionError):
            telling.end()
            writer.close()


async def _follow(
    sent: asyncio.Queue[Given],
    apply: Callable[[Config], None],
    log_so: Callable[[LogSettings], None],
    noted: Callable[[], Awaitable[None]],
    telling: Telling,
) -> None:
    while True:
        given = await sent.get()
        if isinstance(given, LogSettings):
            log_so(given)
            continue
        try:
            apply(given.config)
            await noted()
            telling.follows(given.number)
        except Exception:
            log.exception("configuration_not_applied")


async def _end_with_parent(telling: Telling, stop: asyncio.Event) -> None:
    await telling.answer()
    if not stop.is_set():  # an orphan would hold the port for ever
        log.error("worker_stops", reason="its parent is gone")
        stop.set()
