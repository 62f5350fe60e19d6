"""Uploads, and what is held: kept once, durably, and never evicted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from mirror.contracts.content import StoreFull
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import (
    ContentMismatch,
    Interrupted,
    RateLimited,
    SizeInvalid,
    UploadRangeInvalid,
    UploadUnknown,
)
from mirror.storage.disk import held_index, index, uploads
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

from .content_contract import content, put

REPOSITORY = "team/app"


class Pieces:
    """A Body: these, and then what `end` raises."""

    def __init__(self, *pieces: bytes, end: Exception | None = None) -> None:
        self._pieces = list(pieces)
        self._end = end
        self.size = None if end else sum(map(len, pieces))

    async def read(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._end is not None:
            raise self._end
        return b""

    async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
        for piece in self._pieces:
            await asyncio.to_thread(take, piece)
        if self._end is not None:
            raise self._end


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[[], DiskContent]]:
    """Opens the same store once more, as another process does."""
    stores: list[DiskContent] = []

    def open_store() -> DiskContent:
        stores.append(
            DiskContent(tmp_path / "store", Bounds(10_000, block=1), sync=False, events=Events())
        )
        return stores[-1]

    yield open_store
    for store in stores:
        await store.close()


@pytest.fixture
def store(opened: Callable[[], DiskContent]) -> DiskContent:
    return opened()


async def pushed(store: DiskContent, data: bytes) -> Digest:
    session = await store.uploads.begin(REPOSITORY)
    await store.uploads.append(REPOSITORY, session, 0, Pieces(data))
    assert await store.uploads.finish(REPOSITORY, session, Digest.of(data)) == len(data)
    return Digest.of(data)


def upkeep(store: DiskContent) -> Upkeep:
    return Upkeep(store, UpkeepPolicy(partial_ttl=86400))


def sessions(store: DiskContent) -> list[Path]:
    return list((store.root / "partials" / "uploads").iterdir())


def files(store: DiskContent) -> list[Path]:
    return [path for path in (store.root / "blobs").rglob("*") if path.is_file()]


async def test_an_upload_goes_on_in_another_process_and_is_not_hashed_again(
    opened: Callable[[], DiskContent], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = opened(), opened()
    session = await one.uploads.begin(REPOSITORY)
    assert len(session) >= 32
    assert session.isalnum()
    assert await one.uploads.append(REPOSITORY, session, 0, Pieces(b"some", b"bytes")) == 9
    assert await other.uploads.size(REPOSITORY, session) == 9
    with monkeypatch.context() as patched:
        patched.delattr(uploads, "hash_of")
        with contextlib.suppress(OSError):  # a file system without attributes is no fault
            os.setxattr(one.root, "user.try", b"")
            await other.uploads.finish(REPOSITORY, session, Digest.of(b"somebytes"))
            session = await one.uploads.begin(REPOSITORY)
            await one.uploads.append(REPOSITORY, session, 0, Pieces(b"some", b"bytes"))
    assert await other.uploads.append(REPOSITORY, session, 9, Pieces(b"more")) == 13
    assert await one.uploads.finish(REPOSITORY, session, Digest.of(b"somebytesmore")) == 13
    assert await content(other, Digest.of(b"somebytesmore")) == b"somebytesmore"
    for gone in (one.uploads.size, other.uploads.cancel):
        with pytest.raises(UploadUnknown):
            await gone(REPOSITORY, session)


@pytest.mark.parametrize("data", [b"", b"x"])
async def test_uploads_are_of_any_algorithm_and_may_be_empty(
    store: DiskContent, data: bytes
) -> None:
    digest = Digest.of(data, "sha512")
    session = await store.uploads.begin(REPOSITORY)
    if data:
        await store.uploads.append(REPOSITORY, session, None, Pieces(data))
    assert await store.uploads.finish(REPOSITORY, session, digest) == len(data)
    assert await content(store, digest) == data


async def test_a_body_of_another_size_than_was_announced_is_taken_back(
    store: DiskContent,
) -> None:
    session = await store.uploads.begin(REPOSITORY)
    await store.uploads.append(REPOSITORY, session, 0, Pieces(b"kept"))
    body = Pieces(b"one", b"two", end=SizeInvalid("there is more"))
    with pytest.raises(SizeInvalid):
        await store.uploads.append(REPOSITORY, session, 4, body)
    assert await store.uploads.size(REPOSITORY, session) == 4
    assert await store.uploads.append(REPOSITORY, session, 4, Pieces(b"more")) == 8
    assert await store.uploads.finish(REPOSITORY, session, Digest.of(b"keptmore")) == 8


async def test_an_upload_is_of_one_repository(store: DiskContent) -> None:
    session = await store.uploads.begin(REPOSITORY)
    for repository, name in (
        ("team/other", session),
        (REPOSITORY, session[:-1]),
        (REPOSITORY, ".."),
    ):
        with pytest.raises(UploadUnknown):
            await store.uploads.append(repository, name, 0, Pieces(b"x"))
        with pytest.raises(UploadUnknown):
            await store.uploads.finish(repository, name, Digest.of(b""))
        with pytest.raises(UploadUnknown):
            await store.uploads.cancel(repository, name)
    assert await store.uploads.size(REPOSITORY, session) == 0


async def test_what_does_not_follow_is_refused_and_what_came_before_a_break_stays(
    store: DiskContent,
) -> None:
    session = await store.uploads.begin(REPOSITORY)
    with pytest.raises(Interrupted):
        await store.uploads.append(REPOSITORY, session, 0, Pieces(b"abc", end=Interrupted("gone")))
    for start in (0, 4):
        with pytest.raises(UploadRangeInvalid) as refused:
            await store.uploads.append(REPOSITORY, session, start, Pieces(b"x"))
        assert refused.value.size == 3
    await store.uploads.append(REPOSITORY, session, 3, Pieces(b"def"))
    assert await store.uploads.finish(REPOSITORY, session, Digest.of(b"abcdef")) == 6


async def test_wrong_bytes_leave_nothing(store: DiskContent) -> None:
    session = await store.uploads.begin(REPOSITORY)
    await store.uploads.append(REPOSITORY, session, 0, Pieces(b"wrong"))
    with pytest.raises(ContentMismatch):
        await store.uploads.finish(REPOSITORY, session, Digest.of(b"right"))
    with pytest.raises(ContentMismatch):
        await store.held.put_held(Digest.of(b"right"), b"wrong")
    with pytest.raises(UploadUnknown):
        await store.uploads.size(REPOSITORY, session)
    assert sessions(store) == files(store) == []
    assert store.usage().reserved_bytes == store.usage().content_bytes == 0


async def test_what_finds_no_room_gives_it_back(store: DiskContent) -> None:
    session = await store.uploads.begin(REPOSITORY)
    await store.uploads.append(REPOSITORY, session, 0, Pieces(b"x" * 100))
    body = Pieces(b"y" * 9_000, b"z" * 9_000)
    body.size = None
    with pytest.raises(StoreFull):
        await store.uploads.append(REPOSITORY, session, 100, body)
    assert await store.uploads.size(REPOSITORY, session) == 100
    assert store.usage().reserved_bytes == 100
    await store.uploads.cancel(REPOSITORY, session)
    assert store.usage().reserved_bytes == 0
    assert sessions(store) == []


async def test_what_is_held_is_not_evicted_and_the_rest_makes_room(store: DiskContent) -> None:
    held = [await pushed(store, bytes([n]) * 1_000) for n in range(4)]
    await store.held.put_held(Digest.of(b"manifest"), b"manifest")
    cached = [await put(store, bytes([64 + n]) * 1_000) for n in range(5)]
    new = await pushed(store, b"n" * 3_000)
    assert [await content(store, each) is not None for each in held] == [True] * 4
    assert [await content(store, each) is not None for each in cached].count(True) <= 2
    with pytest.raises(StoreFull):
        await pushed(store, b"m" * 3_000)
    with pytest.raises(StoreFull):
        await store.held.put_held(Digest.of(b"m" * 3_000), b"m" * 3_000)
    assert await store.evict([*held, new]) == 0
    assert await store.purge([*held, new]) == {}
    await store.delete(held[0])
    assert await content(store, held[0]) is not None
    assert store.usage().content_bytes == 9_008  # and nothing went in vain


async def test_many_that_wait_for_room_at_once_leave_a_thread_to_what_makes_it(
    store: DiskContent,
) -> None:
    for number in range(10):
        await put(store, b"%d" % number * 990)
    datas = [bytes([number]) * 900 for number in range(8)]
    async with asyncio.timeout(10):
        digests = await asyncio.gather(*(pushed(store, data) for data in datas))
    assert all([await content(store, digest) for digest in digests])


async def test_who_is_cancelled_while_it_takes_a_session_does_not_keep_it(
    store: DiskContent,
) -> None:
    session = await store.uploads.begin(REPOSITORY)
    broken = Pieces(b"data", end=Interrupted("gone"))
    appending = asyncio.ensure_future(store.uploads.append(REPOSITORY, session, 0, broken))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert await store.uploads.append(REPOSITORY, session, 0, Pieces(b"data")) == 4


async def test_what_is_cancelled_while_it_is_finished_is_unknown(
    store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await store.uploads.begin(REPOSITORY)
    await store.uploads.append(REPOSITORY, session, 0, Pieces(b"data"))
    fdatasync = os.fdatasync

    def cancelled(fd: int) -> None:
        fdatasync(fd)
        sessions(store)[0].unlink()

    monkeypatch.setattr(os, "fdatasync", cancelled)
    with pytest.raises(UploadUnknown):
        await store.uploads.finish(REPOSITORY, session, Digest.of(b"data"))
    assert files(store) == []


async def test_what_the_mirror_has_is_kept_once_and_stays_from_then_on(store: DiskContent) -> None:
    cached = await put(store, b"same")
    assert await pushed(store, b"same") == cached
    assert len(files(store)) == 1
    assert (store.usage().content_bytes, store.usage().entries) == (4, 1)
    other = await put(store, b"other")
    assert await store.held.hold(other) == 5
    assert await store.held.hold(Digest.of(b"nowhere")) is None
    assert await store.evict([cached, other]) == 0
    # A fill that began before the push ended.
    await put(store, b"same")
    assert await store.evict([cached]) == 0
    assert stat.S_IMODE(store.blobs.path(cached).stat().st_mode) & stat.S_ISVTX


async def test_what_is_released_goes_unless_it_was_held_anew_or_is_needed(
    store: DiskContent,
) -> None:
    held = await pushed(store, b"held")
    [record] = await store.held.held(float("inf"), None, 10)
    assert (record.digest, record.size) == (held, 4)
    assert await store.held.held(record.held_at, None, 10) == []
    assert await store.held.release(held, record.held_at) == 0
    assert await store.held.release(held, record.held_at + 0.001) == 4
    assert await content(store, held) is None
    assert await store.held.hold(held) is None
    assert store.usage().content_bytes == 0

    needed, pinned = await pushed(store, b"needed"), await pushed(store, b"pinned")
    await store.put(Digest.of(b"image"), b"image", [needed])
    await store.pin("tag", pinned)
    for each in (needed, pinned):
        assert await store.held.release(each, float("inf")) == 0
        assert await content(store, each) is not None
    assert await store.held.held(float("inf"), None, 10) == []
    await store.unpin("tag")
    assert await store.evict([pinned]) == 6


async def test_a_lost_account_lets_nothing_go(
    opened: Callable[[], DiskContent], tmp_path: Path
) -> None:
    store = opened()
    held = await pushed(store, b"held")
    cached = await put(store, b"cached")
    await store.close()
    for path in (tmp_path / "store").glob("index.db*"):
        path.unlink()
    after = opened()
    await upkeep(after).mend()
    assert await after.evict([held, cached]) == 6
    assert await content(after, held) == b"held"
    assert [each.digest for each in await after.held.held(float("inf"), None, 10)] == [held]


async def test_a_lost_record_lets_nothing_go(store: DiskContent) -> None:
    held = await pushed(store, b"held")
    with store.async_index.index.database.transaction() as db:
        db.execute("UPDATE content SET held = NULL")
    assert await store.evict([held]) == 0
    assert await content(store, held) == b"held"
    assert store.async_index.index.held_bytes() == 4


async def test_what_records_need_is_held_again_and_what_is_not_here_is_told(
    store: DiskContent,
) -> None:
    """A copy of the store that has lost both the account and the files' modes."""
    held, lost = await pushed(store, b"held"), Digest.of(b"lost")
    store.blobs.unmark(held)
    with store.async_index.index.database.transaction() as db:
        db.execute("UPDATE content SET held = NULL")
    assert await store.held.keep([held, lost]) == [lost]
    [before] = await store.held.held(float("inf"), None, 10)
    assert await store.held.keep([held]) == []
    assert await store.held.held(float("inf"), None, 10) == [before]
    assert await store.evict([held]) == 0
    store.blobs.path(held).unlink()
    assert await store.held.keep([held]) == [held]


