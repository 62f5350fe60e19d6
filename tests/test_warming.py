"""`warm` and `ready` by the mirror that runs: it does the work, and its user writes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.pullthrough.images import this_platform

from .commands import Done, ran
from .running import RunningMirror
from .waiting import eventually


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[RunningMirror]:
    async with RunningMirror.built(tmp_path) as mirror:
        mirror.hub.add_image("library/redis", "1", os.urandom(3000), os.urandom(2000))
        await mirror.start()
        yield mirror


async def say(mirror: RunningMirror, *words: str | Path) -> Done:
    return await ran(*words, "--config", mirror.file)


async def test_images_are_brought_by_the_mirror_and_served_without_the_registry(
    mirror: RunningMirror,
) -> None:
    before = await say(mirror, "ready", "redis:1")
    assert before.status == 1
    assert "config sha256:" not in before.stdout  # its manifest is missing: no more is known
    done = await say(mirror, "warm", "redis:1")
    assert done.status == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith(f"docker.io/library/redis:1: whole for {this_platform()}, 3 blobs, ")
    assert "came now" in line
    asked = len(mirror.hub.seen("registry"))
    assert (await say(mirror, "ready", "redis:1")).status == 0
    await mirror.pull()
    assert len(mirror.hub.seen("registry")) == asked
    again = await say(mirror, "warm", "redis:1")
    assert "came now" not in again.stdout


async def test_one_image_that_fails_stops_no_other(mirror: RunningMirror, tmp_path: Path) -> None:
    for number in range(3):
        mirror.hub.add_image("library/app", f"v1.{number}", os.urandom(1000))
    names = tmp_path / "list.txt"
    names.write_text("nope:1\napp:v1.*  # all of them\nredis:1\n")
    done = await say(mirror, "warm", f"@{names}")
    assert done.status == 1
    assert sorted(line.partition(": ")[0] for line in done.stdout.splitlines()) == [
        "docker.io/library/app:v1.0",
        "docker.io/library/app:v1.1",
        "docker.io/library/app:v1.2",
        "docker.io/library/redis:1",
    ]
    assert "docker.io/library/nope:1" in done.stderr
    assert "5 images: 4 good, 1 failed" in done.stderr


async def test_each_platform_is_brought_that_is_named(mirror: RunningMirror) -> None:
    done = await say(mirror, "warm", "redis:1", "--platform", "linux/s390x", "--platform", "all")
    assert "whole for all" in done.stdout
    wrong = await say(mirror, "warm", "redis:1", "--platform", "amd64")
    assert wrong.status == 2
    assert "linux/arm64" in wrong.stderr


async def test_mistakes_are_told_before_anything_is_brought(
    mirror: RunningMirror, tmp_path: Path
) -> None:
    (tmp_path / "compose.yml").write_text("services: {a: {image: 'redis:${NONE}'}}\n")
    done = await say(mirror, "warm", "redis:1", tmp_path / "compose.yml", "Redis")
    assert done.status == 2
    assert done.stdout == ""
    assert "compose.yml:1: a: the variable NONE is not set" in done.stderr
    assert "'library/Redis' is no repository name" in done.stderr
    assert mirror.hub.seen("registry") == []


async def test_json_is_one_object_a_line(mirror: RunningMirror) -> None:
    done = await say(mirror, "warm", "redis:1", "nope:1", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = [line["told"] for line in lines if line["told"] != "image_coming"]
    assert told == ["work_begun", "image_ended", "image_ended", "work_ended"]
    results = {line["image"]: line for line in lines if line["told"] == "image_ended"}
    whole = results["docker.io/library/redis:1"]
    assert (whole["result"], whole["blobs"], whole["fetched"] > 5000) == ("whole", 3, True)
    assert results["docker.io/library/nope:1"]["result"] == "failed"
    assert lines[-1]["failed"] == 1
    said = await say(mirror, "ready", "redis:1", "--json")
    assert json.loads(said.stdout)["is_ready"] is True


async def test_a_rule_that_denies_holds_for_it_too(tmp_path: Path) -> None:
    async with RunningMirror.built(tmp_path) as mirror:
        mirror.hub.add_image("library/redis", "1", b"layer")
        await mirror.start("access: [{name: none-of-it, deny: library/redis}]\n")
        done = await say(mirror, "warm", "redis:1")
        assert done.status == 1
        assert "the rule 'none-of-it' of this mirror denies" in done.stderr


async def test_an_older_answer_that_a_client_would_have_is_asked_for_anew(tmp_path: Path) -> None:
    async with RunningMirror.built(tmp_path) as mirror:
        mirror.hub.add_image("library/redis", "1", b"old")
        await mirror.start(freshness="{ttl: 1ms, stale_while_revalidate: 1h}")
        await mirror.pull()
        mirror.hub.add_image("library/redis", "1", b"new")
        done = await say(mirror, "warm", "redis:1", "--json")
        assert (
            json.loads(done.stdout.splitlines()[-2])["digest"]
            == mirror.hub.tags["library/redis"]["1"]
        )


async def test_where_the_mirror_does_not_run_the_command_does_it_itself(
    mirror: RunningMirror,
) -> None:
    await mirror.stop()
    done = await say(mirror, "warm", "redis:1")
    assert done.status == 0, done.stderr
    assert f"No mirror runs; this is done in its store, {mirror.file.parent}/" in done.stderr
    assert (await say(mirror, "ready", "redis:1")).status == 0


async def test_the_mirror_begins_nothing_more_when_the_command_is_gone(
    mirror: RunningMirror,
) -> None:
    from mirror.app import ask_lines

    for number in range(40):
        mirror.hub.add_image("library/app", f"{number}", os.urandom(1000))
    images = [[f"app:{number}", []] for number in range(40)]
    lines = ask_lines(mirror.folder / "store", "warm", {"images": images})
    async for line in lines:
        if line["told"] == "image_ended":
            break
    await lines.aclose()

    async def is_at_rest() -> bool:
        asked = len(mirror.hub.seen("registry"))
        done = await say(mirror, "ready", "redis:1")
        assert done.status == 1
        return len(mirror.hub.seen("registry")) == asked

    await eventually(is_at_rest)
    assert mirror.hub.count("registry", "HEAD") < 40


async def test_bars_on_a_terminal_leave_the_lines_on_standard_output(
    mirror: RunningMirror,
) -> None:
    ours, theirs = os.openpty()
    try:
        command = [sys.executable, "-m", "mirror", "warm", "redis:1", "--config", mirror.file]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
        stdout, _ = await process.communicate()
        assert process.returncode == 0
        assert stdout.startswith(b"docker.io/library/redis:1: whole for ")
        assert b"whole" not in os.read(ours, 1 << 16)
    finally:
        os.close(ours)
        os.close(theirs)


async def test_what_is_in_a_file_does_nothing_to_the_terminal(
    mirror: RunningMirror, tmp_path: Path
) -> None:
    compose = tmp_path / "compose.yaml"
    lines = "\n" * 97  # :100: is an emoji's name
    compose.write_text(
        f'services:{lines}\n  "a\\e]0;owned\\a":\n'
        '    image: "${X?\\e[2J\\x9b31m\\u202e}"\n  b: {image: "c\\e[2J", pull_policy: never}\n'
    )
    folder = tmp_path / "k8s"
    folder.mkdir()
    (folder / "\x1b[31mred.yaml").write_text("a: [")
    done = await say(mirror, "warm", compose, folder)
    assert done.status == 2
    assert f"{compose}:100: a\ufffd]0;owned\ufffd: " in done.stderr
    assert "/\ufffd[31mred.yaml:" in done.stderr
    assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines())
