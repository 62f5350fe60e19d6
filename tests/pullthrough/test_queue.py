"""Turns: bounded, and fair between clients and registries."""

from __future__ import annotations

import asyncio

import pytest

from mirror.contracts.registry import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.reference import Repository
from mirror.pullthrough.fills.fill import Fill
from mirror.pullthrough.fills.queue import FillLimits, FillQueue

from ..jumping import jump
from ..waiting import eventually


class Work:
    """Fills that run until they are told to end, in the order in which they were let in. A fill's
    client is the first letter of its name."""

    def __init__(self, quantum: float = 60, **limits: int) -> None:
        self.gate = FillQueue(FillLimits(**limits), quantum)
        self.running: list[str] = []
        self.put_off: list[str] = []
        self.fills: dict[str, Fill] = {}
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, registry: str = "docker.io", *, is_read: bool = True) -> None:
        repository = Repository(registry, name)
        fill = self.fills[name] = Fill(Digest.of(name.encode()), repository, 60)
        fill.client = name[0]
        if is_read:
            fill.reader(Outcome.FILLED, repository)
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._fill(name, fill))
        await settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await settle()

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _fill(self, name: str, fill: Fill) -> None:
        async def work() -> None:
            self.running.append(name)
            try:
                await self.ends[name].wait()
            finally:
                self.running.remove(name)

        while not await self.gate.run(fill, work, within=60):
            if not fill.is_read:
                self.put_off.append(name)
                return


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_run() -> None:
    work = Work(total=2)
    for name in ("a1", "a2", "a3"):
        await work.begin(name)
    assert work.running == ["a1", "a2"]
    await work.end("a1")
    assert work.running == ["a2", "a3"]
    await work.close()


async def test_clients_that_wait_take_turns() -> None:
    work = Work(total=1)
    for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
        await work.begin(name)
    order = []
    while work.running:
        order.append(work.running[0])
        await work.end(work.running[0])
    assert order == ["a1", "a2", "b1", "a3", "b2", "a4"]


async def test_who_has_most_gives_to_who_has_less() -> None:
    work = Work(total=4)
    for name in ("a1", "a2", "a3", "a4", "a5"):
        await work.begin(name)
    await work.begin("b1")
    assert work.running == ["a1", "a2", "a3", "b1"]
    await work.begin("b2")
    assert work.running == ["a1", "a2", "b1", "b2"]
    await work.begin("b3")  # as many as the other has
    assert work.running == ["a1", "a2", "b1", "b2"]
    for name in ("b1", "b2", "b3"):
        await work.end(name)
    assert sorted(work.running) == ["a1", "a2", "a4", "a5"]
    await work.close()


async def test_one_registry_does_not_block_another() -> None:
    work = Work(total=3, per_registry=1)
    await work.begin("a1", "slow.example")
    await work.begin("a2", "slow.example")
    await work.begin("b1", "quick.example")
    assert work.running == ["a1", "b1"]
    await work.end("a1")
    assert work.running == ["b1", "a2"]
    await work.close()


async def test_one_registry_does_not_block_another_of_the_same_client() -> None:
    work = Work(total=4, per_registry=4)
    for name in ("a1", "a2", "a3", "a4", "a5"):
        await work.begin(name, "slow.example")
    await work.begin("a6", "quick.example")
    assert work.running == ["a1", "a2", "a3", "a6"]
    await work.close()


async def test_where_a_registry_has_all_its_places_one_of_them_is_given() -> None:
    work = Work(total=8, per_registry=2)
    await work.begin("a1", "full.example")
    await work.begin("a2", "full.example")
    await work.begin("a3", "other.example")
    await work.begin("b1", "full.example")
    assert work.running == ["a1", "a3", "b1"]
    await work.close()


async def test_what_nobody_reads_gives_first_whoever_asks() -> None:
    work = Work(total=3)
    await work.begin("a1")
    await work.begin("b1", is_read=False)
    await work.begin("a2")
    await work.begin("a3")
    assert work.running == ["a1", "a2", "a3"]
    assert work.put_off == ["b1"]
    await work.close()


