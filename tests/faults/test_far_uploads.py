"""What is given to a real object store, whatever happens to it and to the mirror meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ..commands import ran
from ..seaweed import Seaweed
from ..waiting import eventually
from .bodies import MIB
from .client import DOCKERD, digest_of, fetch
from .fleet.lines import Line
from .house import House, Mirror

REDIS = "library/redis"
SOON = 60.0  # seconds, on a busy machine


pytestmark = pytest.mark.xdist_group("seaweed")


def far_name(digest: str) -> str:
    algorithm, _, name = digest.partition(":")
    return f"{algorithm}/{name[:2]}/{name}"


async def behind(house: House, storage: dict[str, Any], **keys: Any) -> Mirror:
    """A mirror with a bucket behind it, which it soon tries again."""
    return await house.mirror(storage=storage, module="tests.faults.quick", **keys)


async def pull(mirror: Mirror, layer: bytes, tag: str = "7") -> None:
    assert (await mirror.ask(f"/v2/{REDIS}/manifests/{tag}")).status == 200
    answer = await mirror.ask(f"/v2/{REDIS}/blobs/{digest_of(layer)}")
    assert (answer.status, answer.body) == (200, layer)


async def has(seaweed: Seaweed, bucket: str, contents: Mapping[str, int]) -> None:
    """Returns when the bucket has these contents, with these sizes."""
    expected = {far_name(digest): size for digest, size in contents.items()}

    def missing() -> dict[str, int]:
        there = seaweed.objects(bucket)
        return {name: size for name, size in expected.items() if there.get(name) != size}

    await eventually(lambda: not missing(), SOON)


def image(house: House, size: int, tag: str = "7") -> tuple[bytes, dict[str, int]]:
    """A layer, and what is to be far of its image: its digest and the manifest's, with sizes."""
    layer = os.urandom(size)
    manifest = house.hub.add_image(REDIS, tag, layer)
    return layer, {digest_of(layer): size, manifest: len(house.hub.manifests[manifest][0])}


@pytest.mark.parametrize("workers", [2])
async def test_an_upload_that_was_under_way_when_the_mirror_was_killed_is_done_by_the_next(
    house: House, seaweed: Seaweed, workers: int
) -> None:
    bucket = seaweed.bucket()
    layer, contents = image(house, 33 * MIB)
    mirror = await behind(house, seaweed.storage(bucket), workers=workers)
    await pull(mirror, layer)
    await eventually(lambda: _is_uploading(mirror, seaweed), SOON)
    seaweed.pause()
    mirror.kill()
    seaweed.resume()
    assert far_name(digest_of(layer)) not in seaweed.objects(bucket)
    await mirror.start()
    await has(seaweed, bucket, contents)
    assert (await mirror.metric("second_tier_kept_total")) >= 1


def _is_uploading(mirror: Mirror, seaweed: Seaweed) -> bool:
    """Whether any of its processes is connected with the store."""
    host, port = seaweed.place
    wanted = f"{int.from_bytes(bytes(map(int, host.split('.'))), 'little'):08X}:{port:04X}"
    for pid in mirror.processes():
        with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
            if any(line.split()[2] == wanted for line in table.readlines()[1:]):
                return True
    return False


async def test_what_was_due_while_the_store_was_frozen_or_gone_arrives_when_it_is_back(
    house: House, seaweed: Seaweed, tmp_path: Path
) -> None:
    bucket = seaweed.bucket()
    line = Line(tmp_path, seaweed.place)
    endpoint = f"http://{line.host}:{line.port}"
    contents: dict[str, int] = {}
    with line:
        mirror = await behind(house, seaweed.storage(bucket, endpoint=endpoint))
        seaweed.pause()
        try:
            layer, added = image(house, 2 * MIB, "frozen")
            contents |= added
            async with asyncio.timeout(20):
                await pull(mirror, layer, "frozen")
        finally:
            seaweed.resume()
    for number in range(3):  # connections are refused now
        layer, added = image(house, MIB, f"gone{number}")
        contents |= added
        await pull(mirror, layer, f"gone{number}")
    with line:
        await has(seaweed, bucket, contents)
        assert await mirror.metric("second_tier_dropped_total") == 0
        await eventually(lambda: _backlog_is_empty(mirror), SOON)


