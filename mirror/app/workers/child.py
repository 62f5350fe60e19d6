"""A worker process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys

import structlog

from ...config import Config
from ...logs import log_json
from ...metrics import Metrics
from .. import (
    CannotStart,
    Process,
    ignore_hangups,
    resources,
    serving_pulls,
    settle,
    sharing_store,
)
from .line import Telling

log = structlog.get_logger()

FOR_THE_PARENT = (signal.SIGHUP, signal.SIGINT)
"""Signals that a terminal, or a command such as `kill -HUP 0`, sends to the whole process group. A
worker is started with them blocked, and lets them through when they cannot end it any more."""


def live(config: Config, line: socket.socket) -> None:
    """A worker's whole life. `line` is its end of the line to its parent."""
    log_json()
    # A terminal's ^C goes to the whole group: the parent tells when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(_live(config, line))
    except CannotStart as error:
        log.error("worker_cannot_start", reason=str(error))
        sys.exit(1)


async def _live(config: Config, line: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ignore_hangups()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_PARENT)
    process = Process(set(config.registries))
    metrics = Metrics(process.events, process.registries)
    reader, writer = await asyncio.open_unix_connection(sock=line)
    telling = Telling(reader, writer, metrics.changes)
    tasks = [
        asyncio.create_task(telling.beat()),
        asyncio.create_task(_end_with_parent(telling, stop)),
    ]
    try:
        async with (
            resources(config, process, sharing_store) as opened,
            serving_pulls(config, opened, reuse_port=True),
        ):
            telling.serves(True)
            settle()
            await stop.wait()
            telling.serves(False)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(ConnectionError):
            writer.close()


async def _end_with_parent(telling: Telling, stop: asyncio.Event) -> None:
    await telling.answer()
    if not stop.is_set():  # an orphan would hold the port for ever
        log.error("worker_stops", reason="its parent is gone")
        stop.set()
