"""Workers replaced one by one, while clients pull: nobody is refused, reset or cut."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from ..e2e.programs import REPOSITORY
from ..waiting import eventually
from .client import Wire
from .house import House, Mirror


@dataclass
class Clients:
    """They ask until they are told to stop. `failures` is what any of them ran into."""

    mirror: Mirror
    digest: str
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stopped: bool = False

    def begin(self) -> None:
        kinds = [self.on_new_connections, self.on_kept_connections] * 4
        self.tasks = [asyncio.create_task(kind()) for kind in kinds]

    async def end(self) -> None:
        self.stopped = True
        await asyncio.gather(*self.tasks)

    async def on_new_connections(self) -> None:
        """As dockerd asks."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True)
        ) as session:
            await self.ask(session)

    async def on_kept_connections(self) -> None:
        async with aiohttp.ClientSession() as session:
            await self.ask(session)

    async def ask(self, session: aiohttp.ClientSession) -> None:
        paths = ("/v2/", f"/v2/library/redis/blobs/{self.digest}")
        while not self.stopped:
            for path in paths:
                try:
                    async with session.get(self.mirror.url + path) as answer:
                        await answer.read()
                        self.answers[f"{answer.status} {answer.headers.get('Connection', '')}"] += 1
                except aiohttp.ClientError as error:
                    self.failures.append(repr(error))


async def restart(mirror: Mirror, *options: str) -> tuple[int, str]:
    """The command: its exit status, and all that it prints."""
    process = await begun(mirror, *options)
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def begun(mirror: Mirror, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mirror", "restart", "-c", str(mirror.config), *options),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_workers_are_replaced_and_no_client_sees_it(house: House) -> None:
    small, large = os.urandom(5_000), os.urandom(40 << 20)
    house.hub.add_blob(small)
    mirror = await house.mirror(workers=2)
    clients = Clients(mirror, house.hub.add_blob(small))
    big = house.hub.add_blob(large)
    assert (await mirror.blob(big)).is_whole(big)
    before = set(mirror.processes())
    async with mirror.connection() as slow:
        await slow.get(f"/v2/library/redis/blobs/{big}")
        await slow.head()
        clients.begin()
        running = asyncio.create_task(restart(mirror, "--json"))
        taken = await take_slowly(slow, len(large), running)
        status, printed = await running
    assert status == 0, printed
    await clients.end()
    assert clients.failures == []
    assert sum(clients.answers.values()) > 1000
    assert {answer[:3] for answer in clients.answers} == {"200"}
    assert taken == len(large)

    steps = [json.loads(line) for line in printed.splitlines()]
    assert [(step["worker"], step["ended"]) for step in steps] == [
        (0, False), (0, True), (1, False), (1, True)
    ]  # fmt: skip
    after = set(mirror.processes())
    assert len(after) == len(before)
    assert {step["instead_of"] for step in steps}.isdisjoint(after)
    assert {step["pid"] for step in steps} <= after - before
    assert await mirror.is_ready()


async def take_slowly(wire: Wire, count: int, until: asyncio.Task[object]) -> int:
    """A download that lasts for as long as it is answered by a worker that is replaced."""
    taken = 0
    while taken < count:
        piece = await wire.reader.read(256 << 10)
        if not piece:
            break
        taken += len(piece)
        if not until.done():
            await asyncio.sleep(0.02)
    return taken


async def test_one_process_has_nobody_to_take_its_place_and_says_so(house: House) -> None:
    mirror = await house.mirror()
    status, printed = await restart(mirror)
    assert status == 1
    assert "workers: 1" in printed


async def test_a_restart_that_is_given_up_leaves_the_workers_that_were_there(house: House) -> None:
    """Whoever has typed it presses Ctrl-C while the new worker has not begun to serve."""
    mirror = await house.mirror(workers=2)
    before = set(mirror.processes())
    process = await begun(mirror)
    new = await eventually(lambda: set(mirror.processes()) - before, 60)
    for pid in new:
        os.kill(pid, signal.SIGSTOP)  # it would soon serve
    process.kill()
    await process.wait()
    await eventually(lambda: all(map(_is_told_to_stop, new)), 20)
    for pid in new:
        os.kill(pid, signal.SIGCONT)
    await eventually(lambda: new.isdisjoint(mirror.processes()), 20)
    assert set(mirror.processes()) == before
    assert await mirror.is_ready()


def _is_told_to_stop(pid: int) -> bool:
    """Whether a process that is stopped will be sent SIGTERM: proc(5)."""
    [pending] = re.findall(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(pending, 16) & 1 << (signal.SIGTERM - 1))
