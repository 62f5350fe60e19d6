"""Administration where no mirror runs: a command does it to the records, which bear several
processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from ..config import Config
from ..server.control import Command
from .administering import NOT_CONFIGURED
from .resources import CannotStart


@contextlib.asynccontextmanager
async def hosting_alone(config: Config) -> AsyncIterator[Mapping[str, Command]]:
    """The commands about repositories of one's own. Raises CannotStart."""
    if config.hosted is None:
        raise CannotStart(NOT_CONFIGURED)
    raise CannotStart("no mirror runs: registry-mirror serve starts one")
    yield {}
