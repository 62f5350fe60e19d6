"""Workers that hang, parents that die, and what several processes have in common."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mirror.app.workers import cradle
from mirror.app.workers.line import Numbered
from mirror.config import Config

from ..waiting import eventually
from . import watchful
from .bodies import MIB
from .client import fetch
from .house import House, Mirror

WATCHFUL = "tests.faults.watchful"
SOON = 30  # seconds, on a busy machine


def workers(mirror: Mirror) -> list[int]:
    return [pid for pid in mirror.processes()[1:] if _is_called(pid, "worker")]


def family(mirror: Mirror) -> list[int]:
    """All processes that have begun with this mirror, orphans too."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = status.read_text().rpartition(")")[2].split()[:3]
            if int(group) == mirror.pid and state != "Z":
                found.append(int(status.parent.name))
    return found


def without_shared_memory() -> tuple[str, ...]:
    """What goes before a command, where this user may mount."""
    unshare = shutil.which("unshare")
    if unshare and not subprocess.run([unshare, "-m", "true"], capture_output=True).returncode:
        mounted = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'
        return (unshare, "-m", "sh", "-c", mounted, "sh")
    return ()


def _is_called(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"
    return False


async def ready(mirror: Mirror) -> int:
    """How many workers the admin port says that serve."""
    return json.loads((await fetch(f"{mirror.admin}/readyz")).body)["workers"]


async def test_a_worker_that_hangs_is_not_ready_and_is_replaced(house: House) -> None:
    mirror = await house.mirror(workers=3, module=WATCHFUL)
    digest = house.hub.add_blob(os.urandom(1000))
    assert (await mirror.blob(digest)).is_whole(digest)
    before = workers(mirror)
    await eventually(mirror.is_ready, SOON)
    os.kill(before[0], signal.SIGSTOP)
    await eventually(lambda: before[0] not in workers(mirror), SOON)
    await eventually(mirror.is_ready, SOON)
    await eventually(lambda: set(before[1:]) < set(workers(mirror)), SOON)
    for _ in range(20):
        assert (await mirror.blob(digest)).is_whole(digest)
    assert await mirror.metric("workers_replaced_total", why="hung") == 1
    (said,) = mirror.events("worker_hangs")
    assert said["pid"] == before[0]
    assert await mirror.stop() == 0


async def test_one_that_hangs_for_a_moment_is_not_ready_and_goes_on(house: House) -> None:
    mirror = await house.mirror(workers=2)
    before = workers(mirror)
    os.kill(before[0], signal.SIGSTOP)
    try:

        async def one_is_ready() -> bool:
            return await ready(mirror) == 1

        await eventually(one_is_ready, SOON)
    finally:
        os.kill(before[0], signal.SIGCONT)
    await eventually(mirror.is_ready, SOON)
    assert workers(mirror) == before


async def test_a_worker_that_has_much_to_do_is_not_taken_for_hung(house: House) -> None:
    mirror = await house.mirror(workers=2, module=WATCHFUL)
    before = workers(mirror)
    os.kill(before[0], signal.SIGUSR1)

    async def one_is_ready() -> bool:
        return await ready(mirror) == 1

    await eventually(one_is_ready, SOON)
    await eventually(mirror.is_ready, SOON)
    assert workers(mirror) == before
    assert mirror.events("worker_hangs") == []


async def test_nobody_is_killed_for_the_time_that_all_were_suspended(house: House) -> None:
    mirror = await house.mirror(workers=2, module=WATCHFUL)
    before = workers(mirror)
    # As a laptop's lid, a paused virtual machine, `docker pause`.
    os.killpg(mirror.pid, signal.SIGSTOP)
    await asyncio.sleep(2 * watchful.IDLE)  # the length of it is what is tested
    os.killpg(mirror.pid, signal.SIGCONT)
    await eventually(mirror.is_ready, SOON)
    assert workers(mirror) == before
    assert mirror.events("worker_hangs") == []


async def test_workers_are_there_again_when_what_forks_them_was_killed(house: House) -> None:
    mirror = await house.mirror(workers=2)
    before = workers(mirror)
    [cradle] = [pid for pid in mirror.processes() if _is_called(pid, "cradle")]
    os.kill(cradle, signal.SIGKILL)

    async def are_others() -> bool:
        return len(set(workers(mirror)) - set(before)) == 2 and await ready(mirror) == 2

    await eventually(are_others, SOON)
    assert not set(before) & set(family(mirror))
    assert await mirror.stop() == 0


def test_a_parent_outlives_what_forks_when_no_other_can_be_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was killed before it had read what it was asked, which is told by ECONNRESET."""

    def none() -> tuple[socket.socket, int]:
        raise BlockingIOError("a limit of tasks")

    monkeypatch.setattr(cradle, "spawned", none)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    forks = cradle.Cradle((ours, os.getpid()))
    ours.send(b"1")
    theirs.close()
    forks.look()
    with pytest.raises(BlockingIOError):
        forks.fork(Numbered(1, Config()), ours, ())
    forks.look()
    forks.close()


@pytest.mark.parametrize("after", [0.2, 0.5, 0.8, 1.1, 1.5, None])
async def test_workers_end_with_their_parent_however_young(
    house: House, after: float | None
) -> None:
    """After so many seconds; None: as soon as one of them answers."""
    mirror = house.prepare(workers=3)
    mirror.launch()
    if after is None:
        await eventually(mirror._answers, SOON)
    else:
        await asyncio.sleep(after)
    assert mirror.running
    os.kill(mirror.pid, signal.SIGKILL)
    assert mirror.process is not None
    mirror.process.wait()
    await eventually(lambda: not family(mirror), SOON)
    assert "Traceback" not in mirror.words()
    await mirror.start()  # the port is free
    assert await mirror.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
async def test_a_signal_to_the_whole_group_ends_no_worker_that_starts(
    house: House, number: signal.Signals
) -> None:
    mirror = house.prepare(workers=2)
    mirror.launch()

    async def ready_under_signals() -> bool:
        for pid in mirror.processes()[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(mirror.events("worker_died")) or await mirror.is_ready()

    await eventually(ready_under_signals, SOON)
    assert mirror.events("worker_died") == []
    assert await mirror.stop() == 0


async def test_told_to_stop_twice_it_cuts_its_workers_too(house: House) -> None:
    digest = house.hub.add_blob(os.urandom(8 * MIB))
    mirror = await house.mirror(workers=2)
    async with mirror.connection() as slow:
        await slow.get(f"/v2/library/redis/blobs/{digest}")
        await slow.head()
        mirror.terminate()
        await eventually(lambda: mirror.events("draining"), SOON)
        mirror.terminate()
        async with asyncio.timeout(10):
            assert await mirror.ended() == 1
    await eventually(lambda: not family(mirror), SOON)


async def test_what_is_counted_needs_no_folder_and_outlives_a_worker(
    house: House, tmp_path: Path
) -> None:
    """Several processes count together also where nothing can be written but the store, and no
    shared memory can be had."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    mirror = await house.mirror(
        workers=2, wrap=without_shared_memory(), env={"TMPDIR": str(temporary)}
    )
    manifest = house.hub.add_image("library/redis", "7")
    for _ in range(30):
        assert (await mirror.manifest("7")).is_whole(manifest)
    assert list(temporary.iterdir()) == []

    async def are_counted() -> bool:
        return await mirror.metric("requests_total", kind="tag") == 30

    await eventually(are_counted, SOON)
    died = workers(mirror)[0]
    os.kill(died, signal.SIGKILL)

    async def is_replaced() -> bool:
        return died not in workers(mirror) and await mirror.is_ready()

    await eventually(is_replaced, SOON)
    assert await mirror.metric("requests_total", kind="tag") == 30
    assert await mirror.metric("workers_replaced_total", why="died") == 1
    assert await mirror.metric("build_info") == 1


@pytest.mark.parametrize("count", [1, 2], ids=["one process", "two workers"])
async def test_a_hangup_cuts_nothing(house: House, count: int) -> None:
    data = os.urandom(8 * MIB)
    digest = house.hub.add_blob(data)
    mirror = await house.mirror(workers=count)
    assert (await mirror.blob(digest)).is_whole(digest)
    async with mirror.connection() as slow:
        await slow.get(f"/v2/library/redis/blobs/{digest}")
        _, headers = await slow.head()
        for pid in [mirror.pid, *workers(mirror)]:
            os.kill(pid, signal.SIGHUP)
        await eventually(lambda: bool(mirror.events("configuration_applied")), SOON)
        assert await slow.reader.readexactly(int(headers["content-length"])) == data
    await eventually(mirror.is_ready, SOON)
    assert await mirror.stop() == 0
