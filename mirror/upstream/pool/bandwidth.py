"""What all bodies bring together, over one link: how slow a body is may be the others' doing.

Twenty downloads over a link of 60 kB/s have 3 kB/s each, and no endpoint is at fault.
"""

from __future__ import annotations

from collections import deque

from ...clock import Clock

_WINDOW = 30  # seconds that are looked back on
_MUCH_LESS = 4.0  # times less than the bodies have on average: that is not the link's fault


class Bandwidth:
    """Counts the bodies of one registry that are under way, and the bytes that come of them all.
    `whole` counts those of the whole process: all registries may share one link, or not, since one
    of them may be in the next rack, and bring more than the link to all others can."""

    def __init__(self, clock: Clock, whole: Bandwidth | None = None) -> None:
        self._clock = clock
        self._whole = whole
        self._bodies = 0
        self._came: deque[tuple[int, int]] = deque()  # by the second: when, and how many bytes

    def begins(self) -> None:
        self._bodies += 1
        if self._whole is not None:
            self._whole.begins()

    def ends(self) -> None:
        self._bodies -= 1
        if self._whole is not None:
            self._whole.ends()

    def came(self, count: int) -> None:
        if self._whole is not None:
            self._whole.came(count)
        now = int(self._clock.monotonic())
        if self._came and self._came[-1][0] == now:
            now, before = self._came.pop()
            count += before
        self._came.append((now, count))
        while self._came[0][0] < now - _WINDOW:
            self._came.popleft()

    def is_shared_fairly(self, speed: float, least: float) -> bool:
        """Whether a body of this speed has about as much as the others, of its registry or of all,
        over a link that brings at least `least` bytes a second in all."""
        if self._whole is not None and self._whole.is_shared_fairly(speed, least):
            return True
        now = self._clock.monotonic()
        lately = [(second, count) for second, count in self._came if second >= now - _WINDOW]
        if not lately:
            return False
        total = sum(count for _, count in lately) / max(1.0, now - lately[0][0])
        return total >= least and speed * _MUCH_LESS >= total / max(1, self._bodies)
