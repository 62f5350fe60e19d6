"""Writing while the next bytes are read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from ...tasks import ended

# Bytes that one fill gathers while the disk is busy with as many that came before; and all fills of
# a process together, as long as that leaves each the least. With half of the most, a fill that is
# alone costs an eighth more: it waits for the disk, and the disk for it.
MOST = 8 << 20
_LEAST = 1 << 20
_TOGETHER = 128 << 20

_FIRST = 256 << 10  # bytes that are written as they come, since somebody waits for the first
_WORTH = 512 << 10
_LATER = 0.004  # seconds


class WriteBehind:
    """Writes pieces while the next ones are read: at once when the disk is idle, else gathered, up
    to a bound, until it is. The first piece is written before `put` returns, and the first
    `at_once` bytes do not wait for more; of those after them a little waits for so many seconds
    (`later`). With `at_once` 0, nobody waits for the first."""

    running: ClassVar[int] = 0
    """Those of this process that have not been flushed."""

    def __init__(
        self,
        write: Callable[[Sequence[bytes]], Awaitable[None]],
        at_once: int = _FIRST,
        later: float = _LATER,
    ) -> None:
        WriteBehind.running += 1
        self._write = write
        self._at_once = at_once
        self._later = later
        self._enough = asyncio.Event()  # there is, or there will be no more
        self._ending = False
        self._gathered: list[bytes] = []
        self._waiting = 0  # bytes in `_gathered`
        self._written = 0
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None

    async def put(self, piece: bytes) -> None:
        """Takes a piece; waits while too much is gathered. Raises what writing raised before."""
        await self._room.wait()
        if self._task is not None and self._task.done():
            self._task.result()
        self._gathered.append(piece)
        self._waiting += len(piece)
        if self._task is None:
            self._task = asyncio.create_task(self._write_all())
        if self._at_once and not self._written:
            # What comes behind it would take the loop's turns from the first byte's way out.
            await asyncio.shield(self._task)
        if self._waiting >= _WORTH:
            self._enough.set()
        if self._waiting >= min(MOST, max(_LEAST, _TOGETHER // WriteBehind.running)):
            self._room.clear()

    async def flush(self) -> None:
        """Returns when everything is written, even if the caller is being cancelled. Nothing is to
        be put after it."""
        WriteBehind.running -= not self._ending
        self._ending = True
        self._enough.set()
        if self._task is None:
            return
        task = self._task  # which forgets itself when it ends
        await ended([task])  # who goes on with the same file must not meet it
        task.result()

    async def _write_all(self) -> None:
        try:
            while self._gathered:
                if self._written >= self._at_once and self._waiting < _WORTH:
                    # A little later it is worth the way to a thread and back, and waking everybody
                    # who reads: at 125 MB/s this halves what a byte costs.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._later):
                            await self._enough.wait()
                await self._write(self._batch())
            self._task = None
        finally:
            self._room.set()

    def _batch(self) -> list[bytes]:
        """What is to be written next: all that there is, but the first piece alone where somebody
        waits for it."""
        count = 1 if self._at_once and not self._written else len(self._gathered)
        batch, self._gathered = self._gathered[:count], self._gathered[count:]
        size = sum(map(len, batch))
        self._written += size
        self._waiting -= size
        self._room.set()
        if not self._ending:
            self._enough.clear()
        return batch
