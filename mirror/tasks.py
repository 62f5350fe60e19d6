"""What asyncio's tasks lack."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


async def ended(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Returns when all of these have ended, however often the caller is cancelled meanwhile. Then
    raises CancelledError, if it was. What they raised counts as seen."""
    cancelled: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled
