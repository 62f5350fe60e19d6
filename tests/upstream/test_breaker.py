"""One breaker: when it opens, for how long, and what closes it."""

from __future__ import annotations

from mirror.oci.errors import Unavailable
from mirror.upstream.pool.breaker import Breaker, BreakerState, Pauses

PAUSES = Pauses(first=10, longest=35, forget=1000, failures=2, trial=5)
DOWN = Unavailable("down")


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(PAUSES)
    assert not breaker.failed(at, DOWN)
    assert breaker.failed(at, DOWN)
    return breaker


def test_one_failure_does_not_open_it_and_a_success_between_two_starts_the_count_anew() -> None:
    breaker = Breaker(PAUSES)
    for at in range(5):
        assert not breaker.failed(at, DOWN)
        breaker.succeeded()
    assert breaker.state(5) is BreakerState.CLOSED


def test_after_the_pause_one_may_try_and_the_others_go_on_waiting() -> None:
    breaker = opened()
    assert (breaker.state(9.9), breaker.left(9)) == (BreakerState.OPEN, 1)
    assert breaker.state(10) is BreakerState.DUE
    breaker.begin_trial(10)
    assert breaker.state(10) is BreakerState.OPEN
    assert breaker.succeeded()
    assert (breaker.state(10), breaker.left(10)) == (BreakerState.CLOSED, 0)


def test_a_trial_of_which_nothing_is_heard_is_followed_by_another() -> None:
    breaker = opened()
    breaker.begin_trial(10)
    assert breaker.state(14.9) is BreakerState.OPEN
    assert breaker.state(15) is BreakerState.DUE


def test_the_pauses_grow_with_each_failed_trial_up_to_the_longest() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(4):
        pauses.append(breaker.left(now))
        now += pauses[-1]
        breaker.begin_trial(now)
        breaker.failed(now, DOWN)
    assert pauses == [10, 20, 35, 35]


def test_those_that_were_under_way_when_it_opened_do_not_make_it_longer() -> None:
    breaker = opened()
    for _ in range(20):
        assert not breaker.failed(1, DOWN)
    assert breaker.left(1) == 9


def test_coming_back_once_does_not_make_the_pauses_short_but_time_does() -> None:
    breaker = opened()
    breaker.begin_trial(10)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(20, DOWN)
    assert breaker.left(20) == 20
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(2000, DOWN)
    assert breaker.left(2000) == 10


def test_the_endpoints_own_word_is_kept_within_bounds() -> None:
    breaker = Breaker(Pauses(first=10, longest=100, forget=1000))
    assert breaker.failed(0, DOWN, least=60)
    assert breaker.left(0) == 60
    breaker.failed(0, DOWN, least=1e9)
    assert breaker.left(0) == 100


def test_an_early_trial_waits_for_the_one_under_way_and_a_moment_after_it() -> None:
    breaker = opened()
    breaker.begin_trial(10)
    breaker.failed(10, DOWN)
    breaker.begin_trial(30)
    breaker.failed(30, DOWN)  # the pause is 35 s by now
    assert not breaker.may_try_early(39)
    assert breaker.may_try_early(40)
    breaker.begin_trial(40)
    assert not breaker.may_try_early(44)