async def _backlog_is_empty(mirror: Mirror) -> bool:
    done = await ran("far", "status", "--json", "--config", mirror.config)
    return bool(json.loads(done.stdout)["backlog"] == 0)


async def test_a_full_near_disk_evicts_what_is_far_first_and_no_pull_fails(
    house: House, seaweed: Seaweed
) -> None:
    bucket = seaweed.bucket()
    storage = {**seaweed.storage(bucket), "max_size": "24MiB"}
    mirror = await behind(house, storage)
    far, contents = image(house, 8 * MIB, "far")
    await pull(mirror, far, "far")
    await has(seaweed, bucket, contents)
    seaweed.pause()
    try:
        layers = [image(house, 4 * MIB, f"due{n}")[0] for n in range(4)]
        for number, layer in enumerate(layers):
            await pull(mirror, layer, f"due{number}")
        here = {path.name for path in mirror.blobs()}
        assert {digest_of(layer).partition(":")[2] for layer in layers} <= here
        assert digest_of(far).partition(":")[2] not in here
        assert await mirror.metric("second_tier_dropped_total") == 0
        for number in range(4, 8):  # and then what is due goes too, and that is counted
            layer, _ = image(house, 4 * MIB, f"due{number}")
            await pull(mirror, layer, f"due{number}")
        await eventually(lambda: _dropped(mirror), SOON)
    finally:
        seaweed.resume()
    fetched = house.hub.count("blobs", "GET")
    await eventually(lambda: _comes_from_far(mirror, far), SOON)
    assert house.hub.count("blobs", "GET") == fetched


async def _dropped(mirror: Mirror) -> bool:
    return await mirror.metric("second_tier_dropped_total") > 0


async def _comes_from_far(mirror: Mirror, layer: bytes) -> bool:
    """Once the store is no longer left alone."""
    done = await ran("far", "status", "--json", "--config", mirror.config)
    if json.loads(done.stdout)["left_alone"]:
        return False
    answer = await mirror.ask(f"/v2/{REDIS}/blobs/{digest_of(layer)}")
    assert (answer.status, answer.body) == (200, layer)
    return True


@pytest.mark.parametrize(("wrong", "way"), [("other bytes", "whole"), ("shorter", "range")])
async def test_wrong_objects_are_set_aside_and_the_right_ones_put_in_their_place(
    house: House, seaweed: Seaweed, wrong: str, way: str
) -> None:
    bucket = seaweed.bucket()
    layer, contents = image(house, 3 * MIB)
    first = await house.mirror(storage=seaweed.storage(bucket))
    await pull(first, layer)
    await has(seaweed, bucket, contents)
    await first.stop()
    for digest, size in contents.items():
        spoilt = {
            "other bytes": os.urandom(size),
            "shorter": os.urandom(size - 1),
            "longer": os.urandom(size + 1),
        }
        seaweed.write(bucket, far_name(digest), spoilt[wrong])
    second = await house.mirror(storage=seaweed.storage(bucket))
    assert (await second.ask(f"/v2/{REDIS}/manifests/7")).status == 200
    part = (0, len(layer)) if way == "whole" else (1000, MIB)
    await eventually(lambda: _comes_right(second, layer, *part), SOON)
    aside = {f"wrong/{far_name(digest)}" for digest in contents}
    await eventually(lambda: aside <= set(seaweed.objects(bucket)), SOON)
    await has(seaweed, bucket, contents)
    assert await second.metric("second_tier_wrong_total", set_aside="yes") == 2
    third = await house.mirror(storage=seaweed.storage(bucket))
    fetched = house.hub.count("blobs", "GET")
    await pull(third, layer)
    assert house.hub.count("blobs", "GET") == fetched


async def _comes_right(mirror: Mirror, layer: bytes, start: int, stop: int) -> bool:
    """Of the store's wrong bytes a client may have some, but never a whole blob of them."""
    is_whole = stop - start == len(layer)
    asked = DOCKERD if is_whole else {**DOCKERD, "Range": f"bytes={start}-{stop - 1}"}
    answer = await mirror.ask(f"/v2/{REDIS}/blobs/{digest_of(layer)}", headers=asked)
    assert answer.status == (200 if is_whole else 206)
    is_right = not answer.cut and answer.body == layer[start:stop]
    assert is_right or answer.cut or not is_whole
    return is_right


