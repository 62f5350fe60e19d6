"""Turns: bounded, and fair between clients."""

from __future__ import annotations

import asyncio

import pytest

from mirror.cache.gate import FillLimits, Gate
from mirror.oci.errors import Unavailable


class Work:
    """Fills that run until they are told to end, in the order in which they were let in."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.running: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, registry: str = "docker.io") -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, registry))
        await settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await settle()

    async def _run(self, name: str, registry: str) -> None:
        async with self.gate.turn(registry, client=name[0], within=60):
            self.running.append(name)
            await self.ends[name].wait()
            self.running.remove(name)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_run() -> None:
    work = Work(Gate(FillLimits(total=2)))
    for name in ("a1", "a2", "a3"):
        await work.begin(name)
    assert work.running == ["a1", "a2"]
    await work.end("a1")
    assert work.running == ["a2", "a3"]


async def test_one_client_does_not_starve_another() -> None:
    work = Work(Gate(FillLimits(total=1)))
    for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
        await work.begin(name)
    order = []
    while work.running:
        order.append(work.running[0])
        await work.end(work.running[0])
    assert order == ["a1", "a2", "b1", "a3", "b2", "a4"]


async def test_one_registry_does_not_block_another() -> None:
    work = Work(Gate(FillLimits(total=3, per_registry=1)))
    await work.begin("a1", "slow.example")
    await work.begin("a2", "slow.example")
    await work.begin("b1", "quick.example")
    assert work.running == ["a1", "b1"]
    await work.end("a1")
    assert work.running == ["b1", "a2"]


@pytest.mark.parametrize("leaver", ["a1", "a2"])
async def test_who_leaves_gives_its_place_back(leaver: str) -> None:
    work = Work(Gate(FillLimits(total=1)))
    for name in ("a1", "a2", "a3"):
        await work.begin(name)
    work.tasks[leaver].cancel()
    await settle()
    for name in ("a1", "a2", "a3"):
        if name != leaver:
            assert name in work.running
            await work.end(name)
    assert work.gate._running.total() == 0
    assert not work.gate._waiting


async def test_who_waits_too_long_is_told_and_forgotten() -> None:
    work = Work(Gate(FillLimits(total=1)))
    await work.begin("a1")
    with pytest.raises(Unavailable, match="1 downloads run already"):
        async with work.gate.turn("docker.io", client="b", within=0.01):
            pytest.fail("there was no place")
    assert not work.gate._waiting
    await work.end("a1")
