"""A machine that lets the mirror start no thread, for a moment or for long (a limit of tasks)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from .bodies import MIB
from .house import House, Mirror

MODULE = "tests.faults.threadless"


async def pull_all(house: House, mirror: Mirror) -> None:
    """Cold: tags, manifests and blobs of both ways of writing."""
    for number in range(3):
        tag = f"{os.urandom(4).hex()}{number}"
        manifest = house.hub.add_image("library/redis", tag)
        async with asyncio.timeout(20):
            assert (await mirror.manifest(tag)).is_whole(manifest)
    for size in (1000, MIB, 20 * MIB):
        digest = house.hub.add_blob(os.urandom(size))
        async with asyncio.timeout(20):
            assert (await mirror.blob(digest)).is_whole(digest)
            assert (await mirror.blob(digest)).is_whole(digest)


@pytest.mark.parametrize("warm", [True, False], ids=["with some threads", "with none"])
async def test_pulls_go_on_where_no_thread_can_be_started(
    house: House, tmp_path: Path, warm: bool
) -> None:
    flag = tmp_path / "no-threads"
    mirror = await house.mirror(module=MODULE, env={"NO_THREADS": str(flag)})
    if warm:
        await pull_all(house, mirror)
    flag.touch()
    await pull_all(house, mirror)
    assert await mirror.is_ready()
    flag.unlink()
    await pull_all(house, mirror)
    assert await mirror.metric("fills_total", result="uncached") == 0
    assert await mirror.metric("fills_total", result="failed") == 0
    flag.touch()
    assert await mirror.stop() == 0
    mirror.wrote_well()


async def test_a_mirror_that_may_have_no_threads_says_so(house: House, tmp_path: Path) -> None:
    flag = tmp_path / "no-threads"
    flag.touch()
    mirror = house.prepare(module=MODULE, env={"NO_THREADS": str(flag)})
    mirror.launch()
    assert await mirror.ended() == 1
    assert "no thread can be started" in mirror.words()
    assert "Traceback" not in mirror.words()
