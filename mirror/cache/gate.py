"""Who may download now: a bound on running fills, shared fairly."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..oci.errors import Unavailable

_FOR_CLIENTS = 0.25  # the share of the places that work ahead of clients leaves to them


@dataclass(frozen=True, slots=True)
class FillLimits:
    """How many fills may run: in all, and from one registry."""

    total: int = 64
    per_registry: int = 32


class Gate:
    """Turns for fills. Those who wait are served client by client, not in order of arrival: one
    client's fifty layers do not keep the others from their first."""

    def __init__(self, limits: FillLimits) -> None:
        self._limits = limits
        self._running: Counter[str] = Counter()
        self._quiet: asyncio.Future[None] | None = None
        self._waiting: OrderedDict[str, deque[tuple[str, asyncio.Future[None]]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, registry: str, client: str, within: float) -> AsyncIterator[None]:
        """Waits for a place, at most `within` seconds, and holds it. Raises Unavailable."""
        if self._waiting or not self._has_place(registry):
            try:
                async with asyncio.timeout(within):
                    await self._wait(registry, client)
            except TimeoutError:
                raise Unavailable(
                    f"{self._running.total()} downloads run already, and none of them ended within "
                    f"{within:g} s",
                    retry_after=within,
                ) from None
        else:
            self._running[registry] += 1
        try:
            yield
        finally:
            self._leave(registry)

    async def spare(self, registry: str) -> None:
        """Returns when there is a place that nobody waits for, and some more for who comes next."""
        while self._waiting or not self._has_place(registry, leave=_FOR_CLIENTS):
            if self._quiet is None:
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._quiet)

    def is_idle(self, registry: str) -> bool:
        """Whether nothing runs or waits that is this registry's."""
        waiting = (name for queue in self._waiting.values() for name, _ in queue)
        return self._running[registry] == 0 and registry not in waiting

    def _has_place(self, registry: str, leave: float = 0.0) -> bool:
        """Whether one more may run; `leave` is the share of the places that is to stay free."""
        total = self._limits.total * (1 - leave)
        per_registry = self._limits.per_registry * (1 - leave)
        return self._running.total() < total and self._running[registry] < per_registry

    async def _wait(self, registry: str, client: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append((registry, place))
        self._admit()  # those before us may all wait for another registry
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._forget(client, (registry, place))
            else:  # admitted in the same instant
                self._leave(registry)
            raise

    def _leave(self, registry: str) -> None:
        self._running[registry] -= 1
        if not self._running[registry]:
            del self._running[registry]
        self._admit()
        if self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None

    def _admit(self) -> None:
        """Gives what places there are to the first of each client in turn."""
        for client in list(self._waiting):
            registry, place = self._waiting[client][0]
            if place.cancelled() or not self._has_place(registry):
                continue
            self._forget(client, (registry, place))
            if client in self._waiting:  # it has had its turn
                self._waiting.move_to_end(client)
            self._running[registry] += 1
            place.set_result(None)

    def _forget(self, client: str, waiter: tuple[str, asyncio.Future[None]]) -> None:
        queue = self._waiting.get(client)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[client]
