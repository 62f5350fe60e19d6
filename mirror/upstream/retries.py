"""Asking again: how often, after how long, and when to stop for the endpoint's sake."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from ..asking.budgets import Budgets
from ..asking.retry_policy import RetryPolicy
from ..clock import Clock
from ..contracts.context import Asker, left
from ..oci.errors import Unavailable
from .failures import FailureKind, ReferralExpired, Unreached, pause_before_retry

T = TypeVar("T")

SOON = RetryPolicy(tries=3, pause=0.2, longest_pause=2.0, longest_asked=3.0, jitter=0.5)
"""How one request to an endpoint is tried again. A failure that asks for a longer pause is the
caller's to decide on."""

# Of one repository: so many retries at once, and so many more a second.
_BUDGET = 10.0
_REFILL = 0.5


def pause(error: Unavailable, attempt: int, policy: RetryPolicy, draw: float) -> float | None:
    """Seconds to wait after the failure of attempt number `attempt` (from 1); None: give up.

    `draw` is a random number in [0, 1).
    """
    least = pause_before_retry(error)
    if least is None:
        return None
    if attempt == 1 and attempt < policy.tries and _likely_gone(error):
        return 0.0
    return policy.pause_after(attempt, 0.0, least, draw)


def _likely_gone(error: Unavailable) -> bool:
    """A kept connection that was closed in the same instant, or a URL that had just ended: the
    next try begins anew and need not wait."""
    return isinstance(error, ReferralExpired) or (
        isinstance(error, Unreached) and error.kind is FailureKind.CUT
    )


class Retries:
    """Runs attempts against one endpoint under a policy and a budget for each repository: whoever
    asks for what fails uses up only the retries of that.

    Only for what may safely be done twice: GET and HEAD.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Clock,
        *,
        budget: float = _BUDGET,
        refill: float = _REFILL,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._budgets = Budgets(budget, refill, clock)
        self._sleep = sleep
        self._draw = draw

    def take(self, repository: Hashable) -> bool:
        """Whether the repository's budget has one more, which is then used up."""
        return self._budgets.of(repository).take()

    async def run(
        self, asker: Asker, repository: Hashable, attempt: Callable[[], Awaitable[T]]
    ) -> T:
        """The first success, or the last failure as it was raised. No pause ends after the asker's
        deadline."""
        number = 1
        while True:
            try:
                return await attempt()
            except Unavailable as error:
                seconds = pause(error, number, self._policy, self._draw())
                if seconds is None or seconds > left(asker):
                    raise
                if not self.take(repository):
                    raise
            number += 1
            await self._sleep(seconds)
