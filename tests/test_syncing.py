"""The key `sync`, in a whole mirror: what is left to clients, a reload, and the commands."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .running import RunningMirror
from .waiting import eventually


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[RunningMirror]:
    async with RunningMirror.built(tmp_path) as mirror:
        yield mirror


async def entries(mirror: RunningMirror) -> list[dict[str, Any]]:
    _, stdout = await mirror.command("sync", "list", "--json")
    return [json.loads(line) for line in stdout.splitlines()]


async def ran(mirror: RunningMirror) -> dict[str, Any]:
    """The only entry runs now; how that went."""
    await mirror.command("sync", "run")
    [entry] = await entries(mirror)
    last: dict[str, Any] = entry["last"]
    return last


async def test_what_is_brought_is_served_without_the_registry(mirror: RunningMirror) -> None:
    mirror.hub.add_image("library/redis", "1", os.urandom(3000))
    await mirror.start("sync: [{images: ['redis:*'], every: 6h}]\n")
    run = await ran(mirror)
    assert (run["result"], run["whole"], run["images"]) == ("good", 1, 1)
    asked = len(mirror.hub.requests)
    await mirror.pull()
    assert len(mirror.hub.requests) == asked


async def test_a_share_of_the_pulls_is_left_to_clients(mirror: RunningMirror) -> None:
    mirror.hub.limit = 10
    for number in range(9):
        mirror.hub.add_image("library/app", f"{number}", os.urandom(1000))
    await mirror.start("sync: [{images: ['app:*'], every: 6h, spare_quota: 60%}]\n")
    run = await ran(mirror)
    assert run["result"] == "stopped"
    assert "60% of the pulls that docker.io grants are left" in run["words"]
    assert mirror.hub.pulls[""] == 4
    assert run["whole"] == 4


async def test_a_tag_that_has_not_moved_costs_no_pull(mirror: RunningMirror) -> None:
    mirror.hub.limit = 100
    for number in range(3):
        mirror.hub.add_image("library/app", f"{number}", os.urandom(1000))
    await mirror.start("sync: [{images: ['app:*'], every: 6h}]\n", freshness="{ttl: 1ms}")
    await ran(mirror)
    before = mirror.hub.pulls[""]
    mirror.hub.add_image("library/app", "1", os.urandom(1000))
    assert (await ran(mirror))["result"] == "good"
    assert mirror.hub.pulls[""] == before + 1


async def test_the_commands_tell_of_entries_and_have_them_run(mirror: RunningMirror) -> None:
    mirror.hub.add_image("library/redis", "1", os.urandom(3000))
    one = "{name: night, images: [redis:1, nope:1], window: '00:00-00:01 Etc/GMT+12'}"
    await mirror.start(f"sync: [{one}]\n")
    status, stdout = await mirror.command("sync", "run", "night")
    assert status == 1
    assert "docker.io/library/redis:1: whole" in stdout
    status, stdout = await mirror.command("sync", "list")
    assert status == 1
    heading, row = stdout.splitlines()
    assert heading.split()[0] == "NAME"
    assert row.split()[:2] == ["night", "waiting"]
    assert "failed  1 of 2" in row
    status, _ = await mirror.command("sync", "run", "nope")
    assert status == 2


async def test_a_changed_key_counts_at_a_reload(mirror: RunningMirror) -> None:
    mirror.hub.add_image("library/redis", "1", b"one")
    await mirror.start("sync: [{images: [redis:1], every: 6h}]\n")
    await ran(mirror)
    mirror.hub.add_image("library/redis", "2", b"two")
    mirror.file.write_text(mirror.file.read_text().replace("redis:1", "redis:2"))
    status, _ = await mirror.command("reload")
    assert status == 0
    assert (await ran(mirror))["result"] == "good"
    assert await mirror.is_ready("redis:2")


async def test_a_mirror_without_entries_says_so(mirror: RunningMirror) -> None:
    await mirror.start()
    assert await mirror.command("sync", "list") == (0, "")
    assert await entries(mirror) == []


async def test_a_pattern_of_repositories_means_those_that_were_pulled_here(
    mirror: RunningMirror,
) -> None:
    for name in ("acme/app", "acme/other", "library/redis"):
        mirror.hub.add_image(name, "1", os.urandom(100))
        mirror.hub.add_image(name, "v2", os.urandom(100))
    await mirror.start("sync: [{images: ['acme/*:v*'], every: 6h}]\n")
    run = await ran(mirror)
    assert run["failed"] == 1
    assert "nothing was pulled here yet" in run["failures"][0]
    assert (await mirror.command("warm", "acme/app:1", "redis:1"))[0] == 0

    async def is_known() -> bool:
        return (await ran(mirror))["images"] == 1 and (await ran(mirror))["failed"] == 0

    await eventually(is_known)
    assert await mirror.is_ready("acme/app:v2")
    assert not await mirror.is_ready("acme/other:v2")
