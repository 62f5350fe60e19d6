"""One service for a store, and commands beside it: its bounds hold, and its files stay its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from ...e2e.programs import unavailable
from ..bodies import MIB
from ..house import House, Mirror
from .clients import is_kept

NOBODY = 65534


async def say(config: Path, *words: str) -> tuple[int, str]:
    """What a command says, and how it ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "mirror", *words, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, said.decode()


def another_configuration(mirror: Mirror, **storage: str) -> Path:
    config = json.loads(mirror.config.read_text())
    config["storage"] |= storage
    path = mirror.folder / "another.yaml"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("workers", [1, 2])
async def test_f37_a_second_service_refuses_a_store_that_is_served(
    house: House, tmp_path: Path, workers: int
) -> None:
    storage = {"path": str(tmp_path / "shared"), "max_size": "8MiB"}
    first = await house.mirror(storage=storage, workers=workers)
    digest = house.hub.add_blob(os.urandom(3 * MIB))
    assert (await first.blob(digest)).is_whole(digest)
    second = house.prepare(storage={**storage, "max_size": "1MiB"}, workers=workers)
    second.launch()
    assert await second.ended() == 1
    words = second.words()
    assert f"{tmp_path / 'shared'} is served by another mirror already" in words
    assert f"process {first.pid}" in words
    assert "Traceback" not in words
    assert await is_kept(house, first, digest)
    first.kill()
    third = await house.mirror(storage=storage, workers=workers)
    assert await is_kept(house, third, digest)


@pytest.mark.parametrize("running", [True, False], ids=["beside it", "after it"])
async def test_what_a_command_brings_evicts_within_the_services_bounds(
    house: House, running: bool
) -> None:
    kept = [house.hub.add_blob(os.urandom(MIB)) for _ in range(8)]
    house.hub.add_image("library/redis", "7", os.urandom(MIB))
    mirror = await house.mirror(storage={"max_size": "100MiB"})
    for digest in kept:
        assert (await mirror.blob(digest)).is_whole(digest)
    config = another_configuration(mirror, max_size="2MiB")
    if not running:
        assert await mirror.stop() == 0
    for command in (["warm", "redis:7"], ["verify"], ["ready", "redis:7"]):
        status, said = await say(config, *command)
        assert status == 0, said
    assert len(mirror.kept()) == len(kept) + 3
    if not running:
        await mirror.start()
    for digest in kept:
        assert await is_kept(house, mirror, digest)


async def test_what_root_brings_belongs_to_the_stores_owner(house: House) -> None:
    if os.geteuid() != 0:
        unavailable("to run this test: be root, to act for another user")
    house.hub.add_image("library/redis", "7", os.urandom(MIB), b"small")
    mirror = house.prepare()
    mirror.storage.mkdir(parents=True)
    os.chown(mirror.storage, NOBODY, NOBODY)
    for command in (
        ["warm", "redis:7"],
        ["verify"],
        ["ready", "redis:7"],
        ["pin", "redis:7", "2020-01-01"],
        ["tags", "redis:7"],
    ):
        await say(mirror.config, *command)
    paths = [mirror.storage, *mirror.storage.rglob("*")]
    assert len([path for path in paths if path.is_file()]) > 5
    assert [path for path in paths if path.lstat().st_uid != NOBODY] == []
    assert [path for path in paths if path.lstat().st_gid != NOBODY] == []
