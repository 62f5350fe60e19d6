"""What the account of the content costs, in steps of its database, which are the same each time."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest

from mirror.clock import Clock
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.index import Arrival, Index
from mirror.storage.disk.ingest_key import IngestKey
from mirror.storage.records.links import LinkRecords
from mirror.storage.records.referrers import ReferrerRecords
from mirror.storage.sqlite_files import open_file, rows
from mirror.storage.tags.embedded import EmbeddedTags


def of(*words: object) -> Digest:
    return Digest.parse(f"sha256:{hashlib.sha256(repr(words).encode()).hexdigest()}")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "index.db", 1 << 40)
    yield index
    index.close()


def pull(index: Index, image: int) -> None:
    """All that is recorded of one small image, from its index to its layer."""
    top, manifest, config, layer = (of(part, image) for part in range(4))
    index.admit([Arrival(top, 100, [manifest])], 1.0)
    index.admit([Arrival(manifest, 100, [config, layer])], 2.0)
    for blob in (config, layer):
        index.reserve(IngestKey(blob), 1000, 1000)
        index.add(blob, 1000, 3.0)
    index.touch([(each, 4.0) for each in (top, manifest, config, layer)], 4.0)
    index.reserve(IngestKey(of("given up", image)), 1000, None)
    index.release(IngestKey(of("given up", image)))


def steps_of(index: Index, work: Callable[[], None]) -> int:
    steps = 0

    def count(event: dict[str, dict[str, int]]) -> None:
        nonlocal steps
        steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    index.database._open.writer.trace_v2(apsw.SQLITE_TRACE_PROFILE, count)
    work()
    index.database._open.writer.trace_v2(0, None)
    return steps


def test_an_image_costs_the_same_however_many_there_are(index: Index) -> None:
    pull(index, 0)
    few = steps_of(index, lambda: pull(index, 1))
    for image in range(2, 100):
        pull(index, image)
    many = steps_of(index, lambda: pull(index, 100))
    assert 0 < many <= few * 1.1


def evictable(index: Index) -> object:
    return index.evictable()


def evictable_of_guests(index: Index) -> object:
    return index.evictable(guests=True)


def oldest(index: Index) -> object:
    return index.oldest()


def opened_again(index: Index) -> None:
    index.database._open_again(index.database.identity, damaged=False)


@pytest.mark.parametrize("work", [evictable, evictable_of_guests, oldest, opened_again])
def test_the_event_loop_reads_while_a_thread_scans_or_opens_the_database(
    index: Index, monkeypatch: pytest.MonkeyPatch, work: Callable[[Index], object]
) -> None:
    begun, ends = threading.Event(), threading.Event()

    def lasting(function: Callable[..., Any], *arguments: Any) -> Any:
        begun.set()
        assert ends.wait(20)
        return function(*arguments)

    def slow_rows(db: apsw.Connection, query: str, *values: Any) -> Any:
        return lasting(rows, db, query, *values) if "pinned" in query else rows(db, query, *values)

    index.add(of("blob"), 100, 1.0)
    monkeypatch.setattr("mirror.storage.shared_database.rows", slow_rows)
    monkeypatch.setattr(
        "mirror.storage.shared_database.open_file",
        lambda *arguments: lasting(open_file, *arguments),
    )
    with ThreadPoolExecutor(2) as threads:
        try:
            working = threads.submit(work, index)
            assert begun.wait(20)
            assert threads.submit(index.size, of("blob")).result(5) == 100
            assert index.usage().entries == 1
            assert not working.done()
        finally:
            ends.set()
        working.result(20)


# The database of the first version, with its counts.
FIRST = """
CREATE TABLE content (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used_at REAL NOT NULL, rank INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX content_by_use ON content (used_at, rank DESC);
CREATE TABLE needs (
    parent TEXT NOT NULL, child TEXT NOT NULL, PRIMARY KEY (parent, child)
) WITHOUT ROWID;
CREATE TABLE reserved (
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, total INTEGER
) WITHOUT ROWID;
CREATE TABLE pins (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (bytes INTEGER NOT NULL, entries INTEGER NOT NULL, reserved INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
CREATE TRIGGER content_in AFTER INSERT ON content BEGIN
    UPDATE totals SET bytes = bytes + new.size, entries = entries + 1; END;
PRAGMA user_version = 1;
"""


def test_a_database_of_the_first_version_is_kept_and_counted_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    before = apsw.Connection(str(path))
    before.execute(FIRST)
    for number, size in enumerate((1, 4096, 5000)):
        before.execute(
            "INSERT INTO content VALUES (?, ?, ?, 0)", (str(of("old", number)), size, number)
        )
    before.close()
    index = Index(path, 1 << 40, block=4096)
    assert index.usage().content_bytes == 4 * 4096
    assert [entry.digest for entry in index.oldest()] == [of("old", n) for n in range(3)]
    pull(index, 1)
    index.remove([of("old", number) for number in range(3)])
    assert index.usage().content_bytes == 4 * 4096
    index.close()


def test_the_account_is_counted_anew_where_the_store_was_moved_to_larger_blocks(
    tmp_path: Path,
) -> None:
    path = tmp_path / "index.db"
    index = Index(path, 1 << 40, block=512)
    index.add(of("piece"), 100, 1.0)
    assert index.usage().content_bytes == 512
    index.close()
    moved = Index(path, 1 << 40, block=4096)
    assert moved.usage().content_bytes == 4096
    moved.close()


@pytest.mark.parametrize("name", ["index.db", "tags.db", "links.db", "referrers.db"])
def test_others_cannot_read_what_an_earlier_version_left_when_it_was_killed(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    opens: dict[str, Callable[[], object]] = {
        "index.db": lambda: Index(path, 1 << 40),
        "tags.db": lambda: EmbeddedTags(path, Clock(), Events()),
        "links.db": lambda: LinkRecords(path, Clock()),
        "referrers.db": lambda: ReferrerRecords(path, Clock()),
    }
    first = opens[name]()
    files = list(tmp_path.glob(f"{name}*"))
    assert {f"{name}-wal", f"{name}-shm"} < {file.name for file in files}
    for file in files:
        file.chmod(0o644)
    second = opens[name]()
    assert {file.stat().st_mode & 0o077 for file in files if file.suffix != ".lock"} == {0}
    del first, second


def test_others_cannot_read_it(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Index(path, 1 << 40).close()
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)  # as earlier versions made it
    index = Index(path, 1 << 40)
    index.add(of("piece"), 100, 1.0)
    assert {file.stat().st_mode & 0o077 for file in tmp_path.glob("index.db*")} == {0}
    index.close()


def test_what_a_database_holds_is_known_where_it_cannot_be_written(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is read-only, or full, at the start."""
    pull(index, 0)
    layer = of(3, 0)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("mirror.storage.shared_database.open_file", refuse)
    copy = Index(tmp_path / "index.db", 1 << 40)
    assert copy.size(layer) == 1000
    assert copy.is_needed(layer)
    assert copy.usage() == index.usage()
    copy.close()
