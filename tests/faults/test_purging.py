"""Images listed and purged through a mirror that runs, while it is pulled from."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

import pytest

from ..commands import Done, ran
from ..waiting import eventually
from .house import House, Mirror, digest_of

MIB = 1 << 20
NAME = "library/redis"


async def command(mirror: Mirror, *words: str) -> Done:
    done = await ran(*words, "--config", mirror.config)
    assert "Traceback" not in done.stderr, done.stderr
    return done


async def listed(mirror: Mirror, *words: str) -> list[dict[str, Any]]:
    done = await command(mirror, "images", *words, "--json")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def names(mirror: Mirror) -> list[str]:
    return [image["image"] for image in await listed(mirror)]


async def pull(mirror: Mirror, tag: str, name: str = NAME) -> None:
    """The whole image, as a client does it; nothing of it may fail."""
    answer = await mirror.manifest(tag, name=name)
    assert answer.status == 200, answer
    for blob in blobs_of(json.loads(answer.body)):
        assert (await mirror.blob(blob, name=name)).is_whole(blob)


def blobs_of(manifest: Mapping[str, Any]) -> list[str]:
    return [blob["digest"] for blob in (manifest["config"], *manifest["layers"])]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_purged_image_is_gone_from_all_workers_and_comes_anew(
    house: House, workers: int
) -> None:
    mirror = await house.mirror(workers=workers)
    hub = house.hub
    base = os.urandom(MIB)
    hub.add_image(NAME, "7", base)
    hub.add_image("acme/app", "v1", base)
    for _ in range(8):  # of each worker
        await pull(mirror, "7")
        await pull(mirror, "v1", "acme/app")

    async def all_is_noted() -> bool:  # by all workers
        return [image["missing"] for image in await listed(mirror)] == [0, 0]

    await eventually(all_is_noted, 30)
    assert await names(mirror) == ["acme/app:v1", "redis:7"]
    [redis] = await listed(mirror, "redis:7")
    assert (redis["state"], redis["missing"]) == ("whole", 0)
    assert redis["size"] > MIB > redis["own"]

    trial = await command(mirror, "purge", "redis:7", "--dry-run")
    assert trial.status == 0, trial.stderr
    assert len(await listed(mirror)) == 2
    done = await command(mirror, "purge", "redis:7")
    assert done.status == 0, done.stderr
    assert (
        trial.stdout.splitlines()[-1].replace("would be freed", "freed")
        == (done.stdout.splitlines()[-1])
    )
    assert "1 MB shared with others stay" in done.stdout
    assert await names(mirror) == ["acme/app:v1"]

    hub.requests.clear()
    await pull(mirror, "v1", "acme/app")
    assert [path for path in map(str, hub.requests) if "/blobs/" in path] == []
    for _ in range(4):
        await pull(mirror, "7")
    asked = [str(path) for path in hub.requests if "library/redis/manifests" in str(path)]
    assert asked

    async def is_here() -> bool:
        return "redis:7" in await names(mirror)

    await eventually(is_here, 30)
    assert (await command(mirror, "purge", "redis:8")).status == 1


async def test_pulls_go_on_while_what_they_pull_is_purged_again_and_again(house: House) -> None:
    mirror = await house.mirror(workers=2)
    base = os.urandom(MIB)
    for number in range(3):
        house.hub.add_image(NAME, str(number), base, os.urandom(2 * MIB), os.urandom(20 * MIB))
    stop = asyncio.Event()
    count = freed = 0

    async def go_on(tag: str) -> None:
        nonlocal count
        while not stop.is_set():
            await pull(mirror, tag)
            count += 1

    async with asyncio.TaskGroup() as group:
        for number in (0, 1, 2, 0, 1):
            group.create_task(go_on(str(number)))
        for turn in range(4):
            before = count
            wanted = "redis:0" if turn % 2 else "*"
            done = await command(mirror, "purge", wanted, "--json")
            assert done.status in (0, 1), done.stderr
            freed += json.loads(done.stdout.splitlines()[-1])["freed"]
            await eventually(lambda before=before: count > before + 3, 60)
        stop.set()
    assert mirror.rotten() == []
    assert freed > 20 * MIB
    assert not mirror.events("command_failed")


async def test_a_reader_of_a_purged_blob_has_all_of_it(house: House) -> None:
    mirror = await house.mirror()
    layer = os.urandom(20 * MIB)
    house.hub.add_image(NAME, "7", layer)
    await pull(mirror, "7")
    digest = digest_of(layer)
    async with mirror.connection() as wire:
        await wire.get(f"/v2/{NAME}/blobs/{digest}", "Connection: close")
        await wire.head()
        done = await command(mirror, "purge", "redis")
        assert done.status == 0
        assert (await wire.rest()) == layer


async def test_what_is_pinned_or_kept_stays_unless_that_is_said(house: House) -> None:
    mirror = await house.mirror(storage={"pin": ["redis:8"]})
    for tag in ("7", "8", "9"):
        house.hub.add_image(NAME, tag, os.urandom(1000))
        await pull(mirror, tag)
    assert (await command(mirror, "pin", "redis:7")).status == 0
    states = {image["image"]: image["state"] for image in await listed(mirror)}
    assert states == {
        "redis:7": "whole, pinned until unpin",
        "redis:8": "whole, never evicted",
        "redis:9": "whole",
    }
    done = await command(mirror, "purge", "*")
    assert (done.status, await names(mirror)) == (0, ["redis:7", "redis:8"])
    assert "docker.io/library/redis:7 stays: it is pinned" in done.stderr
    assert (await command(mirror, "purge", "redis:7")).status == 1

    assert (await command(mirror, "purge", "redis:7", "redis:8", "--pinned")).status == 0
    assert await names(mirror) == []
    await pull(mirror, "7")  # it is pinned still
    assert (await command(mirror, "unpin", "redis:7")).status == 0
    assert (await command(mirror, "unpin", "redis:7")).status == 1
    done = await command(mirror, "purge", "redis")
    assert (done.status, mirror.kept()) == (0, {})


async def test_what_is_kept_follows_the_configuration(house: House) -> None:
    mirror = await house.mirror()
    house.hub.add_image(NAME, "7", os.urandom(1000))
    await pull(mirror, "7")
    keys = json.loads(mirror.config.read_text())
    for patterns, status in ((["redis"], 1), ([], 0)):
        keys["storage"]["pin"] = patterns
        mirror.config.write_text(json.dumps(keys))
        assert (await command(mirror, "reload")).status == 0
        assert (await command(mirror, "purge", "redis:7")).status == status
    assert mirror.kept() == {}


async def test_where_no_mirror_runs_its_store_is_purged_and_stays_its_owners(house: House) -> None:
    mirror = await house.mirror()
    house.hub.add_image(NAME, "7", os.urandom(MIB))
    await pull(mirror, "7")
    assert await mirror.stop() == 0
    if os.geteuid() == 0:  # as a service's user has it
        for path in (mirror.storage, *mirror.storage.rglob("*")):
            os.chown(path, 4242, 4242)
    owner = mirror.storage.stat().st_uid
    done = await command(mirror, "purge", "redis:7")
    assert (done.status, mirror.kept()) == (0, {}), done.stderr
    assert {path.stat().st_uid for path in mirror.storage.rglob("*")} == {owner}


async def test_a_pin_says_that_the_tag_memory_is_away(house: House) -> None:
    mirror = await house.mirror(tags={"store": "redis://127.0.0.1:9"})  # nobody is there
    done = await command(mirror, "pin", "redis:7", f"sha256:{'0' * 64}")
    assert done.status == 1
    assert "the tag memory, which has the pins, does not answer: connection refused" in done.stderr
