"""What one node at a time does, where nodes share nothing: each for itself."""

from __future__ import annotations

from ..clock import Clock


class OwnTurn:
    """A Turn of a node that shares nothing with others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._again_at = float("-inf")

    async def take(self) -> bool:
        return self._clock.monotonic() >= self._again_at

    async def keep(self) -> bool:
        return True

    async def give_back(self, again_after: float = 0.0) -> None:
        self._again_at = self._clock.monotonic() + again_after

    async def close(self) -> None:
        """There is nothing to close."""
