"""Never more connections to one host than it bears."""

from __future__ import annotations

import asyncio

from ..oci.errors import Unavailable


class Slots:
    """Turns at one host, whose endpoints share them, in order of arrival. A blob holds its own
    until its stream is closed; blobs leave a few to small asks, which else would wait behind
    gigabytes.
    """

    def __init__(self, name: str, limit: int, patience: float = 60.0) -> None:
        self._name = name
        self.limit = limit
        self._patience = patience
        self._all = asyncio.Semaphore(limit)
        self._blobs = asyncio.Semaphore(max(1, limit - max(1, limit // 16)))
        self.blobs_held = 0

    def free(self, blob: bool) -> bool:
        return not self._all.locked() and not (blob and self._blobs.locked())

    async def take(self, blob: bool) -> None:
        """Raises Unavailable when there is none within `patience` seconds."""
        try:
            async with asyncio.timeout(self._patience):
                if blob:
                    await self._blobs.acquire()
                try:
                    await self._all.acquire()
                except BaseException:
                    if blob:
                        self._blobs.release()
                    raise
        except TimeoutError:
            raise Unavailable(
                f"all {self.limit} connections to {self._name} are in use, and none became free "
                f"within {self._patience:g} s",
                retry_after=5,
            ) from None
        self.blobs_held += blob

    def give(self, blob: bool) -> None:
        self._all.release()
        if blob:
            self._blobs.release()
            self.blobs_held -= 1
