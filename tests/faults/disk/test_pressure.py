"""A disk that others fill, and limits that leave no room: what is evicted is what it takes, and
never for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from ...waiting import eventually
from ..bodies import MIB, unmeasured
from ..client import Answer
from ..house import House, Mirror
from .clients import is_kept
from .mounts import Mounts, fill_up, take_inodes, without_reserve

DISK = 40 * MIB
PIECE = MIB // 4


def take_all(disk: Path) -> None:
    """Also what is kept for others."""
    with contextlib.suppress(OSError), (disk / "more").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


async def fill(house: House, mirror: Mirror, count: int, size: int = PIECE) -> list[str]:
    """So many blobs, the oldest first."""
    digests = [house.hub.add_blob(os.urandom(size)) for _ in range(count)]
    for digest in digests:
        assert (await mirror.blob(digest)).is_whole(digest)
    return digests


async def miss(house: House, mirror: Mirror, size: int = PIECE) -> str:
    digest = house.hub.add_blob(os.urandom(size))
    assert (await mirror.blob(digest)).is_whole(digest)
    return digest


@pytest.mark.parametrize(("count", "size"), [(40, PIECE), (190, 8 << 10)])
async def test_f31_a_disk_that_others_filled_costs_no_more_than_the_pull_takes(
    mounts: Mounts, house: House, count: int, size: int
) -> None:
    disk = mounts.tmpfs(DISK)
    mirror = await house.mirror(storage={"path": str(disk / "storage"), "max_size": "30MiB"})
    await fill(house, mirror, count, size)
    fill_up(disk)
    new = await miss(house, mirror, size)
    assert await is_kept(house, mirror, new)
    left = count - (MIB // 2 + 2 * size) // size  # what the records take, and the piece
    assert len(mirror.blobs()) >= left
    assert not mirror.events("index_does_not_take_a_record")
    for _ in range(3):
        assert await is_kept(house, mirror, await miss(house, mirror, size))
    assert len(mirror.blobs()) >= left


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_disk_at_its_floor_keeps_what_many_pull_at_once(
    mounts: Mounts, house: House, workers: int
) -> None:
    """What is written while others evict is not taken for eviction in vain."""
    disk = mounts.tmpfs(DISK)
    mirror = await house.mirror(
        workers=workers, storage={"path": str(disk / "storage"), "min_free": "4MiB"}
    )
    digests = [house.hub.add_blob(os.urandom(PIECE)) for _ in range(600)]
    for begin in range(0, len(digests), 16):
        answers = await asyncio.gather(*map(mirror.blob, digests[begin : begin + 16]))
        assert all(map(Answer.is_whole, answers, digests[begin : begin + 16]))
    assert not mirror.events("blob_not_stored")
    assert not mirror.events("eviction_frees_nothing")


async def test_f31_nothing_is_evicted_for_what_others_keep(mounts: Mounts, house: House) -> None:
    """Each blob has another name, so that its bytes stay where they are when it is evicted."""
    disk = mounts.tmpfs(DISK)
    mirror = await house.mirror(storage={"path": str(disk / "storage"), "max_size": "30MiB"})
    await fill(house, mirror, 40)
    for number, path in enumerate(mirror.blobs()):
        os.link(path, disk / str(number))
    fill_up(disk)
    for _ in range(5):
        await miss(house, mirror)
    assert len(mirror.blobs()) >= 40 - 4
    assert mirror.events("eviction_frees_nothing")
    reasons = {line["reason"] for line in mirror.events("blob_not_stored")}
    assert not [reason for reason in reasons if "pinned" in reason]


async def test_f31_nothing_is_evicted_for_what_is_kept_for_others(
    mounts: Mounts, house: House, tmp_path: Path
) -> None:
    """Of ext4's reserve, what comes free goes to it first: the disk stays full for this mirror, and
    the index can be told nothing of what went."""
    disk = mounts.with_reserve(tmp_path / "image", DISK)
    mirror = await house.mirror(
        storage={"path": str(disk / "storage"), "max_size": "30MiB"}, wrap=without_reserve()
    )
    kept = await fill(house, mirror, 100, 8 << 10)
    fill_up(disk)
    take_all(disk)
    for _ in range(5):
        await miss(house, mirror, 8 << 10)
    assert len(mirror.blobs()) >= 100 - 64
    assert await is_kept(house, mirror, kept[-1])
    assert len(mirror.events("cannot_evict")) <= 1
    reasons = {line["reason"] for line in mirror.events("blob_not_stored")}
    assert not [reason for reason in reasons if "pinned" in reason]


async def test_f31_a_floor_above_the_disk_is_told_at_the_start_and_evicts_nothing(
    house: House, tmp_path: Path
) -> None:
    mirror = await house.mirror(storage={"path": str(tmp_path / "store")})
    kept = await fill(house, mirror, 8)
    assert await mirror.stop() == 0
    floored = await house.mirror(storage={"path": str(tmp_path / "store"), "min_free": "900TiB"})
    [told] = floored.events("storage_is_short_of_room")
    assert told["level"] == "error"
    assert "min_free" in told["reason"]
    new = await miss(house, floored)
    assert not await is_kept(house, floored, new)
    for digest in kept:
        assert await is_kept(house, floored, digest)
    assert not floored.events("evicted")


@pytest.mark.parametrize("size", [PIECE, 20 * MIB], ids=["small", "large"])
async def test_f32_where_no_file_can_be_made_something_old_goes(
    mounts: Mounts, house: House, size: int
) -> None:
    disk = mounts.tmpfs(2 * DISK, inodes=200)
    mirror = await house.mirror(storage={"path": str(disk / "storage")})
    old = await fill(house, mirror, 40, 8 << 10)
    take_inodes(disk)
    new = await miss(house, mirror, size)
    assert await is_kept(house, mirror, new)
    assert len(mirror.blobs()) >= 20
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert await is_kept(house, mirror, old[-1])


async def test_a_lowered_limit_holds_up_no_pull(house: House, tmp_path: Path) -> None:
    """A pull makes room for itself; the rest goes behind."""
    path = str(tmp_path / "store")
    mirror = await house.mirror(storage={"path": path})
    await fill(house, mirror, 60)
    assert await mirror.stop() == 0
    lowered = house.prepare(storage={"path": path, "max_size": "6MiB"}, module=BUSY)
    await lowered.start()
    [told] = lowered.events("storage_is_short_of_room")
    assert "max_size" in told["reason"]
    asking = [asyncio.create_task(miss(house, lowered)) for _ in range(4)]
    new = await asyncio.wait_for(asyncio.gather(*asking), 10)
    for digest in new:
        assert await is_kept(house, lowered, digest)
    assert len(lowered.blobs()) >= 40  # all that was too much has not gone for them


async def test_the_excess_of_a_lowered_limit_goes_behind(house: House, tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    mirror = await house.mirror(storage={"path": path})
    kept = await fill(house, mirror, 60)
    assert await mirror.stop() == 0
    lowered = await house.mirror(storage={"path": path, "max_size": "6MiB"})
    await eventually(lambda: _holds_at_most(lowered, 6 * MIB))
    assert len(lowered.blobs()) <= 24
    assert await is_kept(house, lowered, kept[-1])


async def test_small_pieces_count_for_what_they_take(house: House) -> None:
    mirror = await house.mirror(storage={"max_size": "1MiB"})
    await fill(house, mirror, 300, 100)
    taken = sum(path.stat().st_blocks * 512 for path in mirror.blobs())
    assert taken <= MIB
    assert await mirror.metric("cache_bytes") == taken


BUSY = "tests.faults.disk.without_upkeep"


async def _holds_at_most(mirror: Mirror, size: int) -> bool:
    return await mirror.metric("cache_bytes") <= size


@pytest.mark.parametrize("size", [20 * MIB, 90 * MIB], ids=["in one", "in parts"])
@pytest.mark.parametrize("measured", [True, False], ids=["size known", "size unknown"])
async def test_f31_what_is_longer_than_a_file_may_be_passes_through(
    house: House, size: int, measured: bool
) -> None:
    """`ulimit -f`, systemd's LimitFSIZE."""
    mirror = await house.mirror(wrap=("prlimit", f"--fsize={10 * MIB}", "--"))
    small = house.hub.add_blob(b"small")
    assert (await mirror.blob(small)).is_whole(small)
    assert await is_kept(house, mirror, small)
    data = os.urandom(size)
    digest = house.hub.add_blob(data)
    if not measured:
        house.hub.fail("blobs", unmeasured(data), times=1)
    assert (await mirror.blob(digest)).is_whole(digest)
    assert mirror.partials() == []
    # And nothing goes for it.
    assert [path.name for path in mirror.blobs()] == [small.partition(":")[2]]
    part = await mirror.blob(digest, {"Range": f"bytes={size - 100}-"})
    assert part.status == 206
    assert part.body == data[-100:]
    assert await is_kept(house, mirror, await miss(house, mirror, MIB))


@pytest.mark.parametrize("size", [100_000, 20 * MIB, 90 * MIB])
@pytest.mark.parametrize("limit", [64 << 10, 3 * MIB])
async def test_f31_where_hardly_any_file_can_be_written_all_passes_through(
    house: House, size: int, limit: int
) -> None:
    mirror = await house.mirror(wrap=("prlimit", f"--fsize={limit}", "--"))
    data = os.urandom(size)
    digest = house.hub.add_blob(data)
    manifest = house.hub.add_image("library/redis", "7", data)
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert (await mirror.blob(digest)).is_whole(digest)
    part = await mirror.blob(digest, {"Range": f"bytes={size - 100}-"})
    assert part.status == 206
    assert part.body == data[-100:]
    house.hub.fail("blobs", unmeasured(data), times=1)
    assert (await mirror.blob(digest)).is_whole(digest)
