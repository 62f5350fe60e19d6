"""The catalogue of a running mirror: what was pulled is in it, whatever happens to the mirror."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.catalogue import ImageEntry
from mirror.storage.records.catalogue import CatalogueRecords

from ..waiting import eventually
from .house import House, Mirror

MIB = 1 << 20


async def images(mirror: Mirror) -> Mapping[str, ImageEntry]:
    """Tags by their names, as another process reads them."""
    catalogue = CatalogueRecords(mirror.storage / "catalogue.db", Clock())
    try:
        found = await catalogue.images("", 1000)
    finally:
        await catalogue.close()
    return {str(e.reference): e for e in found if isinstance(e.reference.reference, str)}


async def tells(mirror: Mirror, right: Callable[[Mapping[str, ImageEntry]], bool]) -> None:
    async def is_right() -> bool:
        return right(await images(mirror))

    await eventually(is_right, 30)


def pulled(name: str, count: int) -> Callable[[Mapping[str, ImageEntry]], bool]:
    """Whether this image is here, whole, and was pulled so often."""

    def is_right(found: Mapping[str, ImageEntry]) -> bool:
        image = found.get(name)
        return image is not None and (image.pulls, image.missing) == (count, ())

    return is_right


async def pull(house: House, mirror: Mirror, tag: str, layer: bytes) -> None:
    manifest = house.hub.add_image("library/redis", tag, layer)
    await pull_again(mirror, tag, manifest)


async def pull_again(mirror: Mirror, tag: str, manifest: str) -> None:
    answer = await mirror.manifest(tag)
    assert answer.is_whole(manifest)
    needs = json.loads(answer.body)
    for blob in (*needs["layers"], needs["config"]):
        assert (await mirror.blob(blob["digest"])).is_whole(blob["digest"])


REDIS_7 = "docker.io/library/redis:7"


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_was_pulled_is_in_the_catalogue_with_its_count(
    house: House, workers: int
) -> None:
    mirror = await house.mirror(workers=workers)
    manifest = house.hub.add_image("library/redis", "7", os.urandom(MIB))
    for _ in range(20):  # of any worker
        await pull_again(mirror, "7", manifest)
    await tells(mirror, pulled(REDIS_7, 20))
    image = (await images(mirror))[REDIS_7]
    assert image.size > MIB
    assert image.used_at > 0


async def test_what_was_evicted_is_gone_from_it(house: House) -> None:
    mirror = await house.mirror(storage={"max_size": "8MiB"})
    await pull(house, mirror, "7", os.urandom(3 * MIB))
    await tells(mirror, pulled(REDIS_7, 1))
    for number in range(3):
        await pull(house, mirror, f"other{number}", os.urandom(3 * MIB))
    await tells(mirror, lambda found: bool(found[REDIS_7].missing))
    await tells(mirror, pulled("docker.io/library/redis:other2", 1))


@pytest.mark.parametrize("workers", [1, 2])
async def test_after_a_kill_it_is_right_again(house: House, workers: int) -> None:
    mirror = await house.mirror(workers=workers)
    await pull(house, mirror, "7", os.urandom(MIB))
    mirror.kill()  # before anything was noted, or just then
    for path in mirror.blobs():
        if path.stat().st_size >= MIB:
            path.unlink()
            break
    await mirror.start()
    await tells(mirror, lambda found: REDIS_7 in found and len(found[REDIS_7].missing) == 1)
    await eventually(lambda: bool(mirror.events("catalogue_rebuilt")), 30)


async def test_a_worker_that_is_killed_leaves_no_gap(house: House) -> None:
    mirror = await house.mirror(workers=2)
    manifest = house.hub.add_image("library/redis", "7", os.urandom(MIB))
    await pull_again(mirror, "7", manifest)
    before = len(mirror.events("catalogue_rebuilt"))
    for event in mirror.events("worker_started"):
        os.kill(event["pid"], 9)
    await eventually(lambda: len(mirror.events("catalogue_rebuilt")) > before, 60)
    await tells(mirror, lambda found: REDIS_7 in found and not found[REDIS_7].missing)


async def test_after_a_clean_end_nothing_is_built_anew(house: House) -> None:
    mirror = await house.mirror()
    await eventually(lambda: bool(mirror.events("catalogue_rebuilt")), 30)  # it was new
    await pull(house, mirror, "7", b"layer")
    assert await mirror.stop() == 0
    await tells(mirror, pulled(REDIS_7, 1))
    await mirror.start()
    await pull(house, mirror, "8", b"layer")
    await tells(mirror, pulled("docker.io/library/redis:8", 1))
    assert len(mirror.events("catalogue_rebuilt")) == 1


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


async def test_a_damaged_catalogue_is_begun_anew_and_fails_no_pull(house: House) -> None:
    mirror = await house.mirror()
    await pull(house, mirror, "7", os.urandom(MIB))
    await tells(mirror, pulled(REDIS_7, 1))
    for name in ("catalogue.db", "catalogue.db-wal"):  # while it is used
        damage(mirror.storage / name)
    await pull(house, mirror, "8", os.urandom(MIB))
    await eventually(lambda: (mirror.storage / "catalogue.db.aside").exists(), 30)
    await tells(mirror, lambda found: {REDIS_7, REDIS_7[:-1] + "8"} <= found.keys())
    assert await mirror.stop() == 0
    damage(mirror.storage / "catalogue.db")  # and while it is not
    await mirror.start()
    await pull(house, mirror, "9", b"layer")
    await tells(mirror, lambda found: {REDIS_7, REDIS_7[:-1] + "9"} <= found.keys())
