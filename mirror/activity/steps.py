"""Times counted in steps of a sixth more each, from 10 µs to ten minutes: enough for a median.

The steps are the same in every process, so that what several have counted can be added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import log

_LEAST = 1e-5  # seconds
_GROWTH = log(7 / 6)
_STEPS = 120


def step_of(seconds: float) -> int:
    """
    >>> step_of(0.0), step_of(1e9)
    (0, 119)
    """
    if seconds <= _LEAST:
        return 0
    return min(_STEPS - 1, 1 + int(log(seconds / _LEAST) / _GROWTH))


def median(counted: Mapping[int, int]) -> float | None:
    """Half took no longer than this, to a twelfth; None where nothing was counted.

    >>> round(median(Counter({step_of(0.01): 3, step_of(5.0): 2})), 3)
    0.01
    >>> median({})
    """
    left = sum(counted.values()) / 2
    if not left:
        return None
    for step in sorted(counted):
        left -= counted[step]
        if left <= 0:
            break
    return float(_LEAST * (7 / 6) ** max(0.0, step - 0.5))


def added(one: Mapping[int, int], other: Mapping[int, int]) -> Mapping[int, int]:
    return Counter(one) + Counter(other)