async def test_what_nobody_reads_does_not_wait() -> None:
    work = Work(total=1)
    await work.begin("a1")
    await work.begin("b1", is_read=False)
    assert work.put_off == ["b1"]
    await work.begin("b2")
    for reader in list(work.fills["b2"].readers):
        reader.close()
    await eventually(lambda: work.put_off == ["b1", "b2"])
    await work.close()


async def test_nobody_keeps_a_place_for_ever_while_others_wait() -> None:
    work = Work(total=1, quantum=0.01)
    await work.begin("a1")
    await work.begin("b1")
    await eventually(lambda: work.running == ["b1"])
    await eventually(lambda: work.running == ["a1"])
    await work.close()


async def test_one_client_s_downloads_take_turns_too() -> None:
    work = Work(total=1, quantum=0.01)
    await work.begin("a1")
    await work.begin("a2")
    await eventually(lambda: work.running == ["a2"])
    await work.close()


def test_what_begins_slowly_has_longer_turns_until_it_begins() -> None:
    """Of two fills each takes longer than a turn to bring anything."""

    async def both() -> None:
        gate = FillQueue(FillLimits(total=1), 0.01)

        async def brought(fill: Fill) -> None:
            async def work() -> None:
                await asyncio.sleep(0.6)

            while not await gate.run(fill, work, within=60):
                pass

        async with asyncio.timeout(10):
            await asyncio.gather(*(brought(read(name)) for name in "ab"))

    jump(both())


@pytest.mark.parametrize("leaver", ["a1", "a2"])
async def test_who_leaves_gives_its_place_back(leaver: str) -> None:
    work = Work(total=1)
    for name in ("a1", "a2", "a3"):
        await work.begin(name)
    work.tasks[leaver].cancel()
    await settle()
    for name in ("a1", "a2", "a3"):
        if name != leaver:
            assert name in work.running
            await work.end(name)
    assert work.gate.is_idle("docker.io")


async def test_who_waits_too_long_is_told_and_forgotten() -> None:
    work = Work(total=1)
    await work.begin("a1")
    with pytest.raises(Unavailable, match="1 downloads run already"):
        await work.gate.run(read("b"), never, within=0.01)
    await work.end("a1")
    assert work.gate.is_idle("docker.io")


async def test_a_turn_that_is_asked_back_twice_is_broken_off_once() -> None:
    """What its work still does then is for the sake of what has come."""
    gate, fill = FillQueue(FillLimits()), read("a")
    cancelled, kept = 0, asyncio.Event()

    async def work() -> None:
        nonlocal cancelled
        try:
            await never()
        except asyncio.CancelledError:
            try:
                await kept.wait()
            except asyncio.CancelledError:
                cancelled += 1
            raise

    turn = asyncio.create_task(gate.run(fill, work, within=60))
    await settle()
    for _ in range(2):
        gate.break_off(fill)
        await settle()
    kept.set()
    assert await turn is False
    assert cancelled == 0


async def test_one_client_s_queue_is_bounded_and_no_other_s() -> None:
    work = Work(total=1)
    await work.begin("a0")
    waiting = [asyncio.create_task(work.gate.run(read("a"), never, within=60)) for _ in range(1024)]
    await settle()
    with pytest.raises(Unavailable, match="too many"):
        await work.gate.run(read("a"), never, within=60)
    await work.begin("b1")
    await work.end("a0")
    assert "b1" in work.running or not work.tasks["b1"].done()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await work.close()


def read(client: str) -> Fill:
    """A fill that somebody reads."""
    repository = Repository("docker.io", "app")
    fill = Fill(Digest.of(b""), repository, 60)
    fill.client = client
    fill.reader(Outcome.FILLED, repository)
    return fill


async def never() -> None:
    await asyncio.Event().wait()