async def test_a_sweep_is_foretold_and_done_by_a_command(house: House, seaweed: Seaweed) -> None:
    bucket = seaweed.bucket()
    layer, contents = image(house, MIB)
    mirror = await house.mirror(storage=seaweed.storage(bucket, max_size="1MiB", keep="2d"))
    await pull(mirror, layer)
    await has(seaweed, bucket, contents)
    config: tuple[Any, ...] = ("--json", "--config", mirror.config)
    trial = await ran("far", "sweep", "--dry-run", *config)
    assert trial.status == 0, trial.stderr
    foretold = json.loads(trial.stdout)
    assert foretold["there"] == {"objects": 2, "bytes": sum(contents.values())}
    assert foretold["gone"]["room"]["objects"] == 0  # it is young
    done = await ran("far", "sweep", *config)
    assert json.loads(done.stdout)["result"] == "done"
    status = json.loads((await ran("far", "status", *config)).stdout)
    assert status["last_sweep"]["there"]["objects"] == 2
    for what in ("status", "sweep"):
        assert (await ran("far", what, "--config", mirror.config)).status == 0
    again = json.loads((await ran("far", "recheck", *config)).stdout)
    assert again["backlog"] >= 2  # all that is here
    await eventually(lambda: _backlog_is_empty(mirror), SOON)
    assert set(map(far_name, contents)) <= set(seaweed.objects(bucket))
    assert hashlib.sha256(layer).hexdigest() in "".join(seaweed.objects(bucket))


async def test_clients_of_named_networks_are_sent_to_the_store_for_large_blobs(
    house: House, seaweed: Seaweed
) -> None:
    bucket = seaweed.bucket()
    layer, contents = image(house, 3 * MIB)
    other = house.hub.add_image("library/other", "7", b"another layer")
    redirect = {"networks": ["127.0.0.0/8"], "over": "1MiB"}
    mirror = await behind(house, seaweed.storage(bucket, redirect=redirect))
    await pull(mirror, layer)  # it is not far yet
    await has(seaweed, bucket, contents)
    path = f"/v2/{REDIS}/blobs/{digest_of(layer)}"
    assert (await mirror.ask(path, "HEAD")).status == 200
    ranged = {**DOCKERD, "Range": "bytes=1000-1999"}
    for asked, expected in ((DOCKERD, layer), (ranged, layer[1000:2000])):
        sent = await mirror.ask(path, headers=asked)
        assert (sent.status, sent.body) == (307, b"")
        assert sent.headers["Cache-Control"] == "no-store"
        got = await fetch(sent.headers["Location"], headers=asked)
        assert got.body == expected
    # A client that asks again and again may have had wrong bytes there.
    assert (await mirror.ask(path)).body == layer
    # Whoever may not see it here is not sent there, and what is small comes from here.
    house.hub.lacking |= {("library/other", digest_of(layer))}
    assert (await mirror.ask(f"/v2/library/other/manifests/{other}")).status == 200
    hidden = await mirror.ask(f"/v2/library/other/blobs/{digest_of(layer)}")
    assert hidden.status == 404
    assert (await mirror.ask(f"/v2/{REDIS}/manifests/7")).status == 200
    assert await mirror.metric("second_tier_redirects_total") == 2
    assert [line["outcome"] for line in mirror.events("request")].count("redirected") == 2
    assert "X-Amz" not in mirror.words()


async def test_other_clients_are_sent_nowhere(house: House, seaweed: Seaweed) -> None:
    bucket = seaweed.bucket()
    layer, contents = image(house, 2 * MIB)
    redirect = {"networks": ["10.0.0.0/8"], "over": "1MiB"}
    mirror = await behind(house, seaweed.storage(bucket, redirect=redirect))
    await pull(mirror, layer)
    await has(seaweed, bucket, contents)
    await pull(mirror, layer)
    seaweed.pause()
    try:
        await pull(mirror, layer)
    finally:
        seaweed.resume()
    assert await mirror.metric("second_tier_redirects_total") == 0
