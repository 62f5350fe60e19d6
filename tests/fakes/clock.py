"""Time that passes when a test says so."""

from __future__ import annotations

from dataclasses import dataclass

from mirror.clock import Clock


@dataclass
class HandClock:
    """Stands still until the test moves it: `clock.now += 30`.

    Called, it is one hand: `Clock(wall=hand)` leaves the other to the system, for a test in which
    something waits for real. `clock()` has both hands.
    """

    now: float = 1_000_000.0  # seconds
    ahead: float = 0.0  # of the wall clock, in seconds: somebody has set it

    def __call__(self) -> float:
        return self.now

    @property
    def wall(self) -> float:
        return self.now + self.ahead

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall, monotonic=self)
