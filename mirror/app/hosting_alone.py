"""Repositories of one's own where no mirror runs: a command holds the store meanwhile, and no
mirror may begin to serve it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from ..config import Config
from ..pullthrough.fills.table import Fills
from ..server.control import Command
from .administering import NOT_CONFIGURED, administration_commands
from .backups import backup_commands
from .collecting import collecting_commands
from .hosted import Hosted, hosting
from .images.alone import held_beside
from .resources import CannotStart, Process


@contextlib.asynccontextmanager
async def hosted_alone(config: Config) -> AsyncIterator[Hosted]:
    """What is hosted; also before the first start. Raises CannotStart."""
    process = Process(set(config.registries))
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(held_beside(config, process))
        fills = Fills(store, process.events, process.clock)
        stack.push_async_callback(fills.close)
        hosted = await stack.enter_async_context(hosting(config, store, fills, process))
        if hosted is None:
            raise CannotStart(NOT_CONFIGURED)
        yield hosted


@contextlib.asynccontextmanager
async def hosting_alone(config: Config) -> AsyncIterator[Mapping[str, Command]]:
    """The commands about it. Raises CannotStart."""
    if config.hosted is None:  # before any folder is made
        raise CannotStart(NOT_CONFIGURED)
    async with hosted_alone(config) as hosted:
        yield {
            **administration_commands(lambda: hosted.administration),
            **collecting_commands(lambda: hosted.collecting),
            **backup_commands(lambda: hosted.backups),
        }