async def test_sessions_wait_for_a_day_also_those_without_bytes(store: DiskContent) -> None:
    empty, written = await store.uploads.begin("a"), await store.uploads.begin("a")
    await store.uploads.append("a", written, 0, Pieces(b"some"))
    await upkeep(store).tidy()
    assert await store.uploads.size("a", empty) == 0
    assert store.usage().reserved_bytes == 4
    for path in sessions(store):
        os.utime(path, (path.stat().st_mtime - 86_401,) * 2)
    await upkeep(store).tidy()
    assert sessions(store) == []
    assert store.usage().reserved_bytes == 0
    with pytest.raises(UploadUnknown):
        await store.uploads.append("a", written, None, Pieces(b"x"))


async def test_who_is_cancelled_leaves_the_session_as_it_is(store: DiskContent) -> None:
    session = await store.uploads.begin("a")
    begun, never = asyncio.Event(), asyncio.Event()

    class Silent(Pieces):
        async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
            await super().pour(take)
            begun.set()
            await never.wait()

    body = Silent(b"some")
    body.size = None
    appending = asyncio.create_task(store.uploads.append("a", session, 0, body))
    await asyncio.wait_for(begun.wait(), 10)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert await store.uploads.append("a", session, 4, Pieces(b"more")) == 8


