"""How far the clock on the wall was set, as the monotonic one tells."""

from __future__ import annotations

from ..clock import Clock

_SLACK = 5.0
"""Seconds by which the two may come apart between looks: a clock that is slewed, and not set."""


class ClockJumps:
    """Remembers when the wall clock was set forward, and by how much. What a process has not seen,
    for it began later, it cannot know."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = clock.wall() - clock.monotonic()
        self._forward: list[tuple[float, float]] = []

    def look(self) -> bool:
        """Whether it was set since the last look, forward or back."""
        ahead = self._clock.wall() - self._clock.monotonic()
        jump, self._ahead = ahead - self._ahead, ahead
        if jump > _SLACK:
            self._forward.append((self._clock.monotonic(), jump))
        return abs(jump) > _SLACK

    def forward(self, within: float) -> float:
        """By how many seconds it was set forward within the last so many: what was written down
        before looks older by that."""
        now = self._clock.monotonic()
        self._forward = [(at, jump) for at, jump in self._forward if now - at <= within]
        return sum(jump for _, jump in self._forward)
