"""Work about images where no mirror runs: a command holds the store meanwhile, and no mirror may
begin to serve it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from ...config import Config
from ...server.control import Command
from ...storage.disk.service import serving
from ...storage.disk.store import DiskContent, StorageUnusable
from ..resources import CannotStart, Process, resources, store_beside
from .commands import image_commands
from .held import HeldImages
from .keeping import Keeping


@contextlib.asynccontextmanager
async def images_alone(config: Config) -> AsyncIterator[Mapping[str, Command]]:
    """The commands about images. What is written belongs to the store's owner. Raises
    CannotStart."""
    async with resources(config, Process(set(config.registries)), held_beside) as opened:
        keeping = Keeping(opened, config)

        async def nobody_else() -> None:
            opened.shared.forget_content()

        yield image_commands(HeldImages(opened, keeping, lambda: config, nobody_else))


@contextlib.asynccontextmanager
async def held_beside(config: Config, process: Process) -> AsyncIterator[DiskContent]:
    """A StoreOpener: for a command that holds the store meanwhile."""
    async with store_beside(config, process) as store:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(serving(store.root, store.space.bounds))
            except StorageUnusable as error:
                raise CannotStart(str(error)) from error
            yield store
