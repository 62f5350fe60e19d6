"""What work tells of itself, for whoever listens: as fast as they take it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from ..contracts.sync import ImageComing, ImageEnded, Told
from ..tasks import ended

Tell = Callable[[Told], None]

_PAUSE = 0.1  # seconds between two bundles: of how far an image is, only the last is told


class Listener:
    """Takes what is told, until it is closed."""

    def __init__(self) -> None:
        self._lines: list[Told] = []
        self._coming: dict[tuple[str, str], ImageComing] = {}
        self._closed = False
        self._news = asyncio.Event()

    def tell(self, told: Told) -> None:
        if isinstance(told, ImageComing):
            self._coming[told.image, told.platform] = told
        else:
            if isinstance(told, ImageEnded):
                self._coming.pop((told.image, told.platform), None)
            self._lines.append(told)
        self._news.set()

    def close(self) -> None:
        """Nothing more is told."""
        self._closed = True
        self._news.set()

    async def told(self) -> AsyncGenerator[Told, None]:
        """All of it, in order, until it is closed."""
        while True:
            await self._news.wait()
            self._news.clear()
            lines = [*self._lines, *self._coming.values()]
            self._lines, self._coming = [], {}
            for line in lines:
                yield line
            if self._closed and not self._lines:
                return
            await asyncio.sleep(0 if self._closed else _PAUSE)


async def told_by(work: Callable[[Tell], Awaitable[None]]) -> AsyncGenerator[Told, None]:
    """What the work tells while it is done. It is cancelled when this is closed before its end.
    Raises what the work raises."""
    listener = Listener()

    async def run() -> None:
        try:
            await work(listener.tell)
        finally:
            listener.close()

    task = asyncio.create_task(run(), name="images are brought")
    try:
        async for told in listener.told():
            yield told
        await task
    finally:
        task.cancel()
        await ended([task])
