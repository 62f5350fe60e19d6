"""The next is asked when one is late: who wins, and what becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mirror.oci.errors import RangeInvalid, RegistryError, Unavailable
from mirror.upstream.pool.hedge import NobodyAnswered, Race

from ..waiting import eventually


class Course:
    """A race between names; each answers when it is told to. Time passes when it is told to."""

    def __init__(self, *names: str, spare: str = "abc") -> None:
        self.names = names
        self.asked: list[str] = []
        self.hedged: list[str] = []
        self.left: list[str] = []  # cancelled
        self.discarded: list[str] = []
        self.errors: list[str] = []
        self.answers: dict[str, asyncio.Future[str]] = {}
        self.alarms: list[asyncio.Future[None]] = []
        self.ends_slowly = asyncio.Event()  # of asks that are cancelled
        self.ends_slowly.set()
        self.late_of: list[str] = []
        loop = asyncio.get_running_loop()
        for name in names:
            self.answers[name] = loop.create_future()
        self.race: Race[str, str] = Race(
            ask=self._ask,
            late=self._late,
            spare=lambda name: name in spare,
            hedged=self.hedged.append,
            failed=lambda name, error: self.errors.append(name),
            discard=self._discard,
            sleep=self._sleep,
        )
        self.running = asyncio.create_task(self.race.run(names))

    async def _ask(self, name: str) -> str:
        self.asked.append(name)
        try:
            return await self.answers[name]
        except asyncio.CancelledError:
            self.left.append(name)
            await self.ends_slowly.wait()
            raise

    def _late(self, name: str) -> float:
        self.late_of.append(name)
        return 1.0

    async def _sleep(self, seconds: float) -> None:
        self.alarms.append(asyncio.get_running_loop().create_future())
        await self.alarms[-1]

    async def _discard(self, answer: str) -> None:
        self.discarded.append(answer)

    async def asked_are(self, *names: str) -> None:
        await eventually(lambda: self.asked == [*names] and len(self.alarms) >= len(names))

    def fail(self, name: str, error: RegistryError | None = None) -> None:
        self.answers[name].set_exception(error or Unavailable(name))

    def late(self) -> None:
        self.alarms[-1].set_result(None)


async def outcome(course: Course) -> tuple[str, Sequence[tuple[str, bool]]]:
    async with asyncio.timeout(10):
        return await course.running


async def test_who_answers_in_time_is_the_only_one_asked() -> None:
    course = Course("a", "b")
    await course.asked_are("a")
    course.answers["a"].set_result("A")
    assert await outcome(course) == ("A", [])
    assert (course.asked, course.hedged) == (["a"], [])
    assert course.alarms[0].cancelled()


async def test_when_the_first_is_late_the_next_is_asked_too_and_the_loser_is_left() -> None:
    course = Course("a", "b", "c")
    await course.asked_are("a")
    course.late()
    await course.asked_are("a", "b")
    course.answers["b"].set_result("B")
    assert await outcome(course) == ("B", [("b", True)])
    assert course.left == ["a"]
    assert course.late_of == ["a", "b"]


async def test_the_late_one_may_still_win() -> None:
    course = Course("a", "b")
    await course.asked_are("a")
    course.late()
    await eventually(lambda: course.asked == ["a", "b"])
    course.answers["a"].set_result("A")
    assert await outcome(course) == ("A", [("b", False)])
    assert course.left == ["b"]


async def test_of_two_answers_in_the_same_instant_one_is_closed() -> None:
    course = Course("a", "b")
    await course.asked_are("a")
    course.late()
    await eventually(lambda: course.asked == ["a", "b"])
    course.answers["a"].set_result("A")
    course.answers["b"].set_result("B")
    winner, _ = await outcome(course)
    assert {winner, *course.discarded} == {"A", "B"}


async def test_an_answer_for_which_nobody_is_there_any_more_is_closed() -> None:
    """They leave while the one that lost is being told."""
    course = Course("a", "b")
    await course.asked_are("a")
    course.late()
    await course.asked_are("a", "b")
    course.ends_slowly.clear()
    course.answers["a"].set_result("A")
    await eventually(lambda: course.left == ["b"])
    for _ in range(2):
        course.running.cancel()
        await asyncio.sleep(0)
    course.ends_slowly.set()
    with pytest.raises(asyncio.CancelledError):
        await course.running
    assert course.discarded == ["A"]


async def test_a_failure_is_followed_by_the_next_and_ends_nothing_while_another_is_asked() -> None:
    course = Course("a", "b", "c")
    await course.asked_are("a")
    course.fail("a")
    await course.asked_are("a", "b")
    course.late()
    await eventually(lambda: course.asked == ["a", "b", "c"])
    course.fail("c")
    await eventually(lambda: course.errors == ["a", "c"])
    course.answers["b"].set_result("B")
    assert await outcome(course) == ("B", [("c", False)])


async def test_who_is_not_spare_is_asked_only_when_all_before_have_failed() -> None:
    course = Course("a", "b", "c", spare="c")
    await course.asked_are("a")
    course.late()
    await course.asked_are("a", "c")
    course.fail("a")
    course.fail("c")
    await eventually(lambda: course.asked == ["a", "c", "b"])
    course.answers["b"].set_result("B")
    assert await outcome(course) == ("B", [("c", False)])


async def test_when_all_have_failed_nobody_answered() -> None:
    course = Course("a", "b")
    course.fail("a")
    course.fail("b")
    with pytest.raises(NobodyAnswered):
        await outcome(course)
    assert course.errors == ["a", "b"]


async def test_an_error_that_is_an_answer_ends_the_race() -> None:
    course = Course("a", "b")
    course.fail("a", RangeInvalid(7))
    with pytest.raises(RangeInvalid):
        await outcome(course)
    assert course.asked == ["a"]


async def test_who_leaves_takes_all_that_were_asked_along() -> None:
    course = Course("a", "b", "c")
    await course.asked_are("a")
    course.late()
    await course.asked_are("a", "b")
    course.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outcome(course)
    assert course.left == ["a", "b"]


async def test_the_only_one_is_asked_again_beside_its_first_ask_and_that_may_still_win() -> None:
    course = Course("a")
    await course.asked_are("a")
    course.late()  # after a second: too soon
    await eventually(lambda: len(course.alarms) == 2)
    assert course.asked == ["a"]
    course.late()
    await course.asked_are("a", "a")
    assert course.left == []
    course.answers["a"].set_result("A")
    winner, hedges = await outcome(course)
    assert winner == "A"
    assert course.hedged == ["a"]
    assert [name for name, _ in hedges] == ["a"]


async def test_how_often_one_is_asked_again_is_bounded() -> None:
    course = Course("a")
    for _ in range(100):
        await eventually(lambda: course.alarms and not course.alarms[-1].done())
        course.late()
    assert course.asked == ["a"] * 3
    course.answers["a"].set_result("A")
    await outcome(course)


async def test_who_is_not_spare_is_not_asked_again() -> None:
    course = Course("a", spare="")
    for _ in range(10):
        await eventually(lambda: course.alarms and not course.alarms[-1].done())
        course.late()
    assert course.asked == ["a"]
    course.answers["a"].set_result("A")
    assert await outcome(course) == ("A", [])
