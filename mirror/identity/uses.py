"""When robots and personal tokens were used, for people who wonder whether they still are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from ..contracts.identity import IdentityRecords
from ..oci.errors import RegistryError

log = structlog.get_logger()

_BEHIND = 30.0  # seconds for which uses are collected
_MOST = 10_000  # of each kind; more are not written, and will be used again


class Uses:
    """`run` writes them, and what waits when it is cancelled."""

    def __init__(self, records: IdentityRecords, wall: Callable[[], float]) -> None:
        self._records = records
        self._wall = wall
        self._robots: set[str] = set()
        self._tokens: set[str] = set()

    def robot(self, login: str) -> None:
        if len(self._robots) < _MOST:
            self._robots.add(login)

    def token(self, id: str) -> None:
        if len(self._tokens) < _MOST:
            self._tokens.add(id)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                await asyncio.sleep(_BEHIND)
                await self.flush()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await self.flush()

    async def flush(self) -> None:
        robots, tokens = sorted(self._robots), sorted(self._tokens)
        if not robots and not tokens:
            return
        self._robots, self._tokens = set(), set()
        try:
            await self._records.used(robots, tokens, self._wall())
        except RegistryError as error:
            log.warning("uses_not_written", reason=str(error))
