"""One ask for all who wait, others beside one that is silent, and turns shared by clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

import pytest

from mirror.asking.budgets import Budgets
from mirror.asking.single_flight import NoTurn, Sharing, SingleFlight
from mirror.contracts.context import Asker
from mirror.oci.errors import RateLimited
from mirror.upstream.client.turns import Turns
from mirror.upstream.failures import FailureKind, Unreached

from ..fakes import HandClock
from ..waiting import eventually

SILENT = 0.05  # seconds


@dataclass(frozen=True)
class Somebody:
    client: str
    is_wanted: bool = True
    deadline: float = inf


@dataclass
class Realm:
    """What is asked. It never answers, unless it is told how; `asked` says what for, and in whose
    name, in order."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    under_way: int = 0
    most: int = 0  # at once
    answers: Callable[[str, int], str | Exception | None] = lambda key, number: None

    async def ask(self, key: str, asker: Asker) -> str:
        self.asked.append((key, asker.client))
        answer = self.answers(key, sum(one == key for one, _ in self.asked))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if answer is None:
                await asyncio.Event().wait()
            if isinstance(answer, Exception):
                raise answer
            return str(answer)
        finally:
            self.under_way -= 1


@dataclass
class Door:
    realm: Realm
    asks: SingleFlight[str, str]

    def answer(self, client: str, key: str, *, wanted: bool = True) -> asyncio.Task[str]:
        """What is asked for this client."""

        return asyncio.ensure_future(self.answer_to(Somebody(client, wanted), key))

    async def answer_to(self, asker: Asker, key: str) -> str:
        answer, _ = await self.asks.answer(asker, key, lambda: self.realm.ask(key, asker))
        return answer


@asynccontextmanager
async def door(
    time: HandClock, most: int = 8, *, one_by_one: bool = False, patience: float = 9
) -> AsyncIterator[Door]:
    turns = Turns("it", most, lambda: one_by_one, SILENT, patience, longest=9)
    beside = Budgets(8.0, 0.1, time.clock())
    sharing = Sharing(SILENT, of_client=2, of_all=inf, beside=beside, unheard=(NoTurn, Unreached))
    asks: SingleFlight[str, str] = SingleFlight(sharing, turns)
    yield Door(Realm(), asks)
    await asks.close()


