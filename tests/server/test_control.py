"""The control socket: what a command is given, tells, and how it fails."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mirror.app import serving
from mirror.oci.errors import Unavailable
from mirror.server.control import (
    Command,
    CommandFailed,
    GivesBytes,
    NotAnswered,
    Parameters,
    TakesBytes,
    Tells,
    ask,
    ask_bytes,
    ask_lines,
    one,
    taking_commands,
)
from mirror.server.http.listening import Listeners
from tests.running import RunningMirror
from tests.waiting import eventually

Lines = AsyncGenerator[Mapping[str, Any], None]


async def echo(parameters: Parameters) -> Mapping[str, Any]:
    return {"was": parameters}


async def count(parameters: Parameters) -> Lines:
    for number in range(parameters["to"]):
        yield {"number": number}
    if parameters.get("fails"):
        raise CommandFailed("nothing comes after that: ask for less", 2)
    if parameters.get("waits_for"):
        raise Unavailable(parameters["waits_for"])
    if parameters.get("breaks"):
        raise RuntimeError("a secret of the mirror's")


async def length(parameters: Parameters, given: AsyncIterator[bytes]) -> Lines:
    total = 0
    async for chunk in given:
        total += len(chunk)
    yield {"bytes": total, **parameters}


async def some(parameters: Parameters) -> AsyncGenerator[bytes, None]:
    if parameters.get("fails"):
        raise CommandFailed("there is nothing to give")
    for _ in range(parameters["chunks"]):
        yield b"x" * 65536
    if parameters.get("breaks"):
        raise CommandFailed("too late to be told")


COMMANDS = {
    "echo": one(echo),
    "count": Tells(count),
    "length": TakesBytes(length),
    "some": GivesBytes(some),
}


async def test_a_command_is_given_parameters_of_any_length_and_answers(tmp_path: Path) -> None:
    images = [f"library/image-{number}" for number in range(20_000)]
    async with taking_commands(tmp_path, COMMANDS.get):
        assert await ask(tmp_path, "echo", images=images) == {"was": {"images": images}}
        assert await ask(tmp_path, "echo") == {"was": {}}


async def test_lines_come_one_by_one_and_a_failure_is_told_in_words(tmp_path: Path) -> None:
    async with taking_commands(tmp_path, COMMANDS.get):
        lines = [line async for line in ask_lines(tmp_path, "count", {"to": 3})]
        assert lines == [{"number": 0}, {"number": 1}, {"number": 2}]
        lines_then_failure = ask_lines(tmp_path, "count", {"to": 1, "fails": True})
        assert await anext(lines_then_failure) == {"number": 0}
        with pytest.raises(NotAnswered, match="ask for less") as failed:
            await anext(lines_then_failure)
        assert failed.value.status == 2
        with pytest.raises(NotAnswered, match=r"^the records cannot be reached now$"):
            await ask(tmp_path, "count", to=0, waits_for="the records cannot be reached now")
        with pytest.raises(NotAnswered, match=r"count failed in the mirror \(RuntimeError\): see"):
            await ask(tmp_path, "count", to=0, breaks=True)


async def test_commands_that_cannot_be_imported_any_more_are_told_of(tmp_path: Path) -> None:
    def command_of(name: str) -> Command | None:
        raise ImportError("cannot import name 'new' from 'mirror'")

    async with taking_commands(tmp_path, command_of):
        with pytest.raises(NotAnswered, match=r"echo failed in the mirror \(ImportError\): see"):
            await ask(tmp_path, "echo")


async def test_bytes_go_both_ways_and_what_broke_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    async def given() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"y" * 100_000

    async def received(**parameters: object) -> int:
        return sum([len(chunk) async for chunk in ask_bytes(tmp_path, "some", parameters)])

    async with taking_commands(tmp_path, COMMANDS.get):
        lines = [line async for line in ask_lines(tmp_path, "length", {"as": "it"}, given())]
        assert lines == [{"bytes": 10_000_000, "as": "it"}]
        assert await received(chunks=40) == 40 * 65536
        with pytest.raises(NotAnswered, match="there is nothing to give"):
            await received(chunks=1, fails=True)
        with pytest.raises(NotAnswered, match="broke off"):
            await received(chunks=2, breaks=True)


async def test_a_command_is_cancelled_when_whoever_has_asked_is_gone(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def endless(_: Parameters) -> Lines:
        try:
            yield {"begun": True}
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with taking_commands(tmp_path, {"endless": Tells(endless)}.get):
        async with contextlib.aclosing(ask_lines(tmp_path, "endless", {})) as lines:
            assert await anext(lines) == {"begun": True}
        await eventually(ended.is_set)


async def test_why_no_mirror_answers_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotAnswered, match="no mirror runs that serves") as nobody:
        await ask(tmp_path, "echo")
    assert not nobody.value.is_running
    async with taking_commands(tmp_path, COMMANDS.get):
        with pytest.raises(NotAnswered, match="does not know unheard-of") as unknown:
            await ask(tmp_path, "unheard-of")
        assert unknown.value.is_running


async def test_commands_are_taken_as_long_as_the_ports_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has waited until a mirror answers may give commands, also to one that drains."""
    store, told = tmp_path / "store", []

    class Watched(Listeners):
        def start(self) -> None:
            # Not asked here, since this is no coroutine: a socket that is there is answered.
            told.append((store / "control.sock").exists())
            super().start()

        async def stop(self, grace: float) -> None:
            await super().stop(grace)
            told.append("now" in await ask(store, "top"))

    monkeypatch.setattr(serving, "Listeners", Watched)
    async with RunningMirror.built(tmp_path) as mirror:
        await mirror.start()
    assert told == [True, True]
