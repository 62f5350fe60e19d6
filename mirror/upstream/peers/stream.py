"""Content on its way from another node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import aiohttp

from ...contracts.second_tier import SecondTierFault
from ..endpoint import MIB
from ..http.receiver import Receiver


class PeerStream:
    """A TierStream over one HTTP response. `silent`: seconds without a byte after which the node is
    asked whether it `lives`: what it gives may be slow to come there."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        start: int,
        size: int,
        lives: Callable[[], Awaitable[bool]],
        silent: float,
    ) -> None:
        self.size = size
        self.start = start
        self._response = response
        self._lives = lives
        self._silent = silent
        # In the event loop's time; also over reads that were cancelled.
        self._waits_since: float | None = None
        self._came = 0  # bytes that came by aiohttp's reader
        self._receiver: Receiver | None = None

    async def read(self) -> bytes:
        if self._receiver is not None and (piece := cast(bytes, self._receiver.read_nowait())):
            return piece
        loop = asyncio.get_running_loop()
        if self._waits_since is None:
            self._waits_since = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(self._waits_since + self._silent):
                    piece = await self._next()
                self._waits_since = None
                return piece
            except TimeoutError:
                if not await self._lives():
                    raise SecondTierFault("the node is silent") from None
                self._waits_since = loop.time()
            except (aiohttp.ClientError, OSError) as error:
                raise SecondTierFault(f"the node broke off: {type(error).__name__}") from None

    async def _next(self) -> bytes:
        if self._receiver is not None:
            # A view, with which a fill can do all that it does with bytes.
            return cast(bytes, await self._receiver.read())
        piece = await self._response.content.read(MIB)
        self._came += len(piece)
        self._receiver = Receiver.take_over(self._response, self._came)
        return piece

    async def close(self) -> None:
        self._response.release()  # keeps the connection only when the body was read to its end
        if self._receiver is not None:
            self._receiver.close()
