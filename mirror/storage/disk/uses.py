"""When content was used: gathered for a moment, and recorded together."""

from __future__ import annotations

import asyncio
import contextlib

from ...clock import Clock
from ...oci.digest import Digest
from .async_index import AsyncIndex

_EVERY = 2.0  # seconds: how long a use may go unrecorded


class Uses:
    """Gathers which content this process has used, and records it a moment later."""

    def __init__(self, async_index: AsyncIndex, clock: Clock) -> None:
        self._async_index = async_index
        self._clock = clock
        self._used: dict[Digest, float] = {}
        self._recording: asyncio.Task[None] | None = None

    def add(self, digest: Digest) -> None:
        """It was used now."""
        self._used[digest] = self._clock.wall()
        if self._recording is None or self._recording.done():
            self._recording = asyncio.create_task(self._record_later())

    async def record(self) -> None:
        """Records what was gathered."""
        used, self._used = self._used, {}
        if used:
            index = self._async_index.index
            await self._async_index.note(index.touch, list(used.items()), self._clock.wall())

    async def close(self) -> None:
        if self._recording is not None:
            self._recording.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._recording
        await self.record()

    async def _record_later(self) -> None:
        await asyncio.sleep(_EVERY)
        await self.record()
