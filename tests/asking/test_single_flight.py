"""One ask for all who ask for the same, and what a silent one may cost those who have joined it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from mirror.asking.single_flight import Sharing, SingleFlight
from mirror.oci.errors import ManifestUnknown, RegistryError, Unavailable

from ..fakes import request_of
from ..waiting import eventually

SILENT = 0.05  # seconds


@dataclass
class Upstream:
    """Answers each client when it is told to; `asked` says in whose names it was, in order."""

    asked: list[str] = field(default_factory=list)
    under_way: set[str] = field(default_factory=set)
    flights: SingleFlight[str, str] = field(default_factory=lambda: SingleFlight(Sharing(SILENT)))
    answers: dict[str, asyncio.Future[str]] = field(default_factory=dict)

    async def ask(self, client: str) -> str:
        self.asked.append(client)
        self.under_way.add(client)
        try:
            return await self.answers[client]
        finally:
            self.under_way.remove(client)

    def wants(self, client: str) -> asyncio.Task[tuple[str, bool]]:
        self.answers.setdefault(client, asyncio.get_running_loop().create_future())
        return asyncio.ensure_future(
            self.flights.answer(request_of(client), "it", lambda: self.ask(client))
        )


async def test_all_have_the_answer_of_one_ask() -> None:
    upstream = Upstream()
    upstream.flights = SingleFlight(Sharing(60))
    waiting = [upstream.wants(client) for client in ("ann", "bob", "ann")]
    await eventually(lambda: upstream.under_way == {"ann"})
    upstream.answers["ann"].set_result("yes")
    assert await asyncio.gather(*waiting) == [("yes", False), ("yes", True), ("yes", True)]
    assert upstream.asked == ["ann"]


async def test_who_has_joined_a_silent_ask_asks_beside_it() -> None:
    upstream = Upstream()
    waiting = [upstream.wants(client) for client in ("ann", "bob", "bob")]
    await eventually(lambda: upstream.under_way == {"ann", "bob"})
    upstream.answers["bob"].set_result("yes")
    assert {answer for answer, _ in await asyncio.gather(*waiting)} == {"yes"}
    await eventually(lambda: not upstream.under_way)
    assert upstream.asked == ["ann", "bob"]


async def test_no_more_than_a_few_ask_for_the_same() -> None:
    upstream = Upstream()
    waiting = [upstream.wants(f"{number}") for number in range(9)]
    await eventually(lambda: len(upstream.under_way) == 4)
    done, _ = await asyncio.wait(waiting, timeout=4 * SILENT)
    assert (done, len(upstream.asked)) == (set(), 4)
    upstream.answers[upstream.asked[0]].set_result("yes")
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("error", "is_final"), [(Unavailable("down"), False), (ManifestUnknown("none"), True)]
)
async def test_what_is_no_word_of_the_upstream_leaves_the_other_ask_going(
    error: RegistryError, is_final: bool
) -> None:
    upstream = Upstream()
    waiting = [upstream.wants("ann"), upstream.wants("bob")]
    await eventually(lambda: upstream.under_way == {"ann", "bob"})
    upstream.answers["bob"].set_exception(error)
    await eventually(lambda: "bob" not in upstream.under_way)
    if not is_final:
        upstream.answers["ann"].set_result("yes")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results == ([error] * 2 if is_final else [("yes", False), ("yes", True)])


async def test_an_ask_goes_on_when_those_who_wait_leave() -> None:
    upstream = Upstream()
    first = upstream.wants("ann")
    await eventually(lambda: upstream.under_way == {"ann"})
    first.cancel()
    await asyncio.wait([first])
    second = upstream.wants("ann")
    upstream.answers["ann"].set_result("yes")
    assert await second == ("yes", True)
    assert upstream.asked == ["ann"]


async def test_what_takes_long_by_its_nature_is_asked_once() -> None:
    upstream = Upstream()
    upstream.flights = SingleFlight(Sharing(silent=None))
    waiting = [upstream.wants(client) for client in ("ann", "bob")]
    done, _ = await asyncio.wait(waiting, timeout=4 * SILENT)
    assert (done, upstream.asked) == (set(), ["ann"])
    upstream.answers["ann"].set_result("yes")
    await asyncio.gather(*waiting)


async def test_a_client_whose_ask_has_failed_asks_again_beside_anothers_that_is_silent() -> None:
    upstream = Upstream()
    waiting = [upstream.wants("ann"), upstream.wants("bob")]
    await eventually(lambda: upstream.under_way == {"ann", "bob"})
    upstream.answers["ann"].set_exception(Unavailable("cut"))
    upstream.answers["ann"] = asyncio.get_running_loop().create_future()
    await eventually(lambda: upstream.asked.count("ann") == 2)
    upstream.answers["ann"].set_result("yes")
    assert await asyncio.gather(*waiting) == [("yes", False), ("yes", True)]
