"""Upkeep: what a crash left is mended, what is old is forgotten, what rots is found."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.ingest_key import IngestKey
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

from .content_contract import content, put
from .test_disk import blob_path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    store = DiskContent(tmp_path / "store", Bounds(1000, block=1), sync=False, events=Events())
    yield store
    await store.close()


@pytest.fixture
def upkeep(store: DiskContent) -> Upkeep:
    return Upkeep(store, UpkeepPolicy(partial_ttl=3600, scrub_speed=1e12))


def partial_path(store: DiskContent, digest: Digest) -> Path:
    return store.root / "partials" / digest.algorithm / digest.hex


def grow_old(path: Path) -> None:
    os.utime(path, (1, 1))


async def test_f34_a_record_without_a_file_goes(store: DiskContent, upkeep: Upkeep) -> None:
    blob_path(store, await put(store, b"lost")).unlink()
    kept = await put(store, b"kept")
    await upkeep.mend()
    assert [entry.digest for entry in await store.page(None, 10)] == [kept]


async def test_f30_a_file_without_a_record_is_proven_and_kept(
    store: DiskContent, upkeep: Upkeep
) -> None:
    for data, name in ((b"sound", Digest.of(b"sound")), (b"rotten", Digest.of(b"fresh"))):
        path = blob_path(store, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    await upkeep.mend()
    assert [entry.digest for entry in await store.page(None, 10)] == [Digest.of(b"sound")]
    assert not blob_path(store, Digest.of(b"fresh")).exists()


async def test_f30_what_is_there_is_not_evicted_for_what_has_gone(
    store: DiskContent, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.storage.disk.upkeep._PAGE", 1)  # as with many pieces
    pieces = sorted(
        (bytes([each]) * 300 for each in b"abcdefgh"), key=lambda data: Digest.of(data).hex
    )
    kept = await put(store, pieces[-2])
    lost = [await put(store, piece) for piece in (pieces[-1], pieces[-3])]
    for digest in lost:
        blob_path(store, digest).unlink()
    new = blob_path(store, Digest.of(pieces[0]))
    new.parent.mkdir(exist_ok=True)
    new.write_bytes(pieces[0])
    await upkeep.mend()
    assert {entry.digest for entry in await store.page(None, 10)} == {kept, Digest.of(pieces[0])}


async def test_f30_a_reservation_without_a_partial_is_given_back(
    store: DiskContent, upkeep: Upkeep
) -> None:
    digest = Digest.of(b"killed")
    partial = await store.partial(digest)
    assert partial is not None
    await partial.announce(600)
    partial_path(store, digest).unlink()
    await upkeep.mend()
    assert store.usage().reserved_bytes == 0


@pytest.mark.parametrize("has_room", [True, False])
async def test_f30_a_partial_without_a_reservation_has_one_again_or_goes(
    store: DiskContent, upkeep: Upkeep, has_room: bool
) -> None:
    digest = Digest.of(b"killed")
    partial = await store.partial(digest)
    assert partial is not None
    await partial.append([b"x" * 600])
    await partial.suspend()
    store.async_index.index.release(IngestKey(digest))
    if not has_room:
        await put(store, b"y" * 500)
    await upkeep.mend()
    assert partial_path(store, digest).exists() is has_room
    assert store.usage().reserved_bytes == (600 if has_room else 0)


async def test_f31_so_is_one_whose_end_a_full_disk_did_not_record(
    store: DiskContent, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = await store.partial(Digest.of(b"given up"))
    assert partial is not None
    await partial.append([b"x" * 600])

    def refuse(coming: object) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(store.async_index.index, "release", refuse)
        await partial.discard()
    assert store.usage().reserved_bytes >= 600
    await upkeep.tidy()
    assert store.usage().reserved_bytes == 0


async def test_quarantine_keeps_the_newest_and_not_more_than_its_share(
    store: DiskContent, upkeep: Upkeep
) -> None:
    quarantine = store.root / "quarantine"
    share = store.space.bounds.max_size // 20
    now = time.time_ns()
    names = [f"old.{now - 40 * 86400 * 10**9}", *(f"x.{now + n}" for n in range(3))]
    for name in names:
        (quarantine / name).write_bytes(bytes(share // 2))
    await upkeep.tidy()
    assert {path.name for path in quarantine.iterdir()} == set(names[2:])


async def test_an_old_partial_is_forgotten(store: DiskContent, upkeep: Upkeep) -> None:
    old, new = Digest.of(b"old"), Digest.of(b"new")
    for digest in (old, new):
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"x" * 100])
        await partial.suspend()
    grow_old(partial_path(store, old))
    await upkeep.tidy()
    assert not partial_path(store, old).exists()
    assert partial_path(store, new).exists()
    assert store.usage().reserved_bytes == 100


async def test_a_partial_that_is_being_written_is_never_forgotten(
    store: DiskContent, upkeep: Upkeep
) -> None:
    digest = Digest.of(b"whole")
    partial = await store.partial(digest)
    assert partial is not None
    await partial.append([b"who"])
    grow_old(partial_path(store, digest))
    await upkeep.tidy()
    await partial.append([b"le"])
    await partial.commit()
    assert await content(store, digest) == b"whole"


async def test_f33_the_scrub_finds_a_flipped_bit_of_any_blob(
    store: DiskContent, upkeep: Upkeep
) -> None:
    rotten, sound = await put(store, b"layer one"), await put(store, b"layer two")
    blob_path(store, rotten).write_bytes(b"layer onE")
    assert dict([found async for found in upkeep.scrub()]) == {rotten: False, sound: True}
    assert await store.open(rotten) is None
    assert await content(store, sound) == b"layer two"
    assert len(list((store.root / "quarantine").iterdir())) == 1


async def test_what_does_not_belong_here_is_left_alone(store: DiskContent, upkeep: Upkeep) -> None:
    stranger = store.root / "partials" / "sha256" / "notes.txt"
    stranger.write_text("mine")
    grow_old(stranger)
    await upkeep.tidy()
    assert stranger.exists()
