"""Standard error that is full, closed, or read by nobody: the log is a courtesy, pulls go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ..waiting import eventually
from .house import House, Mirror

AT_ONCE = 10  # seconds, on a busy machine

WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])


def writing_to(redirections: str) -> tuple[str, ...]:
    return ("sh", "-c", f'exec "$@" {redirections}', "sh")


async def started(mirror: Mirror) -> Mirror:
    """Starts a mirror that may be unable to say so."""
    mirror.launch()
    await eventually(mirror.is_ready, 30)
    return mirror


async def pull_all(house: House, mirror: Mirror, count: int) -> None:
    """Cold pulls of that many blobs."""
    async with asyncio.timeout(30):
        for _ in range(count):
            digest = house.hub.add_blob(os.urandom(3000))
            assert (await mirror.blob(digest)).is_whole(digest)


async def ask_often(mirror: Mirror, count: int) -> None:
    """So many requests, each of which is a line of the log."""
    at_once = 100
    async with asyncio.timeout(60), mirror.connection() as wire:
        for _ in range(0, count, at_once):
            await wire.send(b"GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n" * at_once)
            for _ in range(at_once):
                assert (await wire.answer()).status == 200


async def ends(mirror: Mirror) -> int:
    async with asyncio.timeout(AT_ONCE):
        return await mirror.stop()


@WORKERS
async def test_a_log_that_nobody_reads_holds_up_nothing(
    house: House, tmp_path: Path, workers: int
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    mirror = await started(
        house.prepare(wrap=writing_to(f"2<>{pipe}"), workers=workers, storage={"max_size": "1GiB"})
    )
    await ask_often(mirror, 8000)  # more than a pipe and all queues take
    await pull_all(house, mirror, 20)
    assert await mirror.is_ready()
    await eventually(lambda: mirror.metric("log_lines_dropped_total"), AT_ONCE)
    assert await ends(mirror) == 0


async def test_lines_that_were_dropped_are_told_of_once_the_log_is_read_again(
    house: House, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    mirror = await started(house.prepare(wrap=writing_to(f"2<>{pipe}")))
    await ask_often(mirror, 8000)
    await eventually(lambda: mirror.metric("log_lines_dropped_total"), AT_ONCE)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    read = bytearray()

    def told() -> list[dict[str, object]]:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(reading, 1 << 20):
                read.extend(data)
        lines = (json.loads(line) for line in read.splitlines(keepends=True) if b"\n" in line)
        return [line for line in lines if line["event"] == "log_lines_dropped"]

    try:
        (line,) = await eventually(told, AT_ONCE)
    finally:
        os.close(reading)
    assert line["lines"] == await mirror.metric("log_lines_dropped_total")
    assert line["level"] == "warning"
    assert await ends(mirror) == 0


@WORKERS
async def test_a_log_whose_disk_is_full_decides_no_pull(house: House, workers: int) -> None:
    full = Path("/dev/full")
    if not full.exists() or not stat.S_ISCHR(full.stat().st_mode):
        pytest.skip("there is no /dev/full")
    # Rooms are made and endpoints fail, all of which is logged.
    mirror = await started(
        house.prepare(
            "http://127.0.0.1:9",
            house.hub,
            wrap=writing_to(">/dev/full 2>/dev/full"),
            workers=workers,
            storage={"max_size": "1MiB"},
        )
    )
    await pull_all(house, mirror, 30)
    for size in (600_000, 700_000, 800_000):
        digest = house.hub.add_blob(os.urandom(size))
        assert (await mirror.blob(digest)).is_whole(digest)
    await eventually(lambda: mirror.metric("log_lines_dropped_total"), AT_ONCE)
    assert await mirror.metric("fills_total", result="failed") == 0
    assert await ends(mirror) == 0


async def test_a_worker_that_dies_is_replaced_though_that_cannot_be_logged(house: House) -> None:
    mirror = await started(house.prepare(wrap=writing_to(">/dev/full 2>/dev/full"), workers=2))
    before = set(_workers(mirror))
    os.kill(min(before), signal.SIGKILL)
    await eventually(lambda: len(_workers(mirror)) == 2 and set(_workers(mirror)) != before, 30)
    await pull_all(house, mirror, 3)
    assert await ends(mirror) == 0


@WORKERS
async def test_streams_that_are_closed_are_no_files_of_the_store(
    house: House, workers: int
) -> None:
    mirror = await started(house.prepare(wrap=writing_to("<&- >&- 2>&-"), workers=workers))
    await pull_all(house, mirror, 5)
    for pid in mirror.processes():
        streams = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
        assert streams == {"/dev/null"}, Path(f"/proc/{pid}/cmdline").read_bytes()
    assert await ends(mirror) == 0


def test_what_cannot_start_ends_though_nobody_reads_why(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    config = tmp_path / "mirror.yaml"
    config.write_text(f"storage: {{path: {tmp_path / 'store'}}}\n")
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        ended = subprocess.run(
            [sys.executable, "-m", "mirror", "serve", "--config", config],
            stderr=writing,
            timeout=30,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert ended.returncode == 1


def _workers(mirror: Mirror) -> list[int]:
    """The processes that listen for clients, but the parent."""
    return [pid for pid in mirror.processes()[1:] if _is_worker(pid)]


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text() == "worker\n"
    return False
