"""The store on disk: the contract, and what a disk does to it."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy
from mirror.storage.disk.ingest_key import IngestKey
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.sparse_spans import note_of
from mirror.storage.disk.store import DiskContent, StorageUnusable

from ..fakes import HandClock
from .content_contract import ContentContract, content, put


@pytest.fixture
def wall() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(tmp_path: Path, wall: HandClock) -> AsyncIterator[DiskContent]:
    store = DiskContent(
        tmp_path / "store", Bounds(1000, block=1), clock=Clock(wall=wall), events=Events()
    )
    yield store
    await store.close()


def blob_path(store: DiskContent, digest: Digest) -> Path:
    return store.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex


class TestContract(ContentContract):
    pass


async def test_content_survives_a_restart(tmp_path: Path) -> None:
    first = DiskContent(tmp_path, Bounds(1000, block=1), events=Events())
    digest = await put(first, b"kept")
    await first.close()
    second = DiskContent(tmp_path, Bounds(1000, block=1), events=Events())
    assert await content(second, digest) == b"kept"
    await second.close()


async def test_content_survives_the_loss_of_its_index(tmp_path: Path) -> None:
    first = DiskContent(tmp_path, Bounds(1000, block=1), events=Events())
    digest = await put(first, b"kept")
    await first.close()
    for file in tmp_path.glob("index.db*"):
        file.unlink()
    second = DiskContent(tmp_path, Bounds(1000, block=1), events=Events())
    assert await content(second, digest) == b"kept"
    assert second.usage().content_bytes == 4
    await second.close()


async def test_f35_an_index_that_is_garbage_is_set_aside(tmp_path: Path) -> None:
    first = DiskContent(tmp_path, Bounds(1000, block=1), events=Events())
    digest = await put(first, b"kept")
    await first.close()
    (tmp_path / "index.db").write_bytes(b"garbage" * 1000)
    second = DiskContent(tmp_path, Bounds(1000, block=1), events=Events())
    assert await content(second, digest) == b"kept"
    assert (tmp_path / "index.db.aside").exists()
    await second.close()


async def test_a_file_nobody_recorded_is_rehashed_before_it_is_served(store: DiskContent) -> None:
    digest = Digest.of(b"right")
    path = blob_path(store, digest)
    path.parent.mkdir()
    path.write_bytes(b"wrong")
    assert await store.open(digest) is None
    assert len(list((store.root / "quarantine").iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "longer", "symlink", "directory", "fifo"])
async def test_f33_damaged_content_is_a_miss_and_moved_aside(
    store: DiskContent, tmp_path: Path, damage: str
) -> None:
    digest = await put(store, b"content")
    path = blob_path(store, digest)
    (tmp_path / "outside").write_bytes(b"content")
    if damage == "truncated":
        os.truncate(path, 3)
    elif damage == "longer":
        path.write_bytes(b"content and more")
    else:
        path.unlink()
        if damage == "symlink":
            path.symlink_to(tmp_path / "outside")
        elif damage == "directory":
            path.mkdir()
        else:
            os.mkfifo(path)
    assert await store.open(digest) is None
    assert not os.path.lexists(path)
    assert await store.read(digest, limit=100) is None
    await put(store, b"content")
    assert await content(store, digest) == b"content"


async def test_f33_a_flipped_bit_in_a_manifest_is_found_when_it_is_read(store: DiskContent) -> None:
    digest = await put(store, b"manifest")
    blob_path(store, digest).write_bytes(b"manifesT")
    assert await store.read(digest, limit=100) is None
    assert store.usage().entries == 0


async def test_f34_a_file_deleted_under_the_store_is_a_miss(store: DiskContent) -> None:
    digest = await put(store, b"gone")
    blob_path(store, digest).unlink()
    assert await store.open(digest) is None
    await put(store, b"gone")
    assert await content(store, digest) == b"gone"
    assert store.usage().entries == 1


@pytest.mark.parametrize("kind", ["file", "under a file"])
def test_f32_a_path_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path, kind: str) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    path = occupied if kind == "file" else occupied / "store"
    with pytest.raises(StorageUnusable, match=r"occupied.*name a directory"):
        DiskContent(path, Bounds(1000, block=1), events=Events())


async def test_f73_a_link_planted_as_a_partial_is_not_followed(
    store: DiskContent, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    digest = Digest.of(b"x")
    (store.root / "partials" / "sha256" / digest.hex).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        await store.partial(digest)
    assert victim.read_bytes() == b"precious"


async def test_f73_the_store_is_closed_to_others(store: DiskContent) -> None:
    digest = await put(store, b"private")
    for path in (store.root, store.root / "blobs", blob_path(store, digest)):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_the_least_recently_used_goes_first(store: DiskContent, wall: HandClock) -> None:
    old, used, new = [await put(store, bytes([n]) * 300) for n in range(3)]
    wall.now += 60
    file = await store.open(used)
    assert file is not None
    file.close()
    wall.now += 60
    await put(store, b"3" * 500)
    assert await content(store, old) is None
    assert await content(store, new) is None
    assert await content(store, used) is not None
    assert store.usage().content_bytes <= 1000


async def test_an_image_that_is_used_keeps_its_layers(store: DiskContent, wall: HandClock) -> None:
    layer = await put(store, b"l" * 200)
    manifest = await put(store, b"m" * 200, (layer,))
    index = await put(store, b"i" * 100, (manifest,))
    wall.now += 60
    other = await put(store, b"o" * 400)
    wall.now += 60
    store.touch(index)
    wall.now += 60
    await put(store, b"n" * 400)
    assert await content(store, other) is None
    for kept in (index, manifest, layer):
        assert await content(store, kept) is not None


async def test_an_image_goes_before_the_layers_it_needs(
    store: DiskContent, wall: HandClock
) -> None:
    manifest = Digest.of(b"m" * 100)
    layers = (Digest.of(b"1" * 300), Digest.of(b"2" * 300))
    index = await put(store, b"i" * 100, (manifest,))
    await put(store, b"m" * 100, layers)
    for n in (b"1", b"2"):
        await put(store, n * 300)
    wall.now += 1
    store.touch(index)
    wall.now += 60
    await put(store, b"n" * 250)
    assert await content(store, index) is None
    assert store.usage().content_bytes <= 1000


async def test_no_descriptor_is_left_behind(store: DiskContent) -> None:
    await content(store, await put(store, b"by now the database has opened its files"))
    before = len(os.listdir("/proc/self/fd"))
    digest = await put(store, b"a")
    await content(store, digest)
    partial = await store.partial(Digest.of(b"b"))
    assert partial is not None
    await partial.suspend()
    await store.delete(digest)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_another_process_reads_what_the_registry_sent_ahead(
    store: DiskContent, tmp_path: Path
) -> None:
    digest = Digest.of(b"0123456789")
    partial = await store.partial(digest, "docker.io")
    assert partial is not None
    other = DiskContent(tmp_path / "store", Bounds(1000, block=1), events=Events())
    await partial.append([b"01"])
    followed = await other.follow(digest, "docker.io")
    assert followed is not None
    assert (list(followed.vouched_ahead()), followed.written()) == ([], 2)
    await partial.place(6, [b"67"], vouched=True)
    await partial.place(4, [b"4"], vouched=True)
    assert (list(followed.vouched_ahead()), followed.written()) == ([(4, 5), (6, 8)], 2)
    file = followed.open()
    assert file.pread(2, 6) == b"67"
    file.close()
    await partial.place(9, [b"9"])
    assert list(followed.vouched_ahead()) == [(4, 5), (6, 8)]
    await partial.append([b"23"])
    assert (list(followed.vouched_ahead()), followed.written()) == ([(6, 8)], 5)
    await partial.append([b"5"])
    assert (list(followed.vouched_ahead()), followed.written()) == ([], 8)
    await partial.append([b"8"])
    await partial.commit()
    assert (list(followed.vouched_ahead()), followed.written()) == ([], 10)
    followed.close()
    await other.close()


async def test_without_a_descriptor_for_the_note_no_hole_is_read_or_hashed(
    store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(b"0123456789")
    partial = await store.partial(digest)
    assert partial is not None
    await partial.append([b"01"])
    followed = await store.follow(digest, "")
    assert followed is not None
    await partial.place(6, [b"67"], vouched=True)
    opens = os.open

    def none_left(path: object, *more: object, **named: object) -> int:
        if str(path).endswith(".ahead"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opens(path, *more, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("mirror.storage.disk.sparse_spans.os.open", none_left)
        assert (followed.written(), list(followed.vouched_ahead())) == (0, [])
        await partial.suspend()
        with pytest.raises(OSError, match="Too many"):
            await store.partial(digest)
    followed.close()


async def test_what_a_killed_writer_placed_ahead_is_there_for_the_next(
    store: DiskContent, tmp_path: Path
) -> None:
    digest = Digest.of(b"0123456789")
    partial = await store.partial(digest, "docker.io")
    assert partial is not None
    await partial.append([b"01"])
    await partial.place(6, [b"67"])
    path = store.ingest.path(IngestKey.of(digest, "docker.io"))
    for name in (path, note_of(path)):  # as they stand when it is killed
        (tmp_path / name.name).write_bytes(name.read_bytes())
    await partial.discard()
    for name in (path, note_of(path)):
        (tmp_path / name.name).rename(name)
    resumed = await store.partial(digest, "docker.io")
    assert resumed is not None
    assert (resumed.offset, list(resumed.ahead)) == (2, [(6, 8)])
    await resumed.append([b"2345"])
    await resumed.append([b"89"])
    await resumed.commit()
    assert await content(store, digest) == b"0123456789"


async def test_a_damaged_note_of_what_is_ahead_costs_what_was_ahead(
    store: DiskContent, tmp_path: Path
) -> None:
    digest = Digest.of(b"0123456789")
    partial = await store.partial(digest)
    assert partial is not None
    await partial.append([b"01"])
    await partial.place(6, [b"67"])
    await partial.suspend()
    note = note_of(store.ingest.path(IngestKey(digest)))
    data = note.read_bytes()
    note.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    resumed = await store.partial(digest)
    assert resumed is not None
    assert (resumed.offset, list(resumed.ahead)) == (0, [])
    await resumed.append([b"0123456789"])
    await resumed.commit()
    assert await content(store, digest) == b"0123456789"


@pytest.mark.parametrize("sound", [True, False])
async def test_f01_what_comes_in_large_batches_is_proven(tmp_path: Path, sound: bool) -> None:
    """Some of it before its turn, and with the hash taken in between, as where the disk is full."""
    store = DiskContent(tmp_path / "store", Bounds(100 << 20), events=Events())
    pieces = [bytes([number]) * (1 << 20) for number in range(20)]
    digest = Digest.of(b"".join(pieces))
    partial = await store.partial(digest)
    assert partial is not None
    await partial.place(12 << 20, pieces[12:13])
    await partial.place(0, pieces[:6])
    await partial.place(6 << 20, pieces[6:12])
    assert partial.offset == 13 << 20
    assert partial.hasher().hexdigest() == Digest.of(b"".join(pieces[:13])).hex
    await partial.place(13 << 20, [*pieces[13:19], pieces[19] if sound else pieces[0]])
    if sound:
        await partial.commit()
        assert await content(store, digest) == b"".join(pieces)
    else:
        with pytest.raises(Untrustworthy):
            await partial.commit()
        assert await store.open(digest) is None
    await store.close()
