"""A store that has no room: clients get their bytes all the same."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, Unavailable, Untrustworthy
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills import spill as window
from mirror.pullthrough.fills.fill import SMALL
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.fills.write_behind import MOST
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.partial import DiskPartial
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ..fakes import CONTEXT, FakeTags, FakeUpstream
from ..waiting import eventually
from .test_fills import LITTLE, REDIS, Hold, read_all

ROOM = 2 * SMALL
LARGE = random.Random(2).randbytes(2 * MOST + 4 * SMALL)  # more than a fill has in hand
LARGEST = len(LARGE) + 4 * SMALL


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    store = DiskContent(tmp_path / "store", Bounds(ROOM), sync=False, events=Events())
    yield store
    await store.close()


@pytest.fixture
async def cache(upstream: FakeUpstream, store: DiskContent) -> AsyncIterator[PullThrough]:
    quick = DownloadPatience(
        first_byte=1, stalled=1, pause=0.01, longest_pause=0.02, largest=LARGEST
    )
    fills = Fills(store, Events(), patience=quick)
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), fills))
    yield cache
    await fills.close()
    await cache.close()


@pytest.fixture
def large(upstream: FakeUpstream) -> Digest:
    digest = Digest.of(LARGE)
    upstream.blobs[digest] = LARGE
    return digest


def nothing_is_left(store: DiskContent) -> bool:
    files = [path for path in (store.root / "partials").rglob("*") if path.is_file()]
    return not files and store.usage().reserved_bytes == 0 and store.usage().content_bytes == 0


@pytest.mark.parametrize("says_size", [True, False], ids=["at once", "midway"])
@pytest.mark.parametrize("clients", [1, 5])
async def test_f31_clients_get_right_bytes_and_nothing_stays(
    cache: PullThrough,
    upstream: FakeUpstream,
    store: DiskContent,
    large: Digest,
    says_size: bool,
    clients: int,
) -> None:
    upstream.says_size = says_size
    hold = Hold(upstream, at=0)
    asking = [asyncio.create_task(cache.blob(CONTEXT, REDIS, large)) for _ in range(clients)]
    await hold.reached.wait()
    hold.go.set()
    contents = await asyncio.gather(*asking)
    assert all(body == LARGE for body in await asyncio.gather(*map(read_all, contents)))
    assert nothing_is_left(store)


async def test_f31_who_comes_later_has_a_download_of_its_own(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, large: Digest
) -> None:
    hold = Hold(upstream, at=4 * SMALL)
    first = await cache.blob(CONTEXT, REDIS, large)
    await hold.reached.wait()
    second = await cache.blob(CONTEXT, REDIS, large)
    hold.go.set()
    assert await asyncio.gather(read_all(first), read_all(second)) == [LARGE, LARGE]
    assert upstream.asked["blob"] == 2
    assert nothing_is_left(store)


async def test_f31_memory_is_bounded_by_the_slowest_reader(
    cache: PullThrough,
    upstream: FakeUpstream,
    large: Digest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "CAPACITY", SMALL)
    upstream.piece = 1 << 16
    quick, slow = await asyncio.gather(
        cache.blob(CONTEXT, REDIS, large), cache.blob(CONTEXT, REDIS, large)
    )
    reading = asyncio.create_task(read_all(quick))
    await slow.readable(0)
    for _ in range(100):  # the upstream could send everything meanwhile
        await asyncio.sleep(0)
    await asyncio.to_thread(os.getpid)
    assert upstream.blob_bytes < len(LARGE)
    assert not reading.done()
    assert await read_all(slow) == LARGE
    assert await reading == LARGE


async def test_f31_a_download_that_nobody_reads_and_nobody_keeps_ends(
    cache: PullThrough,
    upstream: FakeUpstream,
    store: DiskContent,
    large: Digest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "CAPACITY", SMALL)
    (await cache.blob(CONTEXT, REDIS, large)).close()
    await eventually(lambda: cache._fills.is_idle(REDIS.registry))
    assert upstream.asked["blob"] == 1
    assert upstream.blob_bytes < len(LARGE)
    assert nothing_is_left(store)


async def test_f31_wrong_bytes_are_not_let_through(
    cache: PullThrough, upstream: FakeUpstream, large: Digest
) -> None:
    upstream.corrupt = True
    content = await cache.blob(CONTEXT, REDIS, large)
    with pytest.raises(Untrustworthy):
        await read_all(content)
    assert len(upstream.rejected) == 1


async def test_f32_a_store_that_cannot_be_written_still_serves(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_only(digest: Digest, source: str) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(store, "partial", read_only)
    upstream.blobs[Digest.of(LITTLE)] = LITTLE
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(LITTLE))) == LITTLE


def without_descriptors(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("begun", [0, 2 * SMALL], ids=["anew", "resumed"])
async def test_without_a_descriptor_for_the_readers_bytes_pass_through(
    cache: PullThrough,
    upstream: FakeUpstream,
    store: DiskContent,
    large: Digest,
    begun: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if begun:
        partial = await store.partial(large)
        assert partial is not None
        await partial.append([LARGE[:begun]])
        await partial.suspend()
    monkeypatch.setattr(DiskPartial, "open", without_descriptors)
    monkeypatch.setattr(os, "memfd_create", without_descriptors)
    data, content = bytearray(), await cache.blob(CONTEXT, REDIS, large)
    try:
        while (limit := await content.readable(len(data))) > len(data):
            data += content.pread(limit - len(data), len(data))
    finally:
        content.close()
    assert data == LARGE
    await eventually(lambda: cache._fills.is_idle(REDIS.registry))
    kept = [path.stat().st_size for path in (store.root / "partials").rglob("*") if path.is_file()]
    assert kept == [begun][: bool(begun)]


async def test_eviction_makes_room_before_anybody_is_turned_away(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent
) -> None:
    for seed in range(4):
        blob = random.Random(seed).randbytes(ROOM // 2)
        upstream.blobs[Digest.of(blob)] = blob
        assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(blob))) == blob
        await eventually(lambda: not cache._fills.under_way)
        assert store.usage().content_bytes <= ROOM
    assert store.usage().entries == 2


@pytest.mark.parametrize("says_size", [True, False])
async def test_f11_a_blob_above_the_cap_is_refused(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent, says_size: bool
) -> None:
    upstream.says_size = says_size
    huge = bytes(LARGEST + 1)
    upstream.blobs[Digest.of(huge)] = huge
    with pytest.raises(Denied):
        await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(huge)))
    assert nothing_is_left(store)


async def test_an_accelerators_content_is_kept_at_others_cost_once_the_registry_says_the_same(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent
) -> None:
    """A share of the room is for what is not proven; for more, the registry is asked how long the
    blob is."""
    upstream.vouched = False
    blobs = [random.Random(seed).randbytes(SMALL) for seed in range(4)]
    for blob in blobs:
        upstream.blobs[Digest.of(blob)] = blob
        assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(blob))) == blob
        await eventually(lambda: not cache._fills.under_way)
        assert await store.read(Digest.of(blob), SMALL) == blob
    assert store.usage().entries == 2
    assert upstream.asked["stat"] == 2  # the first two had free room


async def test_an_accelerators_claim_that_the_registry_does_not_share_evicts_little(
    cache: PullThrough, upstream: FakeUpstream, store: DiskContent
) -> None:
    kept = [random.Random(seed).randbytes(ROOM // 16) for seed in range(15)]
    for blob in kept:
        await store.put(Digest.of(blob), blob)
    upstream.vouched = False
    upstream.stat_says = Unavailable("the registry is away")
    blob = random.Random(99).randbytes(ROOM - 1)
    upstream.blobs[Digest.of(blob)] = blob
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(blob))) == blob
    assert await store.open(Digest.of(blob)) is None
    assert store.usage().entries >= len(kept) - 3
