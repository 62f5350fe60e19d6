"""A bucket behind the disk, shared by two mirrors: a real SeaweedFS."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror.app.doctor.bucket import bucket
from mirror.app.doctor.findings import Mark
from mirror.config import parse

from ..seaweed import READER, Seaweed
from .bodies import MIB
from .client import digest_of
from .fleet.lines import Line
from .house import House, Mirror
from .test_second_tier import REDIS, kept, pull

MOST = 6.0  # seconds that a bucket in trouble delays a pull here, most of them the machine's


pytestmark = pytest.mark.xdist_group("seaweed")


async def with_bucket(
    house: House, seaweed: Seaweed, name: str, workers: int = 1, **keys: str
) -> Mirror:
    """`keys` are s3's."""
    return await house.mirror(storage=seaweed.storage(name, **keys), workers=workers)


def object_of(layer: bytes) -> str:
    algorithm, _, hex = digest_of(layer).partition(":")
    return f"{algorithm}/{hex[:2]}/{hex}"


async def stopped(*mirrors: Mirror) -> None:
    """They end well: obstore's threads may still have been at something."""
    for mirror in mirrors:
        assert await mirror.stop() == 0, mirror.words()[-2000:]
        assert "panicked" not in mirror.words()


@pytest.mark.parametrize(("size", "workers"), [(MIB // 4, 1), (90 * MIB, 1), (20 * MIB, 2)])
async def test_what_one_mirror_has_fetched_another_takes_from_the_bucket(
    house: House, seaweed: Seaweed, size: int, workers: int
) -> None:
    layer, bucket = os.urandom(size), seaweed.bucket()
    house.hub.add_image(REDIS, "7", layer)
    first = await with_bucket(house, seaweed, bucket, workers=workers, prefix="some/where")
    await pull(first, layer)
    await kept(first, 2)
    assert seaweed.objects(bucket)[f"some/where/{object_of(layer)}"] == size
    fetched = house.hub.count("blobs", "GET")
    second = await with_bucket(house, seaweed, bucket, workers=workers, prefix="some/where")
    await pull(second, layer)
    assert house.hub.count("blobs", "GET") == fetched
    await stopped(first, second)


async def test_a_range_comes_from_the_bucket(house: House, seaweed: Seaweed) -> None:
    layer, bucket = os.urandom(20 * MIB), seaweed.bucket()
    house.hub.add_image(REDIS, "7", layer)
    first = await with_bucket(house, seaweed, bucket)
    await pull(first, layer)
    await kept(first, 2)
    fetched = house.hub.count("blobs", "GET")
    second = await with_bucket(house, seaweed, bucket)
    assert (await second.ask(f"/v2/{REDIS}/manifests/7")).status == 200
    start = 11 * MIB + 5
    answer = await second.blob(digest_of(layer), {"Range": f"bytes={start}-{start + MIB - 1}"})
    assert (answer.status, answer.body) == (206, layer[start : start + MIB])
    assert house.hub.count("blobs", "GET") == fetched
    await stopped(first, second)


async def test_what_is_wrong_there_is_set_aside_and_comes_from_the_registry(
    house: House, seaweed: Seaweed
) -> None:
    layer, bucket = os.urandom(5 * MIB), seaweed.bucket()
    house.hub.add_image(REDIS, "7", layer)
    seaweed.write(bucket, object_of(layer), b"\0" * len(layer))
    mirror = await with_bucket(house, seaweed, bucket)
    assert (await mirror.ask(f"/v2/{REDIS}/manifests/7")).status == 200
    assert len((await mirror.blob(digest_of(layer))).body) < len(layer)  # cut before its end
    await pull(mirror, layer)
    await kept(mirror, 2)
    names = seaweed.objects(bucket)
    assert names[f"wrong/{object_of(layer)}"] == names[object_of(layer)] == len(layer)
    await stopped(mirror)


def frozen(seaweed: Seaweed) -> dict[str, str]:
    seaweed.pause()
    return {}


def forbids_all(seaweed: Seaweed) -> dict[str, str]:
    return {"access_key_id": "nobody"}


def forbids_writing(seaweed: Seaweed) -> dict[str, str]:
    return {"access_key_id": READER}


def has_no_bucket(seaweed: Seaweed) -> dict[str, str]:
    return {"bucket": "no-such-bucket"}


TROUBLES: list[tuple[Callable[[Seaweed], dict[str, str]], str, str]] = [
    (forbids_all, "get", "InvalidAccessKeyId: The access key ID you provided does not exist"),
    (forbids_writing, "put", "AccessDenied: Access Denied"),
    (has_no_bucket, "get", "NoSuchBucket: The specified bucket does not exist"),
    (frozen, "", ""),
]


@pytest.mark.parametrize(("trouble", "operation", "reason"), TROUBLES)
async def test_a_bucket_in_trouble_holds_no_pull_back_and_is_told_of_once(
    house: House, seaweed: Seaweed, trouble: Any, operation: str, reason: str
) -> None:
    layers = [os.urandom(size) for size in (MIB // 4, 8 * MIB, MIB // 2)]
    house.hub.add_image(REDIS, "7", *layers)
    bucket = seaweed.bucket()
    mirror = await with_bucket(house, seaweed, bucket, **trouble(seaweed))
    try:
        began = time.monotonic()
        await asyncio.gather(*(pull(mirror, layer) for layer in layers))
        assert time.monotonic() - began < MOST
        if reason:
            await is_told_once(mirror, operation, reason)
        else:
            assert len(mirror.events("second_tier_is_slow")) <= 1
    finally:
        if trouble is frozen:
            seaweed.resume()
    await stopped(mirror)


async def is_told_once(mirror: Mirror, operation: str, reason: str) -> None:
    async with asyncio.timeout(20):
        while not mirror.events("second_tier_failed"):
            await asyncio.sleep(0.05)
    lines = mirror.events("second_tier_failed")
    told = [(line["operation"], line["reason"]) for line in lines]
    assert any(o == operation and r.startswith(reason) for o, r in told), told
    assert len(set(told)) == len(told), told


async def test_a_bucket_that_was_gone_is_used_again_and_that_is_told(
    house: House, seaweed: Seaweed, tmp_path: Path
) -> None:
    line = Line(tmp_path, seaweed.place)  # cut
    endpoint = f"http://{line.host}:{line.port}"
    mirror = await with_bucket(house, seaweed, seaweed.bucket(), endpoint=endpoint)
    layer = os.urandom(MIB)
    house.hub.add_image(REDIS, "7", layer)
    await pull(mirror, layer)
    await is_told_once(mirror, "get", "connection refused")
    with line:
        async with asyncio.timeout(40):
            while not mirror.events("second_tier_works_again"):
                other = os.urandom(1000)
                house.hub.add_image(REDIS, "7", other)
                await mirror.blob(digest_of(other))
                await asyncio.sleep(0.2)
        await stopped(mirror)


async def examined(seaweed: Seaweed, name: str, **keys: str) -> list[tuple[Mark, str, str]]:
    given = yaml.safe_dump({"storage": seaweed.storage(name, **keys)})
    section = parse(given, "mirror.yaml").storage.s3
    assert section is not None
    return [(each.mark, each.words, each.mend) async for each in bucket(section)]


async def test_the_doctor_finds_a_good_bucket_good_and_misses_its_rule(seaweed: Seaweed) -> None:
    name = seaweed.bucket()
    (good, words, _), (warned, rule, mend) = await examined(seaweed, name)
    assert (good, warned) == (Mark.GOOD, Mark.WARN)
    assert words.endswith("objects can be written, read, listed and removed")
    assert "no rule that removes what interrupted uploads leave" in rule
    assert "AbortIncompleteMultipartUpload" in mend
    assert seaweed.objects(name) == {}


@pytest.mark.parametrize(
    ("keys", "words", "mend"),
    [
        ({"access_key_id": READER}, "cannot write: AccessDenied", "s3:PutObject"),
        ({"access_key_id": "nobody"}, "cannot write: InvalidAccessKeyId", "access_key_id"),
        ({"bucket": "no-such-bucket"}, "cannot write: NoSuchBucket", "make the bucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "connection refused", "endpoint"),
        ({"endpoint": "http://nowhere.invalid"}, "its name does not resolve", "endpoint"),
    ],
    ids=["reader", "nobody", "no bucket", "refused", "no host"],
)
async def test_the_doctor_says_what_is_wrong_with_a_bucket(
    seaweed: Seaweed, keys: dict[str, str], words: str, mend: str
) -> None:
    [(mark, said, advice)] = await examined(seaweed, seaweed.bucket(), **keys)
    assert mark is Mark.BAD
    assert words in said
    assert mend in advice
