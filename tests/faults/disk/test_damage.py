"""Content, files and databases that are not what they were: found, set aside, and filled anew."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.storage.disk.ingest_key import IngestKey

from ...e2e.programs import needs, run
from ...waiting import eventually
from ..bodies import MIB, waits
from ..house import House, Mirror
from .clients import all_of, is_kept, reading
from .mounts import Mounts


def path_of(mirror: Mirror, digest: str) -> Path:
    algorithm, _, name = digest.partition(":")
    return mirror.storage / "blobs" / algorithm / name[:2] / name


def partial_of(mirror: Mirror, digest: str) -> Path:
    coming = IngestKey.of(Digest.parse(digest), "docker.io")
    return mirror.storage / "partials" / coming.digest.algorithm / coming.name


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _link(path: Path) -> None:
    """To a file outside that has the same size."""
    outside = path.parents[4] / f"outside-{path.name}"
    outside.write_bytes(bytes(path.stat().st_size))
    path.unlink()
    path.symlink_to(outside)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: list[Callable[[Path], None]] = [_truncate, _empty, _lengthen, _link, _folder, _pipe]


async def test_f33_damage_that_shows_is_found_at_open_and_filled_anew(house: House) -> None:
    digests = [house.hub.add_blob(os.urandom(MIB)) for _ in DAMAGES]
    mirror = await house.mirror()
    for digest, damage in zip(digests, DAMAGES, strict=True):
        assert (await mirror.blob(digest)).is_whole(digest)
        damage(path_of(mirror, digest))
        assert (await mirror.blob(digest)).is_whole(digest), damage.__name__
        assert await is_kept(house, mirror, digest), damage.__name__
    assert await mirror.metric("content_rotten_total") == len(DAMAGES)
    assert len(list((mirror.storage / "quarantine").iterdir())) == len(DAMAGES)
    assert await mirror.metric("cache_entries") == len(DAMAGES)


async def test_f33_damage_that_does_not_show_is_found_by_the_scrub(house: House) -> None:
    digests = [house.hub.add_blob(os.urandom(MIB)) for _ in range(3)]
    mirror = await house.mirror(storage={"scrub": "1s"})
    for digest in digests:
        assert (await mirror.blob(digest)).is_whole(digest)
    rotten = path_of(mirror, digests[1])
    with rotten.open("r+b") as file:
        file.write(bytes([file.read(1)[0] ^ 1]))
    await eventually(lambda: not rotten.exists(), 30)
    assert await mirror.metric("content_rotten_total") == 1
    asked = house.hub.count("blobs", "GET")
    for digest in digests:
        assert (await mirror.blob(digest)).is_whole(digest)
    assert house.hub.count("blobs", "GET") == asked + 1


async def test_f34_what_is_deleted_under_the_mirror_is_a_miss(house: House) -> None:
    layers = [house.hub.add_blob(os.urandom(MIB)) for _ in range(2)]
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror()

    async def all_are_right() -> None:
        assert (await mirror.manifest("7")).is_whole(manifest)
        for digest in layers:
            assert (await mirror.blob(digest)).is_whole(digest)
            assert await is_kept(house, mirror, digest)

    await all_are_right()
    path_of(mirror, layers[0]).unlink()
    await all_are_right()
    shutil.rmtree(path_of(mirror, layers[0]).parent)
    await all_are_right()
    shutil.rmtree(mirror.storage / "blobs")
    await all_are_right()
    assert await mirror.metric("cache_entries") == 3


async def test_f34_a_partial_that_is_deleted_while_it_is_written(house: House) -> None:
    data = os.urandom(3 * MIB)
    digest = house.hub.add_blob(data)
    until = asyncio.Event()
    house.hub.fail("blobs", waits(data, 2 * MIB, until))
    mirror = await house.mirror()
    async with reading(mirror, digest, clients=2) as clients:
        await eventually(lambda: _size(partial_of(mirror, digest)) == 2 * MIB)
        partial_of(mirror, digest).unlink()
        until.set()
        assert await all_of(*clients) == [data, data]
    await eventually(lambda: mirror.events("blob_not_stored"))
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(house, mirror, digest)


async def test_f34_all_of_the_store_is_deleted(house: House) -> None:
    """What can be made again is; the rest is told, and pulls go on."""
    digest = house.hub.add_blob(os.urandom(3 * MIB))
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert (await mirror.manifest("7")).is_whole(manifest)
    shutil.rmtree(mirror.storage)
    for _ in range(2):
        assert (await mirror.blob(digest)).is_whole(digest)
        assert (await mirror.manifest("7")).is_whole(manifest)
    assert await mirror.stop() == 0
    await mirror.start()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(house, mirror, digest)


def _garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 5000)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _half(path: Path) -> None:
    """Damaged behind its first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize("damage", [_garbage, _half, _newer])
async def test_f35_databases_of_no_use_are_set_aside_and_the_content_is_kept(
    house: House, damage: Callable[[Path], None]
) -> None:
    digest = house.hub.add_blob(os.urandom(MIB))
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert (await mirror.manifest("7")).is_whole(manifest)
    await mirror.stop()
    for name in ("index.db", "tags.db"):
        damage(mirror.storage / name)
    await mirror.start()
    assert await is_kept(house, mirror, digest)
    asked = house.hub.count("registry", path="/manifests/")
    assert (await mirror.manifest(manifest)).is_whole(manifest)
    assert house.hub.count("registry", path="/manifests/") == asked, "only the tag was forgotten"
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert await mirror.metric("cache_entries") == 2
    aside = {path.name for path in mirror.storage.glob("*.aside")}
    assert aside == {"index.db.aside", "tags.db.aside"}
    assert len(mirror.events("database_set_aside")) == 2


