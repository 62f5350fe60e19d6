"""The command `serve`, but for its arguments and the words for a configuration that is wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Config, ConfigError, load
from ..logs import drain, log_as, log_json, open_streams
from ..tls import no_authorities

if TYPE_CHECKING:
    from ..app.workers import Cradle

CANNOT_START = 1


def begin(path: Path | None) -> int | None:
    """Serves until told to stop; returns the exit status. None: the configuration is wrong. Looking
    for garbage is off until it serves."""
    open_streams()
    be_started()
    try:
        config = load(path)
    except ConfigError:
        gc.enable()
        return None
    try:
        return serve_until_told(config, path)
    finally:
        drain()


def be_started() -> None:
    """Before anything is read: how it logs, and that no SIGHUP ends it."""
    log_json()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be followed


def serve_until_told(config: Config, path: Path | None) -> int:
    """SIGTERM drains, a second one cuts. Returns the exit status."""
    with no_authorities():
        import aiohttp  # noqa: F401 - all that is asked over TLS is given a context of our own

    from ..app import CannotStart, settings_of

    log_as(settings_of(config))
    try:
        if config.workers > 1:
            from ..app.workers import Cradle, forked

            asyncio.run(_serve(config, path, Cradle(forked())))
        else:
            asyncio.run(_serve(config, path, None))
    except CannotStart as error:
        from .console import err

        err.print(f"registry-mirror: {error}", markup=False)
        return CANNOT_START
    except asyncio.CancelledError:  # told to stop twice
        return CANNOT_START
    return 0


async def _serve(config: Config, path: Path | None, cradle: Cradle | None) -> None:
    from ..app import running, service_manager, settle

    manager = service_manager(os.environ, lambda: _welcome(config, path))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    serving = asyncio.current_task()

    def told_to_stop() -> None:
        if stop.is_set() and serving is not None:
            serving.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    if cradle is not None:
        from ..app.workers import serve_with_workers

        await serve_with_workers(config, path, stop, manager, cradle)
    else:
        async with running(config, path, manager):
            settle()
            await stop.wait()


def _welcome(config: Config, path: Path | None) -> None:
    """Said on a terminal; elsewhere the log has the same in its line `serving`."""
    if os.isatty(2):
        from .welcome import welcome

        welcome(config, path)