def test_eviction_does_not_look_at_what_is_held(tmp_path: Path) -> None:
    """However much that is."""
    made = index.Index(tmp_path / "index.db", 1 << 40)
    held = held_index.HeldIndex(made)

    def steps() -> int:
        count = 0

        def add(event: dict[str, dict[str, int]]) -> None:
            nonlocal count
            count += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

        for db in (made.database._open.writer, made.database._open.reader):
            db.trace_v2(apsw.SQLITE_TRACE_PROFILE, add)
        made.oldest(), made.oldest(guests=True), made.evictable(), made.oldest_use()
        made.has_clock(2.0)
        held.evict(Digest.of(b"none"), lambda: None)
        for db in (made.database._open.writer, made.database._open.reader):
            db.trace_v2(0, None)
        return count

    made.add(Digest.of(b"cached"), 1, 1.0)
    few = steps()
    with made.database.transaction() as db:
        db.executemany(
            "INSERT INTO content (digest, size, used_at, rank, held) VALUES (?, 1, 0.5, 0, 1.0)",
            [(str(Digest.of(b"%d" % n)),) for n in range(3_000)],
        )
    assert 0 < steps() <= few * 1.1
    made.close()


def test_a_store_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    db = apsw.Connection(str(path))
    for step in index.index_schema(1).versions[:2]:
        db.execute(step)
    db.execute("PRAGMA user_version = 2")
    digest = Digest.of(b"old")
    db.execute(
        "INSERT INTO content (digest, size, used_at, rank) VALUES (?, 3, 1.0, 0)", (str(digest),)
    )
    db.close()
    made = index.Index(path, 1 << 30)
    assert [entry.digest for entry in made.oldest()] == [digest]
    held_index.HeldIndex(made).hold(digest, lambda: 2.0, lambda: 3)
    assert made.oldest() == []
    assert (made.evictable(), made.held_bytes(), made.usage().content_bytes) == (0, 3, 3)
    made.close()
    assert not list(tmp_path.glob("*.aside"))
    shutil.rmtree(tmp_path)


