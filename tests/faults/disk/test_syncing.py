"""Clients wait for the proof of a blob, and not for the disk that keeps it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.contracts.events import ContentCommitted, FillEnded
from mirror.contracts.registry import Outcome
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.ranges import ByteRange
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills import table
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ...fakes import CONTEXT, REDIS, FakeTags, FakeUpstream, Recorder
from ...pullthrough.test_fills import Hold, read_all
from ...storage.content_contract import content
from ...waiting import eventually
from ..nursery import Forked
from .hanging import BLOB

DIGEST = Digest.of(BLOB)


class Worker:
    """One process' worth of a mirror, with a store that syncs."""

    def __init__(self, root: Path, upstream: FakeUpstream) -> None:
        self.store = DiskContent(root, Bounds(1 << 30), events=Events())
        self.told = Recorder()
        patience = DownloadPatience(first_byte=5, stalled=5, pause=0.01)
        self.fills = Fills(self.store, self.told, patience=patience)
        self.cache = PullThrough(upstream, Shared.over(self.store, FakeTags(), self.fills))

    async def read(self) -> bytes:
        async with asyncio.timeout(10):
            return await read_all(await self.cache.blob(CONTEXT, REDIS, DIGEST))

    async def close(self) -> None:
        await self.fills.close()
        await self.cache.close()
        await self.store.close()