async def test_f35_databases_that_are_damaged_while_the_mirror_runs(house: House) -> None:
    digests = [house.hub.add_blob(os.urandom(3 * MIB)) for _ in range(3)]
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(
        storage={"max_size": "8MiB"}, docker_io={"freshness": {"ttl": "1ms"}}
    )
    assert (await mirror.blob(digests[0])).is_whole(digests[0])
    assert (await mirror.manifest("7")).is_whole(manifest)
    for name in ("index.db", "index.db-wal", "tags.db", "tags.db-wal"):
        with (mirror.storage / name).open("r+b") as file:
            file.write(os.urandom(os.fstat(file.fileno()).st_size))
    for digest in (*digests, *digests):  # more than fits: it has to evict
        assert (await mirror.blob(digest)).is_whole(digest)
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert await is_kept(house, mirror, digests[-1])
    aside = {path.name for path in mirror.storage.glob("*.aside")}
    assert aside == {"index.db.aside", "tags.db.aside"}
    # What is there has a record again: it was asked for.
    await eventually(lambda: sum(path.stat().st_size for path in mirror.blobs()) <= 8 * MIB)
    await mirror.stop()
    await mirror.start()
    for digest in digests:
        assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(house, mirror, digests[-1])


async def test_f35_a_tag_database_that_somebody_locks(house: House) -> None:
    manifest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(docker_io={"freshness": {"ttl": "1ms"}})
    assert (await mirror.manifest("7")).is_whole(manifest)
    db = sqlite3.connect(mirror.storage / "tags.db", isolation_level=None)
    try:
        db.execute("BEGIN EXCLUSIVE")
        assert (await mirror.manifest("7")).is_whole(manifest)  # while it runs
        await mirror.stop()
        await mirror.start()  # and when it starts
        assert (await mirror.manifest("7")).is_whole(manifest)
        assert mirror.events("database_kept_in_memory_only")
    finally:
        db.close()


async def test_f38_a_cached_blob_that_cannot_be_read(
    mounts: Mounts, house: House, tmp_path: Path
) -> None:
    """A real EIO: the file that the file system is in has lost where the blob's middle was."""
    needs("chattr")
    image = tmp_path / "image"
    disk = mounts.loop(image, 64 * MIB)
    data = os.urandom(8 * MIB)
    digest = house.hub.add_blob(data)
    mirror = await house.mirror(storage={"path": str(disk / "storage"), "scrub": "0s"})
    assert (await mirror.blob(digest)).is_whole(digest)
    path = path_of(mirror, digest)
    _lose_from_the_middle(path, data, image)
    try:
        with path.open("rb") as file, pytest.raises(OSError, match=os.strerror(errno.EIO)):
            file.read()
        answer = await mirror.blob(digest)
        assert answer.cut
        assert data.startswith(answer.body)
        await eventually(lambda: not path.exists())
        assert await mirror.metric("content_rotten_total") == 1
        assert (await mirror.blob(digest)).is_whole(digest)
        assert house.hub.count("blobs", "GET") == 2
    finally:
        run("chattr", "-i", image)


def _lose_from_the_middle(path: Path, data: bytes, image: Path) -> None:
    """Takes away what is behind the middle of this file's data, for good."""
    os.sync()
    middle = len(data) // 2
    at = image.read_bytes().index(data[middle : middle + 4096])
    os.truncate(image, at)
    run("chattr", "+i", image)  # else the next write behind would make it whole again, with zeros
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


async def test_f38_a_blob_that_ends_too_soon_under_a_transfer(house: House) -> None:
    data = os.urandom(32 * MIB)  # more than the sockets' buffers hold
    digest = house.hub.add_blob(data)
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    async with mirror.connection() as wire:
        await wire.get(f"/v2/library/redis/blobs/{digest}")
        assert (await wire.head())[0] == 200
        os.truncate(path_of(mirror, digest), 20 * MIB)
        body = await wire.rest()
    assert len(body) < len(data)
    assert data.startswith(body)
    await eventually(lambda: not path_of(mirror, digest).exists())
    assert await mirror.metric("content_rotten_total") == 1
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(house, mirror, digest)


async def test_f73_links_that_are_planted_lead_nowhere(house: House, tmp_path: Path) -> None:
    """In place of a partial, a blob, a folder of blobs, and of the folder that others may write."""
    blobs = [house.hub.add_blob(os.urandom(MIB)) for _ in range(3)]
    mirror = house.prepare()
    victims = [tmp_path / f"victim{number}" for number in range(3)]
    for victim in victims:
        victim.write_bytes(b"precious")
    for folder in ("partials/sha256", "blobs/sha256"):
        (mirror.storage / folder).mkdir(parents=True)
    partial_of(mirror, blobs[0]).symlink_to(victims[0])
    partial_of(mirror, blobs[1]).hardlink_to(victims[1])
    path_of(mirror, blobs[2]).parent.mkdir()
    path_of(mirror, blobs[2]).symlink_to(victims[2])
    mirror.storage.chmod(0o770)
    await mirror.start()
    assert mirror.events("storage_is_writable_by_others")
    for digest in blobs:
        assert (await mirror.blob(digest)).is_whole(digest)
    assert {victim.read_bytes() for victim in victims} == {b"precious"}
    assert await is_kept(house, mirror, blobs[1])
    assert await is_kept(house, mirror, blobs[2])
    partial_of(mirror, blobs[0]).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
