"""Fills shared between processes, here played by stores of their own on one directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.contracts.events import ContentCommitted
from mirror.contracts.registry import Outcome
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.fill import SMALL
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.storage.claims import Claims
from mirror.storage.disk.ingest_key import IngestKey
from mirror.storage.disk.partial import DiskPartial
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ..fakes import CONTEXT, FakeTags, FakeUpstream, Recorder
from ..waiting import eventually
from .test_fills import BIG, LITTLE, REDIS, Hold, read_all


class Worker:
    """One process' worth of a mirror."""

    def __init__(self, path: Path, upstream: FakeUpstream) -> None:
        quick = DownloadPatience(first_byte=1, stalled=1, pause=0.01, longest_pause=0.02)
        self.store = DiskContent(path, Bounds(1 << 30), sync=False, events=Events())
        self.told = Recorder()
        self.claims = Claims(path / "claims")
        self.fills = Fills(self.store, self.told, patience=quick, claims=self.claims)
        self.cache = PullThrough(upstream, Shared.over(self.store, FakeTags(), self.fills))

    async def close(self) -> None:
        await self.fills.close()
        await self.cache.close()
        await self.store.close()
        self.claims.close()


@pytest.fixture
async def workers(tmp_path: Path, upstream: FakeUpstream) -> AsyncIterator[tuple[Worker, Worker]]:
    pair = Worker(tmp_path / "store", upstream), Worker(tmp_path / "store", upstream)
    yield pair
    for worker in pair:
        await worker.close()


@pytest.fixture(params=[BIG, LITTLE, b""], ids=["big", "little", "empty"])
def data(request: pytest.FixtureRequest, upstream: FakeUpstream) -> bytes:
    upstream.blobs[Digest.of(request.param)] = request.param
    return request.param


@pytest.mark.parametrize("says_size", [True, False])
async def test_f37_two_processes_download_once(
    workers: tuple[Worker, Worker], upstream: FakeUpstream, data: bytes, says_size: bool
) -> None:
    upstream.says_size = says_size
    digest = Digest.of(data)
    contents = await asyncio.gather(
        *(worker.cache.blob(CONTEXT, REDIS, digest) for worker in workers for _ in range(5))
    )
    assert all(body == data for body in await asyncio.gather(*map(read_all, contents)))
    assert upstream.asked["blob"] == 1
    await eventually(lambda: not any(worker.fills.under_way for worker in workers))
    committed = [each for worker in workers for each in worker.told.of(ContentCommitted)]
    assert [each.digest for each in committed] == [digest]


async def test_a_follower_reads_what_has_come_and_knows_the_size(
    workers: tuple[Worker, Worker], upstream: FakeUpstream
) -> None:
    upstream.blobs[Digest.of(BIG)] = BIG
    writer, follower = workers
    hold = Hold(upstream, at=2 * SMALL)
    first = await writer.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    await hold.reached.wait()
    second = await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    assert second.descriptor.size == len(BIG)
    assert 0 < await second.readable(0) <= 2 * SMALL
    hold.go.set()
    assert await asyncio.gather(read_all(first), read_all(second)) == [BIG, BIG]


async def test_f40_a_follower_takes_over_when_the_writer_stops(
    workers: tuple[Worker, Worker], upstream: FakeUpstream
) -> None:
    upstream.blobs[Digest.of(BIG)] = BIG
    writer, follower = workers
    hold = Hold(upstream, at=2 * SMALL)
    (await writer.cache.blob(CONTEXT, REDIS, Digest.of(BIG))).close()
    await hold.reached.wait()
    content = await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    assert content.outcome is Outcome.FILLED
    await writer.fills.close()
    hold.go.set()
    assert await read_all(content) == BIG
    assert upstream.blob_bytes == len(BIG)


async def test_f01_a_follower_of_wrong_bytes_is_cut_too(
    workers: tuple[Worker, Worker], upstream: FakeUpstream
) -> None:
    upstream.blobs[Digest.of(BIG)] = BIG
    upstream.corrupt = True
    writer, follower = workers
    hold = Hold(upstream, at=len(BIG))
    first = await writer.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    await hold.reached.wait()
    second = await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    assert await second.readable(0) > 0
    hold.go.set()
    for content in (first, second):
        with pytest.raises(Untrustworthy):
            await read_all(content)
    assert await read_all(await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))) == BIG


async def test_f31_a_follower_goes_on_when_the_writer_found_no_room(
    workers: tuple[Worker, Worker], upstream: FakeUpstream
) -> None:
    upstream.blobs[Digest.of(BIG)] = BIG
    writer, follower = workers
    hold = Hold(upstream, at=2 * SMALL)
    first = await writer.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    await hold.reached.wait()
    second = await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    assert await second.readable(0) > 0
    partial = writer.store.ingest.path(IngestKey.of(Digest.of(BIG), REDIS.registry))
    partial.unlink()  # as a writer does that found no room
    hold.go.set()
    assert await read_all(second) == BIG
    first.close()


async def test_a_follower_never_goes_on_in_another_file_than_its_readers_have_read(
    workers: tuple[Worker, Worker], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer finds its bytes wrong, and removes them, in the moment between the follower's look
    at them and its try to get the lock: that is then the lock on a file which is new."""
    upstream.blobs[Digest.of(BIG)] = BIG
    upstream.corrupt = True
    writer, follower = workers
    hold = Hold(upstream, at=len(BIG))
    first = await writer.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    await hold.reached.wait()
    second = await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    read = await second.readable(0)
    begun = second.pread(read, 0)
    assert begun != BIG[:read]
    get_lock = follower.store.partial

    async def loses_the_race(digest: Digest, source: str = "") -> DiskPartial | None:
        hold.go.set()
        with pytest.raises(Untrustworthy):
            await read_all(first)
        return await get_lock(digest, source)

    monkeypatch.setattr(follower.store, "partial", loses_the_race)
    with pytest.raises(Untrustworthy):
        await second.readable(len(BIG) - 1)
    second.close()
    monkeypatch.undo()
    assert await read_all(await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))) == BIG


async def test_a_follower_s_readers_are_not_told_that_their_bytes_are_proven_by_another_s(
    workers: tuple[Worker, Worker], upstream: FakeUpstream
) -> None:
    """The writer stops, having brought wrong bytes, and another registry's fill has brought the
    right ones meanwhile."""
    upstream.blobs[Digest.of(BIG)] = BIG
    upstream.corrupt = True
    writer, follower = workers
    hold = Hold(upstream, at=2 * SMALL)
    (await writer.cache.blob(CONTEXT, REDIS, Digest.of(BIG))).close()
    await hold.reached.wait()
    content = await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))
    read = await content.readable(0)
    assert content.pread(read, 0) != BIG[:read]
    other = await writer.store.partial(Digest.of(BIG), "other.example")
    assert other is not None
    await other.append([BIG])
    await other.commit()
    upstream.corrupt = False
    hold.go.set()
    await writer.fills.close()
    with pytest.raises(Untrustworthy):
        await content.readable(len(BIG) - 1)
    content.close()
    assert await read_all(await follower.cache.blob(CONTEXT, REDIS, Digest.of(BIG))) == BIG