class Disk:
    """Syncs when it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._go = threading.Event()
        self.fault: OSError | None = None
        self.syncs = 0
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def go_on(self, fault: OSError | None = None) -> None:
        self.fault = fault
        self._go.set()

    def _sync(self, fd: int) -> None:
        self.syncs += 1
        assert self._go.wait(30)
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.blobs[DIGEST] = BLOB
    return upstream


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
async def workers(
    tmp_path: Path, upstream: FakeUpstream, disk: Disk
) -> AsyncIterator[tuple[Worker, Worker]]:
    """Of one store."""
    pair = Worker(tmp_path / "store", upstream), Worker(tmp_path / "store", upstream)
    yield pair
    disk.go_on()
    for worker in pair:
        await worker.close()


async def test_f30_clients_have_all_of_a_proven_blob_while_the_disk_syncs(
    workers: tuple[Worker, Worker], upstream: FakeUpstream, disk: Disk
) -> None:
    writer, follower = workers
    hold = Hold(upstream, at=len(BLOB) // 2)
    first = await writer.cache.blob(CONTEXT, REDIS, DIGEST)
    await hold.reached.wait()
    second = await follower.cache.blob(CONTEXT, REDIS, DIGEST)
    hold.go.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(read_all(first), read_all(second)) == [BLOB, BLOB]
    # What is not on the disk is not in the store; who asks for it now joins all the same.
    for worker in workers:
        assert await content(worker.store, DIGEST) is None
        joining = await worker.cache.blob(CONTEXT, REDIS, DIGEST)
        assert joining.outcome is Outcome.JOINED
        assert await read_all(joining) == BLOB
        part = await worker.cache.blob(CONTEXT, REDIS, DIGEST, ByteRange(len(BLOB) - 7))
        assert await part.readable(len(BLOB) - 7) == len(BLOB)
        part.close()
    disk.go_on()
    await eventually(lambda: writer.told.of(ContentCommitted))
    await eventually(lambda: not follower.fills.under_way)
    hit = await writer.cache.blob(CONTEXT, REDIS, DIGEST)
    assert hit.outcome is Outcome.HIT
    assert await read_all(hit) == BLOB
    assert (upstream.asked["blob"], disk.syncs) == (1, 1)
    assert follower.told.of(ContentCommitted) == []


async def test_f01_wrong_bytes_end_with_an_error_and_meet_no_sync(
    workers: tuple[Worker, Worker], upstream: FakeUpstream, disk: Disk
) -> None:
    writer, follower = workers
    upstream.corrupt = True
    hold = Hold(upstream, at=len(BLOB))
    first = await writer.cache.blob(CONTEXT, REDIS, DIGEST)
    await hold.reached.wait()
    second = await follower.cache.blob(CONTEXT, REDIS, DIGEST)
    hold.go.set()
    for reader in (first, second):
        with pytest.raises(RegistryError):
            await read_all(reader)
    assert disk.syncs == 0


async def test_f32_a_sync_that_fails_takes_nothing_from_those_who_read(
    workers: tuple[Worker, Worker], upstream: FakeUpstream, disk: Disk
) -> None:
    writer, follower = workers
    first = await writer.cache.blob(CONTEXT, REDIS, DIGEST)
    await first.readable(len(BLOB) - 1)
    second = await follower.cache.blob(CONTEXT, REDIS, DIGEST)
    disk.go_on(OSError(errno.EIO, "the disk is broken"))
    await eventually(lambda: not writer.fills.under_way and not follower.fills.under_way)
    assert await asyncio.gather(read_all(first), read_all(second)) == [BLOB, BLOB]
    assert await content(writer.store, DIGEST) is None
    assert writer.store.usage().reserved_bytes == 0
    disk.fault = None
    assert await writer.read() == BLOB
    await eventually(lambda: not writer.fills.under_way)
    assert await content(writer.store, DIGEST) == BLOB
    assert upstream.asked["blob"] == 2


async def test_what_comes_does_not_wait_for_the_syncs_of_what_has_come(
    workers: tuple[Worker, Worker], upstream: FakeUpstream, disk: Disk
) -> None:
    worker, _ = workers
    for number in range(6):
        blob = bytes([number]) + BLOB
        upstream.blobs[Digest.of(blob)] = blob
        async with asyncio.timeout(10):
            assert await read_all(await worker.cache.blob(CONTEXT, REDIS, Digest.of(blob))) == blob


async def test_f30_killed_between_the_proof_and_the_sync(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    log.write_text("")
    writer = Forked("tests.faults.disk.hanging", [str(root)], log, {})
    await eventually(lambda: "proven" in log.read_text())
    upstream = FakeUpstream()
    worker = Worker(root, upstream)
    assert await worker.read() == BLOB  # along with the other process
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait(10) == -signal.SIGKILL, log.read_text()
    await eventually(lambda: not worker.fills.under_way)
    assert await content(worker.store, DIGEST) is None
    assert await worker.read() == BLOB  # what is left is proven again
    await eventually(lambda: not worker.fills.under_way)
    assert await content(worker.store, DIGEST) == BLOB
    assert upstream.asked["blob"] == 0
    await worker.close()


async def test_who_reads_along_without_descriptors_has_what_is_proven(
    workers: tuple[Worker, Worker],
    upstream: FakeUpstream,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer, follower = workers
    get = follower.store.partial

    async def fails(digest: Digest, source: str = "") -> object:
        if any(fill.is_proven for fill in follower.fills.under_way):
            raise OSError(errno.EMFILE, "too many")
        return await get(digest, source)

    monkeypatch.setattr(follower.store, "partial", fails)
    hold = Hold(upstream, at=len(BLOB) // 2)
    first = await writer.cache.blob(CONTEXT, REDIS, DIGEST)
    await hold.reached.wait()
    second = await follower.cache.blob(CONTEXT, REDIS, DIGEST)
    hold.go.set()
    assert await asyncio.gather(read_all(first), read_all(second)) == [BLOB, BLOB]
    await eventually(lambda: not follower.fills.under_way)
    await eventually(lambda: bool(follower.told.of(FillEnded)))
    assert [each.result for each in follower.told.of(FillEnded)] == ["followed"]


async def test_where_many_wait_for_the_disk_the_next_waits_with_its_clients(
    tmp_path: Path, upstream: FakeUpstream, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them has its files open."""
    monkeypatch.setattr(table, "_MOST_PROVEN", 2)
    worker = Worker(tmp_path / "store", upstream)
    reads = []
    for number in range(3):
        blob = BLOB + bytes([number])
        upstream.blobs[Digest.of(blob)] = blob
        reader = await worker.cache.blob(CONTEXT, REDIS, Digest.of(blob))
        reads.append(asyncio.create_task(read_all(reader)))
        if number < 2:
            assert await reads[-1] == blob
    await asyncio.sleep(0.1)
    assert not reads[-1].done()
    disk.go_on()
    assert await reads[-1] == BLOB + bytes([2])
    await worker.close()
