"""Small content on its way into rows: what comes while a transaction is written goes with the next,
so that one way to a thread and one sync are for many."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import apsw
import structlog

from ...clock import Clock
from ...contracts.content import StoreFull
from ...threads import Threads, aside
from .async_index import AsyncIndex
from .files import words
from .index import Arrival
from .small_rows import SmallRows
from .space import SpaceManager

log = structlog.get_logger()

_MOST = 256  # pieces in one transaction


@dataclass(frozen=True, slots=True)
class _Waiting:
    arrival: Arrival
    data: bytes
    kept: asyncio.Future[bool]


class SmallPuts:
    """Of one process. For one event loop."""

    def __init__(
        self,
        small: SmallRows,
        space: SpaceManager,
        async_index: AsyncIndex,
        clock: Clock,
        *,
        sync: bool,
    ) -> None:
        """`sync`: whether what is kept is to be on the disk before that is said."""
        self._small = small
        self._space = space
        self._async_index = async_index
        self._clock = clock
        self._sync = sync
        self._thread = Threads(1, "small")
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, arrival: Arrival, data: bytes) -> bool:
        """Keeps these proven bytes as a row. False: there is no room for it without eviction, or no
        row can be written."""
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(arrival, data, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await kept

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        await aside(self._thread.close)

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                try:
                    kept = await self._thread.run(self._commit, batch)
                except Exception as error:  # of whoever waits: nobody is to wait for ever
                    for each in batch:
                        if not each.kept.done():
                            each.kept.set_exception(error)
                    continue
                for each in batch:
                    if not each.kept.done():
                        each.kept.set_result(kept)
        finally:
            self._writing = None

    def _commit(self, batch: list[_Waiting]) -> bool:
        """Whether all of it is kept; else nothing is. Blocking."""
        # A record whose row is yet to come is a miss: so nothing is reserved for a moment.
        try:
            now = self._clock.wall()
            if not self._space.admit([each.arrival for each in batch], now):
                return False
        except (StoreFull, OSError):  # who is alone may find room, or is told why there is none
            return False
        pieces = {each.arrival.digest: each.data for each in batch}
        try:
            self._small.add(list(pieces.items()), now, durable=self._sync)
        except (apsw.Error, OSError) as error:
            log.warning("small_content_takes_no_row", pieces=len(pieces), reason=words(error))
            self._async_index.note_here(self._async_index.index.remove, list(pieces))
            return False
        return True
