"""A disk that takes no more: it is full, has no inodes, or cannot be written. Clients get their
bytes; nothing half-written stays; and when there is room again, content is kept again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ...waiting import eventually
from ..bodies import MIB, waits
from ..house import House, digest_of
from .clients import all_of, is_kept, reading, waits_unmeasured
from .mounts import Mounts, fill_up, take_inodes

DISK = 24 * MIB


def on(path: Path, **keys: str) -> dict[str, str]:
    return {"path": str(path / "storage"), **keys}


@pytest.mark.parametrize("measured", [True, False], ids=["size known", "size unknown"])
async def test_f31_a_disk_that_fills_in_the_middle(
    mounts: Mounts, house: House, measured: bool
) -> None:
    disk = mounts.tmpfs(DISK)
    data = os.urandom(8 * MIB)
    digest = house.hub.add_blob(data)
    until = asyncio.Event()
    house.hub.fail("blobs", (waits if measured else waits_unmeasured)(data, 2 * MIB, until))
    mirror = await house.mirror(storage=on(disk))
    async with reading(mirror, digest, clients=3) as clients:
        await eventually(lambda: _sizes(mirror.partials()) == [2 * MIB])
        ballast = fill_up(disk)
        until.set()
        assert {digest_of(body) for body in await all_of(*clients)} == {digest}
    assert house.hub.count("blobs", "GET") == 1
    await eventually(lambda: mirror.partials() == [])
    assert mirror.kept() == {}
    assert await mirror.metric("fills_total", result="uncached") == 1
    assert mirror.events("blob_not_stored")
    # The account could not be written either, for a while.
    ballast.unlink()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(house, mirror, digest)
    assert await mirror.metric("cache_entries") == 1


async def test_f31_what_was_used_longest_ago_goes_before_anybody_is_turned_away(
    mounts: Mounts, house: House
) -> None:
    """The disk is smaller than the configuration says."""
    disk = mounts.tmpfs(DISK)
    digests = [house.hub.add_blob(os.urandom(DISK // 3)) for _ in range(5)]
    mirror = await house.mirror(storage=on(disk, max_size="1GiB"))
    for digest in digests:
        assert (await mirror.blob(digest)).is_whole(digest)
        assert await is_kept(house, mirror, digest)
    assert await mirror.metric("fills_total", result="committed") == len(digests)
    assert await mirror.metric("cache_entries") == 2


async def test_f31_what_does_not_fit_at_all_passes_through(mounts: Mounts, house: House) -> None:
    disk = mounts.tmpfs(DISK)
    digest = house.hub.add_blob(os.urandom(DISK + MIB))
    mirror = await house.mirror(storage=on(disk))
    answers = await asyncio.gather(*(mirror.blob(digest) for _ in range(3)))
    assert all(answer.is_whole(digest) for answer in answers)
    assert (mirror.kept(), mirror.partials()) == ({}, [])


@pytest.mark.parametrize("left", [0, 1, 2])
async def test_f32_inodes_run_out(mounts: Mounts, house: House, left: int) -> None:
    """With one left the partial can be made, and the folder for its name not."""
    disk = mounts.tmpfs(DISK, inodes=64)
    small, large = (house.hub.add_blob(os.urandom(size)) for size in (MIB // 8, 3 * MIB))
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(storage=on(disk))
    ballast = take_inodes(disk, leave=left)
    for digest in (small, large):
        assert (await mirror.blob(digest)).is_whole(digest)
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert mirror.partials() == []
    assert mirror.rotten() == []
    for file in ballast.iterdir():
        file.unlink()
    for digest in (small, large):
        assert (await mirror.blob(digest)).is_whole(digest)
        assert await is_kept(house, mirror, digest)


@pytest.mark.parametrize("when", ["before the fill", "in the middle"])
async def test_f32_a_directory_becomes_read_only(
    mounts: Mounts, house: House, tmp_path: Path, when: str
) -> None:
    house.partials = True  # nothing can be removed there
    data = os.urandom(3 * MIB)
    digest, before = house.hub.add_blob(data), house.hub.add_blob(os.urandom(MIB))
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror()
    assert (await mirror.blob(before)).is_whole(before)
    if when == "before the fill":
        mounts.read_only(mirror.storage)
        assert (await mirror.blob(digest)).is_whole(digest)
    else:
        until = asyncio.Event()
        house.hub.fail("blobs", waits(data, 2 * MIB, until))
        asking = asyncio.create_task(mirror.blob(digest))
        await eventually(lambda: _sizes(mirror.partials()) == [2 * MIB])
        mounts.read_only(mirror.storage)
        until.set()
        assert (await asking).is_whole(digest)
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert await is_kept(house, mirror, before)
    log = mirror.words()
    assert "Read-only file system" in log
    mounts.writable_again(mirror.storage)
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(house, mirror, digest)
    await eventually(lambda: mirror.partials() == [])


@pytest.mark.parametrize("words", [("tags", "redis:7"), ("unpin", "redis:7")])
async def test_f32_commands_on_tags_tell_of_a_read_only_store(
    mounts: Mounts, house: House, words: tuple[str, ...]
) -> None:
    house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).status == 200
    await mirror.stop()
    mounts.read_only(mirror.storage)
    argv = [sys.executable, "-m", "mirror", *words, "--config", str(mirror.config)]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert "the user who runs" not in done.stderr
    mounts.writable_again(mirror.storage)


async def test_f32_a_path_that_cannot_be_written_is_told_at_the_start(
    mounts: Mounts, house: House
) -> None:
    disk = mounts.tmpfs(DISK)
    mounts.read_only(disk)
    mirror = house.prepare(storage=on(disk))
    mirror.launch()
    assert await mirror.ended() == 1
    words = mirror.words()
    assert "Traceback" not in words
    assert f"storage.path {disk / 'storage'} cannot be used: Read-only file system" in words


async def test_f32_a_path_that_is_a_file_is_told_at_the_start(house: House, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("precious")
    mirror = house.prepare(storage={"path": str(occupied)})
    mirror.launch()
    assert await mirror.ended() in (1, 2)
    words = mirror.words()
    assert "Traceback" not in words
    assert str(occupied) in words
    assert occupied.read_text() == "precious"


async def test_f32_a_path_that_is_missing_is_made_and_closed_to_others(
    house: House, tmp_path: Path
) -> None:
    digest = house.hub.add_blob(b"layer")
    mirror = await house.mirror(storage={"path": str(tmp_path / "not" / "there" / "yet")})
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(house, mirror, digest)
    for path in (mirror.storage, *mirror.storage.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def _sizes(paths: list[Path]) -> list[int]:
    return [path.stat().st_size for path in paths]
