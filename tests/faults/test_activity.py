"""What goes on, asked of a mirror that runs, with one process and with workers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ..commands import Done, ran
from ..fakes.hub import status as answers
from ..waiting import eventually
from .house import House, Mirror

SOON = 20.0  # seconds, on a busy machine

one_and_two = pytest.mark.parametrize("workers", [1, 2])


async def told(mirror: Mirror, *words: str) -> dict[str, Any]:
    done = await ran(*words, "--json", "--config", mirror.config)
    assert done.status == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def say(mirror: Mirror, *words: str) -> Done:
    return await ran(*words, "--config", mirror.config)


async def pull_by_skopeo(mirror: Mirror, image: str, folder: Path) -> None:
    host = mirror.url.removeprefix("http://")
    words = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*words, f"docker://{host}/library/{image}", f"dir:{folder}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def ended_pulls(mirror: Mirror, image: str, count: int) -> list[dict[str, Any]]:
    async def pulls() -> list[dict[str, Any]]:
        found = (await told(mirror, "why", image))["pulls"]
        over = [pull for pull in found if pull["ended_at"] is not None]
        return over if len(over) == count else []

    return await eventually(pulls, SOON)


@one_and_two
async def test_pulls_by_skopeo_are_told_as_pulls(
    house: House, workers: int, tmp_path: Path
) -> None:
    layers = [os.urandom(200_000) for _ in range(3)]
    house.hub.add_image("library/redis", "7", *layers)
    # A worker does not know whether another's client has read what was fetched ahead.
    mirror = await house.mirror(workers=workers, prefetch=False)
    await pull_by_skopeo(mirror, "redis:7", tmp_path / "first")
    [cold] = await ended_pulls(mirror, "redis:7", 1)
    assert cold["image"] == "redis:7"
    assert cold["agent"].startswith("skopeo/")
    assert "MISS" in cold["summary"]
    assert cold["bytes"] > 600_000
    whys = {one["why"] for one in cold["requests"] if one["outcome"] == "filled"}
    assert any("not known here, asked upstream: found" in why for why in whys)
    await pull_by_skopeo(mirror, "redis:7", tmp_path / "second")
    warm, _ = await ended_pulls(mirror, "redis:7", 2)
    assert re.fullmatch(r"HIT (\d+)/\1", warm["summary"])

    status = await told(mirror, "status")
    assert (status["day"]["pulls"], status["day"]["without_upstream"]) == (2, 1)
    assert status["day"]["bytes_served"] > 1_200_000
    assert 600_000 < status["day"]["bytes_fetched"] < 700_000
    assert status["serving"] == workers
    assert len(status["pids"]) == workers
    assert status["cache"]["images"] >= 1
    assert [one["state"] for one in status["endpoints"]] == ["ok"]
    assert status["config"]["path"] == str(mirror.config)

    request = next(one for one in cold["requests"] if one["outcome"] == "filled")
    why = await say(mirror, "why", request["request_id"])
    assert why.status == 0
    assert request["request_id"] in why.stdout
    top = await say(mirror, "top")
    assert "redis:7" in top.stdout
    assert top.status == 0


async def test_counts_outlive_a_worker(house: House) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(workers=2)
    answer = await mirror.manifest("7", name="library/redis")
    assert answer.status == 200

    async def is_counted() -> bool:
        return bool((await told(mirror, "status"))["day"]["requests"])

    await eventually(is_counted, SOON)
    before = await told(mirror, "status")
    os.kill(before["pids"][0], 9)

    async def is_replaced() -> bool:
        now = await told(mirror, "status")
        return now["serving"] == 2 and now["pids"] != before["pids"]

    await eventually(is_replaced, SOON)
    after = await told(mirror, "status")
    assert after["day"]["requests"] >= before["day"]["requests"] > 0
    assert after["pid"] == before["pid"]


@one_and_two
async def test_the_level_changes_in_all_processes_and_falls_back(
    house: House, workers: int
) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(workers=workers)
    assert not mirror.events("step")
    state = await told(mirror, "log", "debug", "2s")
    assert (state["level"], state["configured_level"]) == ("debug", "info")
    assert state["until"] is not None

    async def steps() -> bool:
        await mirror.manifest("nosuch", name="library/redis")
        return bool(mirror.events("step"))

    await eventually(steps, SOON)

    async def is_back() -> bool:
        return (await told(mirror, "log"))["level"] == "info"

    await eventually(is_back, SOON)
    assert (await say(mirror, "log", "silly")).status == 2
    assert (await say(mirror, "log", "debug", "99d")).status == 2


async def test_only_misses_or_no_requests_are_logged_where_that_is_wanted(house: House) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(log={"requests": "misses"})
    for _ in range(8):
        assert (await mirror.manifest("7", name="library/redis")).status == 200
    await eventually(lambda: bool(mirror.events("request")), SOON)
    outcomes = {line["outcome"] for line in mirror.events("request")}
    assert "filled" in outcomes
    assert "hit" not in outcomes
    await told(mirror, "log", "--requests", "none")
    count = len(mirror.events("request"))
    assert (await mirror.manifest("nosuch", name="library/redis")).status == 404
    await told(mirror, "log", "--requests", "all")

    async def is_told() -> bool:
        await mirror.manifest("7", name="library/redis")
        return len(mirror.events("request")) > count

    await eventually(is_told, SOON)
    assert all(line["reference"] != "nosuch" for line in mirror.events("request")[count:])


async def test_why_a_request_failed_is_told_by_its_id(house: House) -> None:
    house.hub.fail("registry", answers(503), times=1000)
    mirror = await house.mirror(quick=True)
    answer = await mirror.manifest("7", name="library/redis")
    identity = answer.headers["X-Request-Id"]

    async def is_known() -> bool:
        return (await say(mirror, "why", identity)).status == 0

    await eventually(is_known, SOON)
    done = await say(mirror, "why", identity)
    assert "FAILED" in done.stdout
    assert "503" in done.stdout


async def test_what_a_slow_client_is_sent_counts_while_it_is_sent(house: House) -> None:
    digest = house.hub.add_blob(os.urandom(24 << 20))
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).status == 200
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 16) as session,
        session.get(f"{mirror.url}/v2/library/redis/blobs/{digest}") as answer,
    ):

        async def is_told() -> bool:
            await answer.content.readexactly(1 << 16)
            pulls = (await told(mirror, "top"))["pulls"]
            running = [one for pull in pulls for one in pull["requests"] if one["is_running"]]
            return any(one["sent"] for one in running)

        await eventually(is_told, SOON)


async def test_a_mirror_that_does_not_run_is_said_to(house: House) -> None:
    mirror = house.prepare()
    for words in (["status"], ["top"], ["why", "redis:7"], ["log"]):
        done = await say(mirror, *words)
        assert done.status == 1
        assert "no mirror runs" in done.stderr
