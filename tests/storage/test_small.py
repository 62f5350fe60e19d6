"""Small content, which is rows of a database: what a crash, a full disk and damage do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from mirror.contracts.content import SMALL, StoreFull
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

from ..waiting import eventually
from .content_contract import content

ROOT = Path(__file__).parents[2]

PUTS = """
import asyncio, sys
from pathlib import Path
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

async def main(root, first):
    store = DiskContent(Path(root), Bounds(1 << 30), sync=False, events=Events())
    async def puts(start):
        for number in range(start, start + 5000):
            data = b"%d" % number * 400
            assert await store.put(Digest.of(data), data)
            print(Digest.of(data), flush=True)
    await asyncio.gather(*(puts(first + 5000 * n) for n in range(8)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def opened(root: Path, size: int = 1 << 30, block: int = 1) -> DiskContent:
    return DiskContent(root, Bounds(size, block=block), events=Events())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskContent]:
    store = opened(tmp_path / "store")
    yield store
    await store.close()


def files(store: DiskContent, folder: str = "blobs") -> list[Path]:
    return [path for path in (store.root / folder).rglob("*") if path.is_file()]


async def put(store: DiskContent, data: bytes) -> Digest:
    digest = Digest.of(data)
    assert await store.put(digest, data)
    return digest


async def test_small_content_is_no_file_and_larger_content_is(store: DiskContent) -> None:
    small, large = await put(store, bytes(SMALL)), await put(store, bytes(SMALL + 1))
    assert [path.name for path in files(store)] == [large.hex]
    assert await content(store, small) == bytes(SMALL)
    assert await content(store, large) == bytes(SMALL + 1)


async def test_what_an_older_mirror_has_left_in_files_stays_good(store: DiskContent) -> None:
    digest = Digest.of(b"of before")
    path = store.blobs.path(digest)
    path.parent.mkdir()
    path.write_bytes(b"of before")
    assert await content(store, digest) == b"of before"
    await put(store, b"of before")  # now it is both
    await store.delete(digest)
    assert await content(store, digest) is None
    assert store.usage().entries == 0


async def test_a_row_is_read_from_any_offset_and_outlives_its_removal(store: DiskContent) -> None:
    digest = await put(store, b"0123456789")
    file = await store.open(digest)
    assert file is not None
    await store.delete(digest)
    assert file.fileno() == -1
    assert [file.pread(*span) for span in ((3, 4), (100, 8), (1, 10))] == [b"456", b"89", b""]
    assert file.again().pread(2, 0) == b"01"
    file.close()


async def test_puts_at_the_same_time_are_all_kept(store: DiskContent) -> None:
    pieces = [os.urandom(random.randrange(9000)) for _ in range(300)]
    digests = await asyncio.gather(*(put(store, piece) for piece in [*pieces, *pieces]))
    assert [await content(store, digest) for digest in digests[:300]] == pieces
    assert store.usage().content_bytes == sum(map(len, pieces))


async def test_what_goes_wrong_with_a_put_is_told_to_all_who_wait_for_it(
    store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise RuntimeError("nobody has thought of that")

    with monkeypatch.context() as broken:
        broken.setattr(store.space, "admit", fails)
        async with asyncio.timeout(10):
            found = await asyncio.gather(
                *(store.put(Digest.of(data), data) for data in (b"1", b"2")), return_exceptions=True
            )
    assert [type(each) for each in found] == [RuntimeError] * 2
    assert await content(store, await put(store, b"1")) == b"1"


def test_who_is_killed_has_kept_what_was_told_and_nothing_half(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUTS, str(tmp_path / "store")]
    told = set[str]()
    # The second begins where the first does: both put the same.
    processes = [
        subprocess.Popen([*command, "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        told |= {process.stdout.readline().strip() for _ in range(40)}
    for process in processes:
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        told |= {line for line in output.split("\n")[:-1] if line.startswith("sha256:")}

    async def check() -> None:
        store = opened(tmp_path / "store")
        await Upkeep(store, UpkeepPolicy()).mend()
        assert len(told) >= 40
        for digest in told:
            assert await store.read(Digest.parse(digest), SMALL) is not None
        entries = await store.page(None, 100_000)
        assert {str(entry.digest) for entry in entries} >= told
        rows = {row.digest: row.size for row in entries}
        assert [size for _, size in store.small.page("", 100_000)] == list(rows.values())
        await store.close()

    asyncio.run(check())


async def test_a_row_whose_bytes_have_changed_is_set_aside(store: DiskContent) -> None:
    digest = await put(store, b"manifest")
    with contextlib.closing(apsw.Connection(str(store.root / "small.db"))) as db:
        db.execute("UPDATE small SET data = ?", (b"manifesT",))
    assert await store.open(digest) is None
    assert await store.read(digest, 100) is None
    assert [path.read_bytes() for path in files(store, "quarantine")] == [b"manifesT"]
    assert store.usage().entries == 0
    await put(store, b"manifest")
    assert await store.verify(digest) is True


async def test_the_scrub_finds_rows_that_rot_and_a_start_those_without_a_record(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path / "store")
    good, bad = await put(store, b"good"), await put(store, b"bad")
    await store.close()
    for path in (tmp_path / "store").glob("index.db*"):
        path.unlink()
    with contextlib.closing(apsw.Connection(str(store.root / "small.db"))) as db:
        db.execute("UPDATE small SET data = ? WHERE digest = ?", (b"worse", str(bad)))
    store = opened(tmp_path / "store")
    upkeep = Upkeep(store, UpkeepPolicy())
    await upkeep.mend()
    assert (store.size(good), store.size(bad)) == (4, None)
    with contextlib.closing(apsw.Connection(str(store.root / "small.db"))) as db:
        db.execute("DELETE FROM small")
        db.execute("INSERT INTO small VALUES (1, ?, 0, ?)", (str(good), b"rot"))
    assert [each async for each in upkeep.scrub()] == [(good, False)]
    assert len(files(store, "quarantine")) == 2
    await store.close()


@pytest.mark.parametrize("when", ["at the start", "in use"])
async def test_a_database_that_is_garbage_is_begun_anew_and_what_is_held_stays(
    tmp_path: Path, when: str
) -> None:
    store = opened(tmp_path / "store")
    kept, lost = await put(store, b"pushed" * 999), await put(store, b"fetched" * 999)
    assert await store.held.hold(kept) == 5994
    if when == "at the start":
        await store.close()
        (tmp_path / "store/small.db").write_bytes(b"garbage" * 9999)
        store = opened(tmp_path / "store")
    else:
        store.small._database.checkpoint()
        for name in ("small.db", "small.db-wal"):
            path = tmp_path / "store" / name
            path.write_bytes(b"garbage" * (path.stat().st_size // 7))
    assert await store.held.hold(Digest.of(b"none")) is None
    assert await content(store, lost) is None
    assert await content(store, kept) == b"pushed" * 999
    assert await put(store, b"fetched" * 999) == lost
    assert await content(store, lost) == b"fetched" * 999
    assert (tmp_path / "store/small.db.aside").exists()
    await store.close()


async def test_what_another_process_has_begun_anew_is_what_goes_and_what_is_looked_at(
    tmp_path: Path,
) -> None:
    """As the parent of workers does, which puts nothing there itself."""
    worker, parent = opened(tmp_path / "store"), opened(tmp_path / "store")
    await put(worker, b"lost")
    worker.small._database.begin_anew(worker.small.identity)
    gone, stays = await put(worker, b"gone"), await put(worker, b"stays")
    await parent.evict([gone])
    assert await content(worker, gone) is None
    await Upkeep(parent, UpkeepPolicy()).mend()
    assert worker.size(stays) == 5
    for store in (worker, parent):
        await store.close()


async def test_a_lost_database_and_what_was_in_it_take_no_room_any_more(
    store: DiskContent,
) -> None:
    await put(store, b"lost")
    upkeep = Upkeep(store, UpkeepPolicy(every=0.01, look=0.01))
    running = asyncio.create_task(upkeep.run())
    await eventually(lambda: upkeep._mended is not None)
    store.small._database.begin_anew(store.small.identity)
    assert list(store.root.glob("small.db.aside*"))
    await eventually(lambda: store.usage().entries == 0)
    await eventually(lambda: not list(store.root.glob("small.db.aside*")))
    running.cancel()
    await asyncio.wait([running])


async def test_a_row_that_has_to_stay_becomes_a_file(store: DiskContent) -> None:
    held, kept = await put(store, b"pushed"), await put(store, b"kept")
    assert await store.held.hold(held) == 6
    assert await store.held.keep([kept, Digest.of(b"none")]) == [Digest.of(b"none")]
    assert {path.name for path in files(store)} == {held.hex, kept.hex}
    assert store.small.page("", 9) == []
    await store.evict([held, kept])
    assert await content(store, held) == b"pushed"
    assert store.usage().content_bytes == 10
    assert await store.held.release(held, float("inf")) == 6
    assert await content(store, held) is None


async def test_room_is_made_for_rows_and_what_goes_is_what_was_used_longest_ago(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path / "store", size=10_000)
    digests = [await put(store, bytes([number]) * 1000) for number in range(25)]
    assert store.usage().content_bytes <= 10_000
    assert store.usage().reserved_bytes == 0
    here = [digest for digest in digests if await content(store, digest) is not None]
    assert here == digests[-10:]
    assert files(store) == []
    with pytest.raises(StoreFull):
        await put(store, bytes(10_001))
    await store.close()


@pytest.mark.parametrize("wanted", [1, 30_000], ids=["less than the row", "more than the row"])
async def test_a_row_whose_database_somebody_holds_stays_and_what_is_behind_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    monkeypatch.setattr("mirror.storage.disk.small_rows._BUSY_MS", 1)
    store = opened(tmp_path / "store", size=100_000)
    row, file = await put(store, b"row" * 100), await put(store, os.urandom(60_000))
    with contextlib.closing(apsw.Connection(str(store.root / "small.db"))) as db:
        db.execute("BEGIN IMMEDIATE")
        new = await put(store, os.urandom(100_000 - 60_300 + wanted))
    assert await content(store, file) is None
    assert await content(store, row) == b"row" * 100
    assert await store.evict([row]) == 300
    assert store.size(new) == store.usage().content_bytes
    await store.close()


async def test_what_is_evicted_gives_its_bytes_back_to_the_disk(store: DiskContent) -> None:
    digests = [await put(store, os.urandom(8000)) for _ in range(300)]
    store.small._database.checkpoint()
    database = store.root / "small.db"
    assert database.stat().st_size > 300 * 8000
    await store.evict(digests[:290])
    assert database.stat().st_size < 300 * 8000 / 4
    assert await content(store, digests[-1]) is not None


async def test_what_the_disk_does_not_take_as_a_row_is_a_file(
    store: DiskContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk is full: from there on, what makes room for files does."""
    first = await put(store, b"before")

    def full(*_: object, **__: object) -> None:
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr(store.small, "add", full)
    second = await put(store, b"after")
    assert [path.name for path in files(store)] == [second.hex]
    assert (store.usage().content_bytes, store.usage().reserved_bytes) == (11, 0)
    assert await content(store, first) == b"before"
    assert await content(store, second) == b"after"
