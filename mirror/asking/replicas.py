"""A registry of several replicas, one of which lacks what the others already name."""

from __future__ import annotations

from collections.abc import Iterator

from ..times import TROUBLE

LONGEST = TROUBLE.lagging
"""Seconds for which "there is no such thing" is not believed of what was promised: less than any
client waits."""


def doubts(first: float, within: float) -> Iterator[float]:
    """The pauses, in seconds, after each of which a replica is asked once more: doubled from
    `first` on, `within` so many in all."""
    pause, left = first, within
    while 0 < pause <= left:
        yield pause
        pause, left = pause * 2, left - pause
