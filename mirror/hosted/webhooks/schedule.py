"""What becomes of a delivery after an attempt: pure.

A receiver that is down for a night is told in the morning; one that refuses a delivery as it is
will refuse it again, but for a minute in which it may have been about to be set up.
"""

from __future__ import annotations

from ...contracts.webhooks import Answer, DeliveryState, NotReceived
from ...frozen import dataclass

GIVE_UP = 26 * 3600.0
"""Seconds from the happening, after which what still waits fails."""

_PAUSES = (10.0, 30.0, 90.0, 300.0, 600.0)  # of one delivery; the last for all further ones
_RESTS = (5.0, 15.0, 60.0, 300.0)  # of a webhook, by its failures in a row
_TRIES_OF_REFUSED = 3

# 4xx that say "later": RFC 9110, 15.5.9; RFC 8470, 5.2; RFC 6585, 4; RFC 4918, 11.3.
_LATER = frozenset((408, 423, 425, 429))
_GONE = 410


@dataclass(frozen=True, slots=True)
class Verdict:
    """`result`: see WebhookAttempted. `pause`: seconds until it is tried again, where the state is
    WAITING. `rest`: seconds for which nothing of this webhook is tried, None where the receiver
    works."""

    result: str
    state: DeliveryState
    status: int | None
    words: str
    pause: float | None = None
    rest: float | None = None


def verdict(outcome: Answer | NotReceived, attempts: int, failures: int) -> Verdict:
    """`attempts` of this delivery and `failures` of its webhook, before this one."""
    pause, rest = _step(_PAUSES, attempts), _step(_RESTS, failures)
    waiting, failed = DeliveryState.WAITING, DeliveryState.FAILED
    if isinstance(outcome, NotReceived):
        return Verdict("unreachable", waiting, None, str(outcome), pause, rest)
    status, words = outcome.status, outcome.words
    if 200 <= status < 300:
        return Verdict("delivered", DeliveryState.DELIVERED, status, words)
    if status >= 500 or status in _LATER:
        return Verdict("later", waiting, status, words, pause, rest)
    if 300 <= status < 400:
        words = "a redirect, which is not followed: write the address where it leads"
    if status == _GONE or attempts + 1 >= _TRIES_OF_REFUSED:
        return Verdict("refused", failed, status, words)
    return Verdict("refused", waiting, status, words, pause)


def _step(steps: tuple[float, ...], count: int) -> float:
    return steps[min(count, len(steps) - 1)]
