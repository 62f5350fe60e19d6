"""A mirror that is started on a store that takes no writes serves what it holds, passes the rest
through, says so, and keeps content again when the disk allows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ...waiting import eventually
from ..bodies import MIB
from ..house import House, Mirror
from .clients import is_kept
from .mounts import Mounts, fill_up, take_inodes

DISK = 24 * MIB


class Trouble:
    """What happens to a disk before the mirror is started."""

    def __init__(self, mounts: Mounts, disk: Path, kind: str) -> None:
        self._mounts = mounts
        self._disk = disk
        self._kind = kind
        self._ballast: Path | None = None

    def begin(self) -> None:
        if self._kind == "full":
            self._ballast = fill_up(self._disk)
        elif self._kind == "no inodes":
            self._ballast = take_inodes(self._disk)
        else:
            self._mounts.read_only(self._disk)

    def end(self) -> None:
        if self._ballast is None:
            self._mounts.writable_again(self._disk)
        elif self._ballast.is_dir():
            for file in self._ballast.iterdir():
                file.unlink()
        else:
            self._ballast.unlink()


async def stopped(mirror: Mirror) -> None:
    assert await mirror.stop() == 0


async def killed(mirror: Mirror) -> None:
    mirror.kill()


@pytest.mark.parametrize("end", [stopped, killed])
@pytest.mark.parametrize("kind", ["full", "no inodes", "read-only"])
async def test_f32_a_store_that_takes_no_writes_at_the_start(
    mounts: Mounts, house: House, kind: str, end: Callable[[Mirror], object]
) -> None:
    disk = mounts.tmpfs(DISK, inodes=200 if kind == "no inodes" else 0)
    house.partials = True  # nothing can be removed from a read-only disk
    trouble = Trouble(mounts, disk, kind)
    layers = [os.urandom(MIB) for _ in range(3)]
    manifest = house.hub.add_image("library/redis", "7", *layers)
    cached = [house.hub.add_blob(layer) for layer in layers]
    mirror = await house.mirror(
        storage={"path": str(disk / "storage"), "max_size": "20MiB"},
        docker_io={"freshness": {"ttl": "1h"}},
    )
    assert (await mirror.manifest("7")).is_whole(manifest)
    for digest in cached:
        assert (await mirror.blob(digest)).is_whole(digest)
    await eventually(lambda: _is_noted(mirror))
    await end(mirror)  # type: ignore[misc]
    trouble.begin()
    await mirror.start()
    told = mirror.events("store_takes_no_writes") + mirror.events("storage_is_short_of_room")
    assert {line["level"] for line in told} == {"error"}
    house.hub.fail("registry", _fails_test, times=10_000)
    for digest in cached:
        assert await is_kept(house, mirror, digest)
    assert (await mirror.manifest("7")).is_whole(manifest)
    house.hub._faults.clear()
    new = house.hub.add_blob(os.urandom(MIB))
    assert (await mirror.blob(new)).is_whole(new)
    trouble.end()
    await eventually(lambda: _keeps(house, mirror), 30)
    assert (await mirror.manifest("7")).is_whole(manifest)


async def _fails_test(request: object) -> None:
    raise AssertionError("the upstream is asked for what is here")


async def _is_noted(mirror: Mirror) -> bool:
    return await mirror.metric("cache_entries") >= 4


async def _keeps(house: House, mirror: Mirror) -> bool:
    """Whether a blob that nobody has asked for yet is kept."""
    digest = house.hub.add_blob(os.urandom(MIB // 2))
    assert (await mirror.blob(digest)).is_whole(digest)
    return await is_kept(house, mirror, digest)