async def test_a_namespace_has_so_many_uploads_open_and_no_other_is_kept_from_its_own(
    store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_MOST", 3)
    begun = [await store.uploads.begin(name) for name in ("team/a", "team/b", "team/c")]
    with pytest.raises(RateLimited, match="team has 3 uploads"):
        await store.uploads.begin("team/d")
    await store.uploads.begin("teams/a")
    await store.uploads.cancel("team/b", begun[1])
    await store.uploads.begin("team/d")
    (forsaken,) = (path for path in sessions(store) if path.name.startswith(begun[0]))
    long_ago = forsaken.stat().st_mtime - 3700
    os.utime(forsaken, (long_ago, long_ago))
    await store.uploads.begin("team/e")
    with pytest.raises(UploadUnknown):
        await store.uploads.size("team/a", begun[0])
    assert await store.uploads.size("team/c", begun[2]) == 0


async def test_what_a_namespace_has_in_uploads_is_counted(store: DiskContent) -> None:
    for name, data in (("team/a", b"123"), ("team/b", b"4567"), ("teams/a", b"89")):
        session = await store.uploads.begin(name)
        await store.uploads.append(name, session, 0, Pieces(data))
    assert await store.uploads.under_way("team/c") == 7
    assert await store.uploads.under_way("other/a") == 0
