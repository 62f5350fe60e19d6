"""The configuration, read again while the mirror runs: by SIGHUP, or by command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from ..config import Config, ConfigError, following, load_again
from ..contracts.events import ConfigLoaded, ConfigReloaded
from ..frozen import dataclass
from ..server.control import Parameters
from ..threads import Threads
from .resources import Process
from .service_manager import Notifier

log = structlog.get_logger()

_READ = 30.0  # seconds for the file and its secrets, which may be on a share that is gone
_THREADS = 4  # that such a share may hold: of the next reloads each is refused, and no pull waits

Apply = Callable[[Config], Awaitable[Sequence[str]]]
"""Has all of the mirror go on by this configuration; says of which parts that could not be had."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What has become of a reload.

    `result`: applied; refused, since there are mistakes, so that nothing has changed; or failed,
    with the new configuration in some parts of the mirror. `words`: the mistakes, or those parts.
    `needs_restart`: changed keys that stay as they are.
    """

    result: str
    words: Sequence[str] = ()
    needs_restart: Sequence[str] = ()


class Reloader:
    """Reads the file again that the mirror was started with (None: there was none)."""

    def __init__(
        self,
        path: Path | None,
        config: Config,
        process: Process,
        apply: Apply,
        read_within: float = _READ,
        notifier: Notifier | None = None,
    ) -> None:
        self.place = None if path is None else os.path.abspath(path)
        self._path = path
        self._config = config
        self._process = process
        self._apply = apply
        self._notifier = notifier or Notifier()
        self._read_within = read_within
        self._threads = Threads(_THREADS, "configuration")
        self._one_at_a_time = asyncio.Lock()
        self._hangup = asyncio.Event()
        self._process.events.emit(ConfigLoaded(process.clock.wall()))

    async def reload(self) -> Reload:
        """All is checked before any of it counts."""
        async with self._one_at_a_time:
            self._notifier.reloading()
            reload = await self._reload()
            self._notifier.ready(f"serves; the last new configuration was {reload.result}")
        self._process.events.emit(ConfigReloaded(reload.result, reload.words))
        name = "the defaults" if self._path is None else str(self._path)
        for mistake in reload.words if reload.result == "refused" else ():
            log.error("configuration_mistake", mistake=mistake)
        tell = log.info if reload.result == "applied" else log.error
        tell(f"configuration_{reload.result}", path=name, needs_restart=list(reload.needs_restart))
        return reload

    async def _reload(self) -> Reload:
        try:
            async with asyncio.timeout(self._read_within):
                written = await self._threads.run(load_again, self._path)
        except ConfigError as error:
            return Reload("refused", tuple(map(str, error.problems)))
        except TimeoutError:
            where = "the configuration, or one of its secrets,"
            return Reload("refused", (f"{where} could not be read within {self._read_within:g} s",))
        config, needs_restart = following(self._config, written)
        try:
            lacking = await self._apply(config)
        except Exception as error:  # a defect, which is not to keep the next one from being tried
            log.exception("configuration_not_applied")
            words = f"the mirror failed, and has to be restarted: {type(error).__name__}"
            return Reload("failed", (words,), needs_restart)
        self._config = config
        self._process.events.emit(ConfigLoaded(self._process.clock.wall()))
        return Reload("failed" if lacking else "applied", lacking, needs_restart)

    async def begin_anew(self) -> None:
        """Has all of the mirror go on by the configuration that counts, with all noted that has
        happened until now, and nothing remembered in memory of what was here."""
        async with self._one_at_a_time:
            for lack in await self._apply(self._config):
                log.error("content_not_forgotten", reason=lack)

    def hang_up(self) -> None:
        """As `reload`, some time: signals that come together are one."""
        self._hangup.set()

    async def follow_hangups(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            await self.reload()

    def close(self) -> None:
        """Whatever holds its threads is not waited for."""
        self._threads.leave()

    async def command(self, _: Parameters) -> Mapping[str, Any]:
        """The command `reload`."""
        return {**asdict(await self.reload()), "path": self.place}


@contextlib.asynccontextmanager
async def following_hangups(reloader: Reloader) -> AsyncIterator[None]:
    """While the context lasts, SIGHUP has the file read again. The reloader is closed at its
    end."""
    loop = asyncio.get_running_loop()
    hangups = asyncio.create_task(reloader.follow_hangups())
    try:
        loop.add_signal_handler(signal.SIGHUP, reloader.hang_up)
        yield
    finally:
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # without one it ends the process
        hangups.cancel()
        await asyncio.gather(hangups, return_exceptions=True)
        reloader.close()
