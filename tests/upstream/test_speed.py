"""Latency and speed of an endpoint: what they are told by, and what fades."""

from __future__ import annotations

from mirror.upstream.pool.speed import LEAST_BYTES, Latency, Speed


def test_what_is_new_weighs_more_and_what_is_old_fades() -> None:
    latency = Latency()
    assert (latency.mean, latency.usual) == (None, None)
    for _ in range(20):
        latency.took(0.1, 0)
    assert latency.mean is not None
    for _ in range(20):
        latency.took(2.0, 1)
    assert latency.mean > 1.9
    assert latency.measured_at == 1


def test_the_usual_time_takes_no_notice_of_one_outlier_in_twenty() -> None:
    latency = Latency()
    for number in range(40):
        latency.took(9.0 if number % 40 == 0 else 0.1, 0)
    assert latency.usual == 0.1


def test_an_answer_that_nobody_waited_for_counts_only_when_it_was_slower_than_known() -> None:
    latency = Latency()
    latency.took_longer(1.0, 0)
    assert latency.mean == 1.0
    latency.took_longer(0.2, 5)  # the client left soon: that says nothing
    assert (latency.mean, latency.measured_at) == (1.0, 0)
    latency.took_longer(3.0, 5)
    assert latency.mean > 1.5


def test_the_speed_is_told_by_long_bodies_that_somebody_waited_for() -> None:
    speed = Speed()
    speed.took(LEAST_BYTES - 1, 1.0)
    speed.took(LEAST_BYTES, 0.001)
    assert speed.mean is None
    speed.took(10 * LEAST_BYTES, 2.0)
    assert speed.mean == 5 * LEAST_BYTES


def test_the_speed_is_told_by_a_long_wait_however_little_came() -> None:
    speed = Speed()
    speed.took(30_000, 3.0)
    assert speed.mean == 10_000
