"""How often an ask is repeated, after how long, within which budget."""

from __future__ import annotations

import pytest

from mirror.asking.budgets import Budget
from mirror.asking.retry_policy import RetryPolicy
from mirror.oci.errors import Denied, RateLimited, RegistryError, Unavailable
from mirror.upstream.failures import FailureKind, Faulty, ReferralExpired, Unreached
from mirror.upstream.retries import Retries, pause

from ..fakes import CONTEXT, HandClock

POLICY = RetryPolicy(tries=3, pause=1.0, longest_pause=4.0, longest_asked=5.0, jitter=0.5)
BUDGET, REFILL = 2.0, 0.5


class Attempts:
    """Fails with these errors one after the other, then answers "done"."""

    def __init__(self, *errors: RegistryError) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


class Sleeps(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def retries(time: HandClock, sleeps: Sleeps) -> Retries:
    return Retries(
        POLICY, time.clock(), budget=BUDGET, refill=REFILL, sleep=sleeps, draw=lambda: 0.5
    )


async def test_f21_trouble_is_retried_with_growing_pauses(time: HandClock) -> None:
    sleeps, attempts = Sleeps(), Attempts(Faulty("503"), Faulty("502"))
    assert await retries(time, sleeps).run(CONTEXT, "redis", attempts) == "done"
    assert attempts.made == 3
    assert sleeps == [0.75, 1.5]


async def test_f21_attempts_are_bounded_and_the_last_error_is_raised(time: HandClock) -> None:
    attempts = Attempts(*(Faulty(f"number {i}") for i in range(9)))
    with pytest.raises(Faulty, match="number 2"):
        await retries(time, Sleeps()).run(CONTEXT, "redis", attempts)
    assert attempts.made == 3


async def test_f28_a_closed_connection_is_asked_again_at_once(time: HandClock) -> None:
    sleeps = Sleeps()
    await retries(time, sleeps).run(CONTEXT, "redis", Attempts(Unreached("cut", FailureKind.CUT)))
    assert sleeps == [0.0]


async def test_f09_an_expired_url_is_asked_again_at_once(time: HandClock) -> None:
    sleeps = Sleeps()
    await retries(time, sleeps).run(CONTEXT, "redis", Attempts(ReferralExpired("403")))
    assert sleeps == [0.0]


@pytest.mark.parametrize(
    "error",
    [
        Unreached("certificate", FailureKind.TLS),
        Unreached("slow", FailureKind.TIMEOUT),
        Unreached("no name", FailureKind.DNS),
        RateLimited("429", retry_after=1),
        Faulty("503", retry_after=60),
        Unavailable("418"),
        Denied("401"),
    ],
)
async def test_what_a_retry_cannot_mend_is_raised_at_once(
    time: HandClock, error: RegistryError
) -> None:
    attempts = Attempts(error)
    with pytest.raises(type(error)):
        await retries(time, Sleeps()).run(CONTEXT, "redis", attempts)
    assert attempts.made == 1


async def test_f21_a_short_retry_after_is_waited_for(time: HandClock) -> None:
    sleeps = Sleeps()
    await retries(time, sleeps).run(CONTEXT, "redis", Attempts(Faulty("503", retry_after=4)))
    assert sleeps == [4]


async def test_f21_a_dead_endpoint_is_not_hammered(time: HandClock) -> None:
    shared = retries(time, Sleeps())
    made = 0
    for _ in range(100):
        attempts = Attempts(*(Faulty("dead") for _ in range(9)))
        with pytest.raises(Faulty):
            await shared.run(CONTEXT, "redis", attempts)
        made += attempts.made
    assert made == 100 + 2


async def test_one_repository_that_fails_leaves_the_others_their_retries(time: HandClock) -> None:
    shared = retries(time, Sleeps())
    for _ in range(20):
        with pytest.raises(Faulty):
            await shared.run(CONTEXT, "redis", Attempts(*(Faulty("500") for _ in range(9))))
    assert await shared.run(CONTEXT, "nginx", Attempts(Faulty("502"))) == "done"


async def test_f55_the_budgets_of_repositories_are_bounded(time: HandClock) -> None:
    shared = retries(time, Sleeps())
    for number in range(2000):
        await shared.run(CONTEXT, number, Attempts(Faulty("502")))
    assert len(shared._budgets) <= 1024


def test_the_budget_grows_again_with_time_up_to_its_bound(time: HandClock) -> None:
    budget = Budget(BUDGET, REFILL, time.clock())
    assert [budget.take() for _ in range(3)] == [True, True, False]
    time.now += 2
    assert [budget.take() for _ in range(2)] == [True, False]
    time.now += 1_000_000
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_pauses_are_spread() -> None:
    drawn = [pause(Faulty("503"), 2, POLICY, draw) for draw in (0.0, 0.5, 0.999)]
    assert drawn == pytest.approx([1.0, 1.5, 2.0], abs=0.01)
