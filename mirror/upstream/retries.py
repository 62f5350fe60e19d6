"""Asking again: how often, after how long, and when to stop for the endpoint's sake."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

from ..asking.budgets import Budgets
from ..clock import Clock
from ..oci.errors import Unavailable
from .failures import FailureKind, ReferralExpired, Unreached, pause_before_retry

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds, except `attempts` (in all, the first included) and `budget` (retries).

    A pause doubles from `first` up to `longest`, and is drawn between its half and its whole, so
    that many who failed together do not come back together.
    """

    attempts: int = 3
    first: float = 0.2
    longest: float = 2.0
    patience: float = 3.0  # a Retry-After above this is the caller's to decide on
    budget: float = 10.0
    refill: float = 0.5  # retries a second


def pause(error: Unavailable, attempt: int, policy: Policy, draw: float) -> float | None:
    """Seconds to wait after the failure of attempt number `attempt` (from 1); None: give up.

    `draw` is a random number in [0, 1).
    """
    least = pause_before_retry(error)
    if least is None or attempt >= policy.attempts or least > policy.patience:
        return None
    if attempt == 1 and _likely_gone(error):
        return 0.0
    backoff = min(policy.longest, policy.first * 2.0 ** (attempt - 1))
    return max(least, backoff * (0.5 + draw / 2))


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
        policy: Policy,
        clock: Clock,
        *,
        sleep: Sleep = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._budgets = Budgets(policy.budget, policy.refill, clock)
        self._sleep = sleep
        self._draw = draw

    async def run(self, repository: Hashable, attempt: Callable[[], Awaitable[T]]) -> T:
        """The first success, or the last failure as it was raised."""
        number = 1
        while True:
            try:
                return await attempt()
            except Unavailable as error:
                seconds = pause(error, number, self._policy, self._draw())
                if seconds is None or not self._budgets.of(repository).take():
                    raise
            number += 1
            await self._sleep(seconds)
