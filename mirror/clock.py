"""Time, passed in."""

from __future__ import annotations

import time
from collections.abc import Callable

from .frozen import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, passed in so that tests need not sleep.

    `wall` (seconds since the epoch) is only for what is written down and outlives the process;
    everything else ages by `monotonic` (seconds).
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
