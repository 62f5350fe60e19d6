"""When an entry of `sync` runs: pure, with the time passed in, in seconds since the epoch.

A window is read off a clock on the wall: of the host (a container's is mostly UTC), or of a zone
that is named. Where clocks are put forward, a window that would begin in the hour that is left out
begins an hour later by the clock, and lasts as long as on other days; where they are put back, it
begins and ends the first time that they show its times.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, tzinfo
from datetime import time as day_time

from ..frozen import dataclass

LONGEST_PAUSE = 3600.0
"""Seconds after which a run goes on that was not finished, unless its window is closed then."""

_DAYS = 3  # of which one begins and ends a window at least, whatever the zone does
_EARLIER = 0.1  # the share of `every` by which a run may come early, to begin with its window
_LATEST = 300.0  # seconds by which a run is put off, so that mirrors do not ask all at once


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to `stop`, in minutes since midnight; over midnight where `stop` is not later.
    `zone` None: the host's."""

    start: int
    stop: int
    zone: tzinfo | None = None

    @property
    def length(self) -> float:
        """In seconds, on a day that has 24 hours."""
        return ((self.stop - self.start - 1) % 1440 + 1) * 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Every so many seconds, within the window if there is one."""

    every: float
    window: Window | None = None


def due(plan: Plan, last_due: float | None, goes_on_at: float | None, now: float) -> float:
    """When the entry is due, with its last run due then (None: it never ran): now or later. One
    that was not finished goes on `goes_on_at`. What fell into a time in which no mirror ran is made
    up for, once: within the window, where there is one."""
    earliest = now
    if goes_on_at is not None:
        earliest = max(now, min(goes_on_at, now + LONGEST_PAUSE))
    elif last_due is not None and last_due <= now:
        early = _EARLIER * plan.every if plan.window is not None else 0.0
        earliest = max(now, last_due + plan.every - early)
    if plan.window is None:
        return earliest
    begin, _ = opening(plan.window, earliest)
    return max(begin, earliest)


def begins(plan: Plan, due_at: float, share: float) -> float:
    """When a run that is due then begins: up to five minutes later, by this share from 0 to 1, and
    never behind the first quarter of what is left of its window."""
    longest = min(_LATEST, plan.every * _EARLIER)
    if plan.window is not None:
        _, end = opening(plan.window, due_at)
        longest = min(longest, (end - due_at) / 4)
    return due_at + max(0.0, longest) * share


def ends(plan: Plan, now: float) -> float | None:
    """When a run has to stop that goes on now; None: never. It is over where no window is open."""
    if plan.window is None:
        return None
    begin, end = opening(plan.window, now)
    return end if begin <= now else now


def opening(window: Window, now: float) -> tuple[float, float]:
    """When the window that is open now was opened, and ends; else the next one's times."""
    return next(found for found in _openings(window, now) if now < found[1])


def _openings(window: Window, now: float) -> Iterator[tuple[float, float]]:
    """Those around now, in order."""
    today = datetime.fromtimestamp(now, window.zone).date()
    over_midnight = window.stop <= window.start
    for days in range(-_DAYS, _DAYS + 1):
        day = today + timedelta(days=days)
        begin = _at(day, window.start, window.zone)
        end = _at(day + timedelta(days=over_midnight), window.stop, window.zone)
        yield begin, end if end > begin else begin + window.length


def _at(day: date, minutes: int, zone: tzinfo | None) -> float:
    hours, minute = divmod(minutes % 1440, 60)
    return datetime.combine(day, day_time(hours, minute), zone).timestamp()
