"""How fast an endpoint has been lately."""

from __future__ import annotations

from collections import deque

_WEIGHT = 0.3  # of the newest measurement in an average
_KEPT = 64  # measurements from which the 95th percentile is read

_MIB = 1024 * 1024
LEAST_BYTES = _MIB  # a shorter body tells more of the latency than of the speed
LONG = 3.0  # seconds of waiting, which tell of the speed whatever has come in them
_LEAST_SECONDS = 0.05  # a shorter wait says nothing of the endpoint's speed


class Latency:
    """Seconds to the first byte: their weighted average, and what is usual."""

    def __init__(self) -> None:
        self.mean: float | None = None
        self.measured_at = float("-inf")
        self._last: deque[float] = deque(maxlen=_KEPT)

    def took(self, seconds: float, now: float) -> None:
        self.mean = _averaged(self.mean, seconds)
        self._last.append(seconds)
        self.measured_at = now

    def took_longer(self, seconds: float, now: float) -> None:
        """The answer was not waited for: it would have taken longer than this."""
        if self.mean is not None and seconds <= self.mean:
            return
        self.took(seconds, now)

    @property
    def usual(self) -> float | None:
        """The 95th percentile of the last measurements."""
        if not self._last:
            return None
        return sorted(self._last)[int(0.95 * (len(self._last) - 1))]


class Speed:
    """Bytes a second of one body, a weighted average."""

    def __init__(self) -> None:
        self.mean: float | None = None

    def took(self, count: int, waited: float) -> None:
        """`waited`: seconds in which a reader waited for these bytes."""
        if waited >= LONG or (count >= LEAST_BYTES and waited >= _LEAST_SECONDS):
            self.mean = _averaged(self.mean, count / waited)


def _averaged(mean: float | None, value: float) -> float:
    return value if mean is None else mean + _WEIGHT * (value - mean)
