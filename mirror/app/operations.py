"""What people have done by commands and on the page: by the process that holds the store, which is
the only one, or the parent of the workers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from ..config import Config
from ..server.control import Command, one, taking_commands
from .ahead import Ahead
from .reloading import Reloader, following_hangups
from .resources import Resources


@dataclass(slots=True)
class Operations:
    """`config` is the one that counts now. Each kind of operation is an object of its own, which
    commands, the page and `/api/v1` share."""

    config: Config
    opened: Resources
    reloader: Reloader
    ahead: Ahead

    def follow(self, config: Config) -> None:
        """From now on this is the configuration."""
        self.config = config
        self.ahead.follow(config)

    def commands(self) -> Mapping[str, Command]:
        """By their names; those of several words with a hyphen between."""
        return {"reload": one(self.reloader.command), **self.ahead.commands()}


@contextlib.asynccontextmanager
async def operating(operations: Operations) -> AsyncIterator[None]:
    """While the context lasts, commands are taken, and SIGHUP."""
    folder = operations.opened.store.root
    async with (
        taking_commands(folder, operations.commands()),
        following_hangups(operations.reloader),
    ):
        yield
