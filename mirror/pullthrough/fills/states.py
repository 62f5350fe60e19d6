"""The states of a fill, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class FillState(StrEnum):
    BEGUN = "begun"  # takes the lock on the partial
    FOLLOWING = "following"  # another process has the lock
    WAITING = "waiting"  # for a place among the fills that run
    OPENING = "opening"  # asks the upstream: nothing has come since it was asked
    DOWNLOADING = "downloading"  # to the disk
    SPILLING = "spilling"  # through memory, as the disk takes no more
    PROVING = "proving"  # every byte is there
    PROVEN = "proven"  # all may read all of it, while it gets its place in the store
    KEPT = "kept"  # proven, and in the store
    UNCACHED = "uncached"  # proven, and not in the store
    FOLLOWED = "followed"  # proven, by another process, which keeps it if it can
    PUT_OFF = "put off"  # nobody waits for more of it: what is there may be read
    FAILED = "failed"  # what is there is worth nothing to who reads it


_S = FillState

NEXT: Mapping[FillState, frozenset[FillState]] = {
    _S.BEGUN: frozenset({_S.FOLLOWING, _S.WAITING, _S.PROVEN, _S.FAILED}),
    _S.FOLLOWING: frozenset({_S.WAITING, _S.PROVEN, _S.FAILED}),
    _S.WAITING: frozenset({_S.WAITING, _S.OPENING, _S.PUT_OFF, _S.FAILED}),
    _S.OPENING: frozenset(
        {_S.DOWNLOADING, _S.SPILLING, _S.WAITING, _S.PROVING, _S.PUT_OFF, _S.FAILED}
    ),
    _S.DOWNLOADING: frozenset(
        {_S.OPENING, _S.SPILLING, _S.WAITING, _S.PROVING, _S.PUT_OFF, _S.FAILED}
    ),
    _S.SPILLING: frozenset({_S.OPENING, _S.WAITING, _S.PROVING, _S.PUT_OFF, _S.FAILED}),
    _S.PROVING: frozenset({_S.PROVEN, _S.FAILED}),
    _S.PROVEN: frozenset({_S.KEPT, _S.UNCACHED, _S.FOLLOWED}),
    _S.KEPT: frozenset(),
    _S.UNCACHED: frozenset(),
    _S.FOLLOWED: frozenset(),
    _S.PUT_OFF: frozenset(),
    _S.FAILED: frozenset(),
}
"""Which state may follow which. A fill gives its place to others from OPENING, DOWNLOADING or
SPILLING to WAITING; a fault of the upstream leads back to OPENING. What is PROVEN cannot fail:
clients may have all of it by then."""


class WrongState(Exception):
    """A fill was to enter a state that does not follow on its own: a fault of this program."""


def check(before: FillState, after: FillState) -> None:
    """Raises WrongState."""
    if after not in NEXT[before]:
        raise WrongState(f"a fill that is {before} cannot be {after}")
