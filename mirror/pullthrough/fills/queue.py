"""Which fills may run now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...frozen import dataclass
from ...oci.errors import Unavailable
from ...places import Crowded, Places, Unwanted
from ...tasks import ended
from .fill import Fill

_FOR_CLIENTS = 0.25  # the share of the places that work ahead of clients leaves to them
QUANTUM = 2.0
"""Seconds for which a fill has its place at least: going on later costs the upstream a question."""


@dataclass(frozen=True, slots=True)
class FillLimits:
    """How many fills may run: in all, and from one registry."""

    total: int = 64
    per_registry: int = 32


class FillQueue:
    """Turns for fills, shared fairly between clients, and between the registries that one client
    asks (see Places): one client's fifty layers do not keep the others from their first, nor does
    a registry that drips keep those behind the same address from other registries."""

    def __init__(self, limits: FillLimits, quantum: float = QUANTUM) -> None:
        self._limits = limits
        self._places = Places(limits.total, lambda _: self._limits.per_registry, quantum=quantum)
        self._turns: dict[Fill, _Turn] = {}

    def limit(self, limits: FillLimits) -> None:
        """From now on; where more run than may, they end, or give their places in turn."""
        self._limits = limits
        self._places.limit(limits.total)

    async def run(self, fill: Fill, work: Callable[[], Awaitable[None]], within: float) -> bool:
        """Does this work of the fill's in a turn of its own. False: it was broken off, since others
        want the place more, and is to be done again.

        Raises Unavailable when there was no place within so many seconds, and what the work raises.
        """
        turn = _Turn(fill)
        try:
            await self._places.take(turn, within)
        except Unwanted:
            return False
        except Crowded:
            raise Unavailable("too many downloads wait already", retry_after=within) from None
        except TimeoutError:
            raise Unavailable(
                f"{len(self._places)} downloads run already, and none of them ended within "
                f"{within:g} s",
                retry_after=within,
            ) from None
        self._turns[fill] = turn
        try:
            return await turn.run(work)
        finally:
            del self._turns[fill]
            self._places.give(turn)

    def break_off(self, fill: Fill) -> None:
        """Ends this fill's turn, if it has one."""
        turn = self._turns.get(fill)
        if turn is not None:
            turn.give_back()

    async def spare(self, registry: str) -> None:
        """Returns when there is a place that nobody waits for, and some more for who comes next."""
        await self._places.spare(registry, _FOR_CLIENTS)

    def has_spare(self, registry: str, beside: int = 0) -> bool:
        """See `spare`. `beside`: how many others are about to take a place."""
        return self._places.has_spare(registry, _FOR_CLIENTS, beside)

    def has_place(self, registry: str) -> bool:
        """Whether who comes now need not wait."""
        return self._places.has_spare(registry)

    def is_idle(self, registry: str) -> bool:
        """Whether nothing runs or waits that is this registry's."""
        return self._places.is_idle(registry)


class _Turn:
    """A fill's claim to a place: its work is broken off where the place is asked back."""

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self._task: asyncio.Future[None] | None = None
        self._is_broken_off = False

    @property
    def client(self) -> str:
        return self._fill.client

    @property
    def group(self) -> str:
        return self._fill.repository.registry

    @property
    def is_wanted(self) -> bool:
        return self._fill.is_wanted

    @property
    def vain_turns(self) -> int:
        return self._fill.vain_turns

    def give_back(self) -> bool:
        if self._is_broken_off:  # once: what it still does it does for the sake of what has come
            return False
        if self.is_wanted and not self._fill.goes_on_by_range:
            return False
        self._is_broken_off = self._task is not None and self._task.cancel()
        return self._is_broken_off

    async def run(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Whether it came to its end."""
        before = self._fill.came
        self._task = task = asyncio.ensure_future(work())
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await ended([task])
            raise
        if self._is_broken_off and task.cancelled():
            self._fill.vain_turns += self._fill.came == before
            return False
        task.result()
        return True
