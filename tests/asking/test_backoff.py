"""Pauses after failures, one for each key."""

from __future__ import annotations

from mirror.asking.backoff import Backoff
from mirror.asking.retry_policy import RetryPolicy
from mirror.oci.reference import Repository

from ..fakes import REDIS, HandClock

Key = tuple[Repository, str]
A, B = (REDIS, "a"), (REDIS, "b")


def test_pauses_double_up_to_the_longest_and_end_when_it_works() -> None:
    monotonic = HandClock()
    backoff: Backoff[Key] = Backoff(monotonic, RetryPolicy(pause=1, longest_pause=8))
    assert not backoff.waiting(A)
    for pause in (1, 2, 4, 8, 8):
        backoff.failed(A)
        monotonic.now += pause - 0.5
        assert backoff.waiting(A)
        assert not backoff.waiting(B)
        monotonic.now += 0.5
        assert not backoff.waiting(A)
    backoff.worked(A)
    backoff.failed(A)
    monotonic.now += 1
    assert not backoff.waiting(A)


def test_f55_a_flood_of_failures_takes_bounded_memory_and_spares_other_registries() -> None:
    backoff: Backoff[Key] = Backoff(HandClock())
    backoff.failed(A)
    for number in range(20_000):
        backoff.failed((Repository("evil.example", "x"), str(number)))
    assert len(backoff._waits) == 10_000
    assert backoff.waiting((Repository("evil.example", "x"), "19999"))
    assert not backoff.waiting((Repository("evil.example", "x"), "0"))
    assert backoff.waiting(A)


def test_a_registry_that_nobody_asks_any_more_is_forgotten() -> None:
    backoff: Backoff[Key] = Backoff(HandClock())
    backoff.failed(A)
    backoff.forget(REDIS.registry)
    assert not backoff.waiting(A)
    assert len(backoff._waits) == 0
