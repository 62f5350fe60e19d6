"""What a repository lacks is believed for a short time, which whoever asks may shorten."""

from __future__ import annotations

import pytest

from mirror.asking.negative_cache import MOMENT, NegativeCache
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown

from ..fakes import REDIS, HandClock

DIGEST = Digest.of(b"missing")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def missing(clock: HandClock) -> NegativeCache:
    return NegativeCache(clock.clock())


def is_believed(missing: NegativeCache, longest: float = 30.0) -> bool:
    try:
        missing.check(REDIS, DIGEST, longest)
    except BlobUnknown:
        return True
    return False


def test_each_word_that_repeats_it_is_believed_for_twice_as_long_up_to_a_bound(
    missing: NegativeCache, clock: HandClock
) -> None:
    for seconds in (MOMENT, 2 * MOMENT, 4 * MOMENT, 8 * MOMENT, 16 * MOMENT, 30.0, 30.0):
        missing.note(REDIS, DIGEST, BlobUnknown("no blob"), longest=30.0)
        clock.now += seconds - 0.1
        assert is_believed(missing)
        clock.now += 0.2
        assert not is_believed(missing)


def test_who_was_promised_it_believes_it_for_less_however_long_others_do(
    missing: NegativeCache, clock: HandClock
) -> None:
    for _ in range(5):
        missing.note(REDIS, DIGEST, BlobUnknown("no blob"), longest=30.0)
    clock.now += MOMENT + 0.1
    assert is_believed(missing)
    assert not is_believed(missing, longest=MOMENT)
