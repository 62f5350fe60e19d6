"""What goes from the object store, and what never does."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from mirror.contracts.second_tier import FarFault
from mirror.oci.digest import Digest
from mirror.storage.second_tier.sweep import ASIDE, Gone, Sweep, SweepPolicy, Swept, Why

from ..fakes import HandClock, MemoryFarContent, MemoryTier

SIZE = 1000
DAY = 86400.0
NOTHING = dict.fromkeys(Why, Gone())


@pytest.fixture
def tier() -> MemoryTier:
    return MemoryTier()


@pytest.fixture
def clock() -> HandClock:
    return HandClock(now=1e9)


@pytest.fixture
def far(tier: MemoryTier, clock: HandClock) -> MemoryFarContent:
    far = MemoryFarContent(tier)
    far.now = clock.now
    return far


def keep(far: MemoryFarContent, tier: MemoryTier, days: float) -> Digest:
    data = os.urandom(SIZE)
    digest = Digest.of(data)
    tier.kept[digest] = data
    far.times[str(digest)] = far.now - days * DAY
    return digest


async def yes() -> bool:
    return True


async def swept(far: MemoryFarContent, policy: SweepPolicy, clock: HandClock) -> Swept:
    """What a sweep did, which is what was foretold."""
    sweep = Sweep(far, policy, clock.clock())
    foretold = await sweep.forecast()
    done = await sweep.run(yes)
    assert done == foretold
    return done


async def test_content_that_nobody_used_for_long_goes(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    old, new = keep(far, tier, 91), keep(far, tier, 89)
    done = await swept(far, SweepPolicy(keep=90 * DAY), clock)
    assert set(tier.kept) == {new}
    assert old not in tier.kept
    assert done.gone == {**NOTHING, Why.OLD: Gone(1, SIZE)}
    assert done.there == Gone(2, 2 * SIZE)
    assert done.oldest == 89 * DAY


async def test_of_too_much_the_oldest_goes_and_no_more_than_is_lacking(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    digests = [keep(far, tier, days) for days in (50, 40, 30, 20)]
    done = await swept(far, SweepPolicy(max_size=2 * SIZE), clock)
    assert set(tier.kept) == set(digests[2:])
    assert done.gone[Why.ROOM] == Gone(2, 2 * SIZE)


async def test_of_many_of_one_age_some_go(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    for _ in range(2500):  # three pages
        keep(far, tier, 50)
    done = await swept(far, SweepPolicy(max_size=1000 * SIZE), clock)
    assert len(tier.kept) == 1000
    assert done.gone[Why.ROOM] == Gone(1500, 1500 * SIZE)


async def test_what_was_renewed_stays_and_what_is_young_stays_whatever_there_is(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    used, young = keep(far, tier, 100), keep(far, tier, 0.9)
    await far.renew(used)
    old = keep(far, tier, 2)
    done = await swept(far, SweepPolicy(max_size=0, keep=60.0), clock)
    assert set(tier.kept) == {used, young}
    assert old not in tier.kept
    assert done.there == Gone(3, 3 * SIZE)


async def test_what_is_none_of_the_caches_content_is_neither_counted_nor_removed(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    name = "hosted/sha256/ab/abcd"
    far.others[name], far.times[name] = 10**9, 0.0
    done = await swept(far, SweepPolicy(max_size=0, keep=DAY), clock)
    assert far.others == {name: 10**9}
    assert done.there == Gone()


@pytest.mark.parametrize("bounds", [{}, {"max_size": 10**9}])
async def test_what_was_set_aside_goes_after_a_month(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock, bounds: dict[str, int]
) -> None:
    digest = keep(far, tier, 1000)
    for name, days in ((f"{ASIDE}sha256/ab/1", 29), (f"{ASIDE}sha256/ab/2", 31)):
        far.others[name], far.times[name] = SIZE, far.now - days * DAY
    done = await swept(far, SweepPolicy(**bounds), clock)
    assert list(far.others) == [f"{ASIDE}sha256/ab/1"]
    assert done.gone == {**NOTHING, Why.WRONG: Gone(1, SIZE)}
    assert digest in tier.kept


async def test_a_clock_that_was_set_forward_removes_no_more_than_it_would_later(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    keep(far, tier, -5)  # written by a store whose clock is ahead
    done = await swept(far, SweepPolicy(max_size=0, keep=60.0), clock)
    assert done.gone == NOTHING


async def test_a_sweep_that_may_not_go_on_stops_at_the_next_page(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    for _ in range(2500):
        keep(far, tier, 50)
    answers = iter([True] * 5 + [False])  # three pages and what was set aside, seen; one removed

    async def for_a_while() -> bool:
        return next(answers, False)

    done = await Sweep(far, SweepPolicy(keep=DAY), clock.clock()).run(for_a_while)
    assert len(tier.kept) == 1500
    assert done.gone[Why.OLD] == Gone(1000, 1000 * SIZE)


async def test_a_store_that_refuses_is_told(
    far: MemoryFarContent, tier: MemoryTier, clock: HandClock
) -> None:
    keep(far, tier, 50)
    far.refuses = True
    with pytest.raises(FarFault):
        await Sweep(far, replace(SweepPolicy(), keep=DAY), clock.clock()).run(yes)