async def gone(*tasks: asyncio.Task[str]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_who_wait_have_the_answer_of_one_ask(time: HandClock) -> None:
    async with door(time) as it:
        it.realm.answers = lambda key, number: key.upper()
        answers = await asyncio.gather(*(it.answer(f"{client}", "a") for client in range(5)))
    assert (answers, len(it.realm.asked)) == (["A"] * 5, 1)


async def test_a_silent_ask_is_repeated_beside_and_then_dropped(time: HandClock) -> None:
    async with door(time) as it:
        it.realm.answers = lambda key, number: "yes" if number == 2 else None
        waiting = [it.answer("ann", "a") for _ in range(3)]
        assert await asyncio.gather(*waiting) == ["yes"] * 3
        assert it.realm.asked == [("a", "ann")] * 2
        await eventually(lambda: it.realm.under_way == 0)


async def test_a_limit_that_is_told_to_the_second_ask_is_the_answer(time: HandClock) -> None:
    async with door(time) as it:
        it.realm.answers = lambda key, number: RateLimited("429") if number == 2 else None
        with pytest.raises(RateLimited):
            await it.answer("ann", "a")
        assert len(it.realm.asked) == 2


async def test_an_ask_of_which_nothing_is_heard_leaves_the_other_going(time: HandClock) -> None:
    over = asyncio.Event()
    async with door(time) as it:

        async def first_is_long(key: str, asker: Asker) -> str:
            it.realm.asked.append((key, ""))
            if len(it.realm.asked) > 1:
                raise Unreached("cut", FailureKind.CUT)
            await over.wait()
            return "yes"

        it.realm.ask = first_is_long  # type: ignore[method-assign]
        waiting = it.answer("ann", "a")
        await eventually(lambda: len(it.realm.asked) == 2)
        over.set()
        assert await waiting == "yes"


async def test_each_client_asks_twice_and_seldom_beside(time: HandClock) -> None:
    """A realm that answers nobody is not asked much more often for that."""
    async with door(time, most=100) as it:
        waiting = [it.answer("ann", f"{number}") for number in range(30)]
        await eventually(lambda: it.realm.under_way == 30 + 8)
        more = [it.answer("bob", "0")]
        await eventually(lambda: ("0", "bob") in it.realm.asked)
        assert it.realm.asked.count(("0", "ann")) <= 2
        assert it.realm.most <= 30 + 8 + 2
        await gone(*waiting, *more)


async def test_who_waits_for_what_another_has_begun_does_not_wait_behind_all_its_asks(
    time: HandClock,
) -> None:
    async with door(time, most=4) as it:
        it.realm.answers = lambda key, number: "yes" if key == "last" else None
        waiting = [it.answer("ann", f"{number}") for number in range(50)]
        waiting.append(it.answer("ann", "last"))
        await eventually(lambda: it.realm.under_way == 4)
        async with asyncio.timeout(5):
            assert await it.answer("bob", "last") == "yes"
        assert ("last", "bob") in it.realm.asked
        await gone(*waiting)


async def test_a_turn_that_was_asked_back_is_had_again(time: HandClock) -> None:
    async with door(time, most=2) as it:
        said: dict[str, str] = {}
        it.realm.answers = lambda key, number: said.get(key)
        waiting = [it.answer("ann", "1"), it.answer("ann", "2")]
        await eventually(lambda: it.realm.under_way == 2)
        said.update(dict.fromkeys("123", "yes"))
        assert await it.answer("bob", "3") == "yes"
        assert await asyncio.wait_for(waiting[1], 5) == "yes"
        await gone(*waiting)


@pytest.mark.parametrize("clients", [1, 5])
async def test_one_by_one_a_second_ask_is_beside_a_silent_one_and_no_third(
    time: HandClock, clients: int
) -> None:
    async with door(time, one_by_one=True, patience=10 * SILENT) as it:
        waiting = [it.answer(f"{number % clients}", f"{number}") for number in range(10)]
        await eventually(lambda: len(it.realm.asked) == 2)
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(one.exception(), NoTurn) for one in done)
        assert (it.realm.most, len(it.realm.asked)) == (2, 2)
        await gone(*waiting)


async def test_one_by_one_who_has_both_turns_gives_one(time: HandClock) -> None:
    async with door(time, one_by_one=True) as it:
        it.realm.answers = lambda key, number: "yes" if key == "b" else None
        waiting = [it.answer("ann", f"{number}") for number in range(10)]
        await eventually(lambda: it.realm.under_way == 2)
        async with asyncio.timeout(5):
            assert await it.answer("bob", "b") == "yes"
        assert it.realm.most == 2
        await gone(*waiting)


async def test_no_turn_for_one_is_no_answer_to_another(time: HandClock) -> None:
    """What nobody wants any more waits for no turn; whoever has joined it does."""
    async with door(time, most=1) as it:
        it.realm.answers = lambda key, number: "yes" if key == "a" else None
        holds = it.answer("", "holds", wanted=False)
        await eventually(lambda: it.realm.under_way == 1)
        ahead, joined = it.answer("", "a", wanted=False), it.answer("bob", "a")
        with pytest.raises(NoTurn):
            await ahead
        assert await joined == "yes"
        await gone(holds)


@dataclass
class Download:
    """An Asker whose readers come and go."""

    client: str
    is_wanted: bool = True
    deadline: float = inf


async def test_no_turn_is_told_also_when_another_client_has_come_to_wait_meanwhile(
    time: HandClock,
) -> None:
    async with door(time, most=1) as it:
        holds = it.answer("eve", "holds")
        await eventually(lambda: it.realm.under_way == 1)
        download = Download("ann")
        waits = asyncio.ensure_future(it.answer_to(download, "a"))
        await asyncio.sleep(0)
        download.client, download.is_wanted = "bob", False  # who joined it, and left
        with pytest.raises(NoTurn):
            await asyncio.wait_for(waits, 5)
        await gone(holds)
