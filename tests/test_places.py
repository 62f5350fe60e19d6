"""Places of which there are few: for how long one has its own."""

from __future__ import annotations

import pytest

from mirror.places import turn_of


@pytest.mark.parametrize(
    ("waiting", "seconds"),
    [
        (1, 10.0),  # to give it costs something, and the one that waits can wait
        (64, 10.0),
        (160, 4.0),
        (10_000, 2.0),
    ],
)
def test_the_more_wait_the_shorter_a_turn_is(waiting: int, seconds: float) -> None:
    assert turn_of(places=32, waiting=waiting, quantum=2.0) == seconds
