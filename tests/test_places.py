"""Places of which there are few: for how long one has its own, and in whose turn one waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from mirror.places import Places, turn_of

from .waiting import eventually


@dataclass(eq=False)
class One:
    """A Claim that gives its place to nobody."""

    client: str
    group: str = ""
    is_wanted: bool = True
    vain_turns: int = 0

    def give_back(self) -> bool:
        return False


async def test_what_is_another_client_s_by_now_waits_in_that_one_s_turn() -> None:
    places = Places(2, lambda group: 2)
    held = [One("ann"), One("ann")]
    for claim in held:
        await places.take(claim, 1)
    waiting = [One("ann") for _ in range(5)]
    tasks = [asyncio.ensure_future(places.take(claim, 60)) for claim in waiting]
    await asyncio.sleep(0)
    waiting[-1].client = "bob"
    await eventually(lambda: "bob" in places._queues)
    places.give(held[0])
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in tasks] == [False] * 4 + [True]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_was_another_client_s_for_a_while_is_back_in_its_own_place() -> None:
    places = Places(1, lambda group: 1)
    held = One("eve")
    await places.take(held, 1)
    waiting = [One("ann") for _ in range(5)]
    tasks = [asyncio.ensure_future(places.take(claim, 60)) for claim in waiting]
    await asyncio.sleep(0)
    waiting[0].client = "bob"
    await eventually(lambda: "bob" in places._queues)
    waiting[0].client = "ann"
    await eventually(lambda: "bob" not in places._queues)
    places.give(held)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in tasks] == [True] + [False] * 4
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Watched:
    """A Claim that counts how often it is looked at."""

    client, is_wanted, vain_turns = "eve", True, 0

    def __init__(self) -> None:
        self.looks = 0

    @property
    def group(self) -> str:
        self.looks += 1
        return ""

    def give_back(self) -> bool:
        return False


async def test_one_that_comes_to_wait_costs_no_look_at_the_places_for_each_who_waits() -> None:
    places = Places(1, lambda group: 1)
    held = Watched()
    await places.take(held, 1)
    tasks = [asyncio.ensure_future(places.take(One(f"{n}"), 60)) for n in range(200)]
    await asyncio.sleep(0)
    before = held.looks
    tasks.append(asyncio.ensure_future(places.take(One("last"), 60)))
    await asyncio.sleep(0)
    assert held.looks - before < 20
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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


async def test_another_number_of_places_counts_at_once_and_takes_none_away() -> None:
    places = Places(1, lambda group: 10)
    first, second, third = One("ann"), One("bob"), One("eve")
    await places.take(first, 1)
    waiting = asyncio.ensure_future(places.take(second, 60))
    to_spare = asyncio.ensure_future(places.spare("", 0.0))
    await asyncio.sleep(0)
    places.limit(3)
    await asyncio.gather(waiting, to_spare)
    await places.take(third, 1)
    places.limit(1)
    assert len(places) == 3
    for claim in (first, second):
        places.give(claim)
        assert not places.has_spare("")
    places.give(third)
    assert places.has_spare("")
