"""How a partial is proven, and who sees it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.contracts.content import WriterState
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk import proof_marks
from mirror.storage.disk.partial import DiskPartial
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.sparse_spans import SparseSpans
from mirror.storage.disk.store import DiskContent

DATA = os.urandom(300_000)
DIGEST = Digest.of(DATA)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    store = DiskContent(tmp_path / "store", Bounds(1 << 30), events=Events())
    yield store
    await store.close()


@pytest.fixture
async def partial(store: DiskContent) -> DiskPartial:
    """All bytes are there. They came out of their order."""
    partial = await store.partial(DIGEST)
    assert partial is not None
    await partial.place(200_000, [DATA[200_000:]])
    await partial.place(0, [DATA[:200_000]])
    return partial


def test_a_lock_of_the_whole_file_is_no_proof(tmp_path: Path) -> None:
    """NFS makes such a one of flock, and shows it to other processes."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with path.open("r+b") as written, path.open("rb") as read:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(written, fcntl.F_OFD_SETLK, lock)
        assert not proof_marks.is_shown(read.fileno())
    with path.open("r+b") as written, path.open("rb") as read:
        proof_marks.show(written.fileno())
        assert proof_marks.is_shown(read.fileno())


async def test_who_is_stopped_while_it_is_proven_waits_for_the_thread(
    store: DiskContent, partial: DiskPartial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That closes its files next, and the thread would have those of another."""
    begun, goes_on, show = threading.Event(), threading.Event(), proof_marks.show

    def late(fd: int) -> None:
        begun.set()
        assert goes_on.wait(10)
        show(fd)

    monkeypatch.setattr(proof_marks, "show", late)
    proving = asyncio.create_task(partial.prove())
    await asyncio.to_thread(begun.wait)
    for _ in range(2):
        proving.cancel()
        await asyncio.sleep(0.01)
    assert not proving.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await proving
    await partial.suspend()
    followed = await store.follow(DIGEST)
    assert followed is not None
    assert followed.state() is WriterState.WRITING
    followed.close()


async def test_what_is_proven_is_so_though_its_note_stays(
    store: DiskContent, partial: DiskPartial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(spans: SparseSpans) -> None:
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patched:
        patched.setattr(SparseSpans, "end", fails)
        await partial.prove()
    await partial.commit()
    assert await store.read(DIGEST, len(DATA)) == DATA


async def test_what_a_full_disk_has_lost_is_not_synced_once_more(
    store: DiskContent, partial: DiskPartial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says of the second time that all is there."""
    faults = [OSError(errno.ENOSPC, "full")]

    def sync(fd: int) -> None:
        if faults:
            raise faults.pop()

    await store.put(Digest.of(b"old" * 30_000), b"old" * 30_000)  # which would make room
    monkeypatch.setattr(os, "fdatasync", sync)
    with pytest.raises(OSError, match="synced"):
        await partial.commit()
    await partial.discard()
    assert await store.read(DIGEST, len(DATA)) is None
