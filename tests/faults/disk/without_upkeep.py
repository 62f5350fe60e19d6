"""`python -m tests.faults.disk.without_upkeep serve …`: the mirror, without what it does behind."""

from __future__ import annotations

import asyncio

from mirror import cli
from mirror.storage.disk.upkeep import Upkeep


async def _nothing(self: Upkeep) -> None:
    await asyncio.Future()


Upkeep.run = _nothing  # type: ignore[method-assign]

if __name__ == "__main__":
    cli.main()
