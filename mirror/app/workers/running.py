"""A mirror of several processes: what the parent has open, and that it starts the workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...activity.board import Board
from ...activity.watching import Watch
from ...config import Config
from ...logs import LogSettings, log_as
from ...metrics import Metrics
from ...server.control import Tells
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
    settle,
    tell_pull,
    watching,
)
from .cradle import Cradle
from .parent import LOOK, Workers


async def serve_with_workers(
    config: Config,
    path: Path | None,
    stop: asyncio.Event,
    manager: ServiceManager,
    cradle: Cradle,
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
        workers = Workers(config, cradle, ports, metrics, process.events, board)

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
            operations = Operations(
                config,
                opened,
                reloader,
                brought_ahead,
                activity,
                log_switch,
                Tells(workers.renew),
            )
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
            await asyncio.wait_for(stop.wait(), LOOK)
    notifier.stopping(f"lets running answers end, for {GRACE:g} s at most")
