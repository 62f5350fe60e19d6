"""`registry-mirror gc`, as an operator types it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

from mirror.app import ask
from mirror.oci.digest import Digest

from ..e2e.programs import REPOSITORY
from ..faults.house import House, Mirror
from ..waiting import eventually
from .nodes import LOGIN, PORT, hosting

LAYER = b"a layer that no manifest needs"


async def gc(mirror: Mirror, *options: str, status: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mirror", "gc", *options, "--config", str(mirror.config),
        cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, words = await process.communicate()
    assert process.returncode == status, (output, words)
    return (output + words).decode()


def total(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


async def test_an_operator_sees_what_would_go_and_has_it_go(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        mirror = await hosting(house, {"grace": "2s"})
        digest = Digest.of(LAYER)
        path = f"http://{mirror.address}:{PORT}/v2/team/app/blobs/uploads/?digest={digest}"
        async with (
            aiohttp.ClientSession(headers=LOGIN) as session,
            session.post(path, data=LAYER) as answer,
        ):
            assert answer.status == 201

        # A push that runs may rely on it; a collection leaves it, also one that is asked for now.
        assert "The next one is due in" in await gc(mirror)

        async def is_due() -> bool:
            return int((await ask(mirror.storage, "gc", is_trial=True))["would_go"]) > 0

        await eventually(is_due, 30)
        dry = await gc(mirror, "--dry-run", "--json")
        lines = [json.loads(line) for line in dry.splitlines()]
        assert [(one["kind"], one.get("repository")) for one in lines[:2]] == [
            ("blob", "team/app"),
            ("content", ""),
        ]
        assert lines[-1]["would_free"] == len(LAYER)
        assert len(mirror.blobs()) == 1

        done = total(await gc(mirror, "--now", "--json"))
        assert (done["blobs"], done["repositories"], done["content"]) == (1, 1, 1)
        assert done["freed"] == len(LAYER)
        assert mirror.blobs() == []


async def test_a_mirror_that_hosts_nothing_says_what_to_write(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        assert "hosted: {listen:" in await gc(await house.mirror(), "--now", status=2)
