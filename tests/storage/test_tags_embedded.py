"""The embedded tag memory: one file, several processes, and all that may befall it."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import apsw
import pytest
import structlog

from mirror.clock import Clock
from mirror.contracts.events import TagStoreFailed
from mirror.contracts.tags import TagStoreError
from mirror.events import Events
from mirror.oci.reference import Repository
from mirror.storage.shared_database import AGAIN
from mirror.storage.tags import embedded_tables
from mirror.storage.tags.embedded import EmbeddedTags
from mirror.storage.tags.encoding import encode, tag_key

from ..fakes import HandClock, Recorder
from .tag_contract import (
    REDIS,
    HistoryContract,
    ListingContract,
    T,
    TagStoreContract,
    digest,
    event,
    found,
    missing,
)

# A process that is told when to open the database, puts the tags `<name>-<n>` without end or up to
# a count, and says each when it is remembered.
WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from mirror.clock import Clock
from mirror.events import Events
from mirror.storage.tags.embedded import EmbeddedTags
from tests.storage.tag_contract import REDIS, found

async def main(path, name, count):
    print("ready", flush=True)
    sys.stdin.readline()
    store = EmbeddedTags(Path(path), Clock(), Events())
    for n in range(int(count)) if count else itertools.count():
        await store.put(REDIS, f"{name}-{n}", found(f"{name}-{n}"), 3600)
        await store.put(REDIS, "shared", found(name), 3600)
        print(n, flush=True)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


class Errors(Recorder):
    """Which operations failed, in order."""

    @property
    def operations(self) -> list[tuple[str, str]]:
        return [(each.store, each.operation) for each in self.of(TagStoreFailed)]


Open = Callable[..., EmbeddedTags]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tags.db"


@pytest.fixture
async def reopen(path: Path) -> AsyncIterator[Open]:
    """Opens the database as one more worker would; all are closed in the end."""
    stores: list[EmbeddedTags] = []

    def reopen(
        clock: Clock | None = None, events: Events | None = None, **settings: int
    ) -> EmbeddedTags:
        store = EmbeddedTags(path, clock or Clock(), events or Events(), **settings)
        stores.append(store)
        return store

    yield reopen
    for store in stores:
        await store.close()


Write = Callable[..., list[subprocess.Popen[str]]]


@pytest.fixture
def write(path: Path) -> Iterator[Write]:
    """Starts processes that write, all at once; kills what is left of them."""
    started: list[subprocess.Popen[str]] = []

    def write(*names: str, count: str = "") -> list[subprocess.Popen[str]]:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), name, count],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in names
        ]
        started.extend(processes)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return processes

    yield write
    for process in started:
        process.kill()
        process.communicate()


class TestEmbeddedTags(TagStoreContract, ListingContract, HistoryContract):
    @pytest.fixture
    def store(self, reopen: Open) -> EmbeddedTags:
        return reopen()


class TestEmbeddedTagsWithoutAFile(TagStoreContract, ListingContract, HistoryContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[EmbeddedTags]:
        (tmp_path / "file").touch()
        store = EmbeddedTags(tmp_path / "file" / "tags.db", Clock(), Events())
        yield store
        await store.close()


async def test_survives_a_restart(reopen: Open) -> None:
    store = reopen()
    await store.put(REDIS, "7", found(), 3600)
    await store.put(REDIS, "8", missing(), 3600)
    await store.close()
    store = reopen()
    assert await store.get(REDIS, "7") == found()
    assert await store.get(REDIS, "8") == missing()


async def test_workers_see_each_others_records_at_once(reopen: Open) -> None:
    one, other = reopen(), reopen()
    await one.put(REDIS, "7", found(), 3600)
    assert await other.get(REDIS, "7") == found()
    await other.delete(REDIS, "7")
    assert await one.get(REDIS, "7") is None


async def test_ends_by_the_wall_clock_also_after_a_restart(reopen: Open) -> None:
    wall = HandClock(1_700_000_000.0)
    clock = Clock(wall=wall)
    store = reopen(clock)
    await store.put(REDIS, "7", found(), 60)
    wall.now += 59
    assert await store.get(REDIS, "7") == found()
    await store.close()
    store = reopen(clock)
    assert await store.get(REDIS, "7") == found()
    wall.now += 2
    assert await store.get(REDIS, "7") is None


async def test_f29_a_clock_that_is_set_back_loses_nothing(reopen: Open) -> None:
    wall = HandClock(1_700_000_000.0)
    store = reopen(Clock(wall=wall))
    await store.put(REDIS, "7", found(), 60)
    wall.now -= 10 * 3600
    assert await store.get(REDIS, "7") == found()
    await store.put(REDIS, "7", found("new"), 60)
    assert await store.get(REDIS, "7") == found("new")


async def test_f30_what_was_remembered_survives_kill_9(reopen: Open, write: Write) -> None:
    for turn in range(3):
        names = [f"{turn}a", f"{turn}b"]
        processes = write(*names)
        said = []
        for process in processes:
            assert process.stdout is not None
            said.append([process.stdout.readline() for _ in range(20 + 17 * turn)])
        for process in processes:
            process.send_signal(signal.SIGKILL)
        with structlog.testing.capture_logs() as logs:
            store = reopen()
        assert logs == []
        for name, process, lines in zip(names, processes, said, strict=True):
            assert process.stdout is not None
            lines.extend(line for line in process.stdout if line.endswith("\n"))
            for line in lines:
                tag = f"{name}-{line.strip()}"
                assert await store.get(REDIS, tag) == found(tag)


async def test_four_processes_write_at_once_and_nothing_is_lost(reopen: Open, write: Write) -> None:
    await all_end(write(*"abcd", count="200"))
    store = reopen()
    await holds_all(store, "abcd", 200)
    assert await store.get(REDIS, "shared") in [found(name) for name in "abcd"]
    history = await store.history(REDIS, "shared")
    assert 1 <= len(history) <= 32
    for one, before in itertools.pairwise(history):
        assert one.digest != before.digest  # else two noted the same at once


async def all_end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == 0


async def holds_all(store: EmbeddedTags, names: str, count: int) -> None:
    for name in names:
        for number in range(count):
            tag = f"{name}-{number}"
            assert await store.get(REDIS, tag) == found(tag)


# What may be found in the place of the database, each made from a good one.


def garbage(path: Path) -> None:
    path.write_bytes(b"this was never a database, but it is long enough for one\n" * 100)


def cut(path: Path) -> None:
    os.truncate(path, 5000)


def rotten(path: Path) -> None:
    """A page within is overwritten; the header stays good."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))


def from_a_newer_version(path: Path) -> None:
    database = apsw.Connection(str(path))
    database.execute("PRAGMA user_version = 4")
    database.close()


def of_another_program(path: Path) -> None:
    database = apsw.Connection(str(path))
    database.execute("DROP TABLE tags; CREATE TABLE tags (something REAL)")
    database.close()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def a_link(path: Path) -> None:
    target = path.with_name("elsewhere.db")
    path.rename(target)
    path.symlink_to(target)


FAULTS = [garbage, cut, rotten, from_a_newer_version, of_another_program, a_directory, a_link]


@pytest.mark.parametrize("fault", FAULTS)
async def test_f35_a_useless_file_is_set_aside_and_begun_anew(
    path: Path, reopen: Open, fault: Callable[[Path], None]
) -> None:
    store = reopen()
    for number in range(50):
        await store.put(REDIS, str(number), found(), 3600)
    await store.close()
    with apsw.Connection(str(path)) as database:
        database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    database.close()
    fault(path)

    with structlog.testing.capture_logs() as logs:
        store = reopen()
        assert await store.get(REDIS, "7") is None
        await store.put(REDIS, "7", found("new"), 3600)
    assert [entry["event"] for entry in logs] == ["database_set_aside"]
    assert os.path.lexists(f"{path}.aside")
    await store.close()
    assert await reopen().get(REDIS, "7") == found("new")


async def test_f35_set_aside_again_and_again_takes_no_more_room(path: Path, reopen: Open) -> None:
    for _ in range(3):
        await reopen().close()
        garbage(path)
    await reopen().close()
    assert len([name for name in os.listdir(path.parent) if "aside" in name]) <= 3


async def test_f35_a_file_that_somebody_locks_is_gone_on_with_when_it_can_be(
    path: Path, reopen: Open
) -> None:
    wall = HandClock()
    before = reopen()
    await before.freeze(REDIS, "6", found().descriptor.digest)
    await before.close()
    holder = apsw.Connection(str(path))
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        store = reopen(Clock(monotonic=wall))
        await store.put(REDIS, "7", found(), 3600)
        assert await store.get(REDIS, "7") == found()
        assert store.fault is not None
    finally:
        holder.close()
    wall.now += AGAIN
    await store.put(REDIS, "8", found(), 3600)
    assert store.fault is None
    assert not os.path.lexists(f"{path}.aside")
    again = reopen()
    assert await again.get(REDIS, "8") == found()
    assert await again.frozen(REDIS, "6") == found().descriptor.digest


async def test_f35_workers_that_start_together_share_what_is_begun_anew(
    path: Path, reopen: Open, write: Write
) -> None:
    await reopen().close()
    garbage(path)
    await all_end(write(*"abcd", count="20"))
    await holds_all(reopen(), "abcd", 20)


async def test_f35_rot_that_is_found_in_use_is_set_aside_too(
    path: Path, reopen: Open, tmp_path: Path
) -> None:
    store = reopen()
    for number in range(500):
        await store.put(REDIS, str(number), found(), 3600)
    await store.close()
    whole = tmp_path / "whole.db"
    with apsw.Connection(str(path)) as database:
        database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    database.close()
    shutil.copy(path, whole)

    store = reopen()
    with path.open("r+b") as file:  # all but the first page, where the schema is
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    answers = [await store.get(REDIS, str(number)) for number in range(500)]
    assert None in answers
    await store.put(REDIS, "7", found("new"), 3600)
    assert await store.get(REDIS, "7") == found("new")
    await store.close()
    assert os.path.lexists(f"{path}.aside")
    assert await reopen().get(REDIS, "7") == found("new")


async def test_f34_a_file_deleted_under_running_workers_is_begun_anew(
    path: Path, reopen: Open
) -> None:
    one, other = reopen(), reopen()
    await one.put(REDIS, "7", found(), 3600)
    for name in path.parent.iterdir():
        name.unlink()
    await one.put(REDIS, "8", found("8"), 3600)
    await other.put(REDIS, "9", found("9"), 3600)
    late = reopen()
    assert await late.get(REDIS, "8") == found("8")
    assert await late.get(REDIS, "9") == found("9")
    await late.close()
    await one.close()
    await other.close()
    store = reopen()
    assert await store.get(REDIS, "8") == found("8")
    assert await store.get(REDIS, "9") == found("9")


async def test_f32_where_no_file_can_be_made_it_remembers_in_memory_and_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with structlog.testing.capture_logs() as logs:
        store = EmbeddedTags(tmp_path / "file" / "tags.db", Clock(), Events())
    assert [(entry["event"], entry["what"], entry["log_level"]) for entry in logs] == [
        ("database_kept_in_memory_only", "tags", "error")
    ]
    await store.put(REDIS, "7", found(), 3600)
    assert await store.get(REDIS, "7") == found()
    await store.close()


async def test_a_database_held_by_another_process_fails_a_write_in_time_and_no_read(
    path: Path, reopen: Open
) -> None:
    errors = Errors()
    store = reopen(events=errors)
    await store.put(REDIS, "7", found(), 3600)
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(TagStoreError):
                await store.put(REDIS, "7", found("new"), 3600)
        assert await store.get(REDIS, "7") == found()
        holder.execute("ROLLBACK")
        holder.close()
        await store.put(REDIS, "7", found("new"), 3600)
    assert await store.get(REDIS, "7") == found("new")
    assert errors.operations == [("embedded", "put")] * 2
    assert [entry["event"] for entry in logs] == ["tag_store_failing", "tag_store_works_again"]


async def test_another_process_that_opens_for_ever_does_not_stop_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.storage.sqlite_files._OPENING_LIMIT", 0.1)
    path.parent.mkdir()
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = EmbeddedTags(path, Clock(), Events())
    await store.put(REDIS, "7", found(), 3600)
    assert await store.get(REDIS, "7") == found()
    await store.close()


async def test_f55_a_flood_of_names_is_bounded_and_forgets_what_ends_first(
    path: Path, reopen: Open
) -> None:
    store = reopen(max_rows=100)
    await store.put(REDIS, "wanted", found(), 86400)
    for number in range(2000):
        await store.put(Repository("docker.io", f"flood/{number}"), "latest", missing(), 60)
    assert await store.get(REDIS, "wanted") == found()
    assert rows(path) <= 100 + 256


async def test_what_has_ended_is_removed_from_the_file(path: Path, reopen: Open) -> None:
    wall = HandClock(1_700_000_000.0)
    store = reopen(Clock(wall=wall))
    for number in range(1000):
        await store.put(REDIS, str(number), found(), 60)
    wall.now += 61
    for number in range(1000):
        await store.put(REDIS, "7", found(str(number)), 60)
    assert rows(path) == 1


async def test_the_log_beside_the_file_is_bounded(path: Path, reopen: Open) -> None:
    store = reopen()
    for number in range(3000):
        await store.put(REDIS, str(number), found(), 60)
    assert Path(f"{path}-wal").stat().st_size < 10 << 20


async def test_only_its_owner_can_read_it(path: Path, reopen: Open) -> None:
    store = reopen()
    await store.put(REDIS, "7", found(), 60)
    assert path.parent.stat().st_mode & 0o077 == 0
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0


async def test_workers_see_at_once_what_one_freezes(reopen: Open) -> None:
    one, other = reopen(), reopen()
    assert await other.frozen(REDIS, "7") is None
    await one.freeze(REDIS, "7", digest("a"))
    assert await other.frozen(REDIS, "7") == digest("a")
    await one.close()
    assert await reopen().frozen(REDIS, "7") == digest("a")


async def test_a_file_from_before_there_was_a_history_is_brought_up_to_date(
    path: Path, reopen: Open
) -> None:
    key = tag_key(REDIS, "7")
    path.parent.mkdir(exist_ok=True)
    database = apsw.Connection(str(path))
    database.execute(
        "CREATE TABLE tags (key TEXT PRIMARY KEY, record BLOB NOT NULL, expires_at REAL NOT NULL) "
        "WITHOUT ROWID; CREATE INDEX tags_by_expiry ON tags (expires_at); PRAGMA user_version = 1"
    )
    database.execute("INSERT INTO tags VALUES (?, ?, 4e9)", (key, encode(key, found())))
    database.close()
    with structlog.testing.capture_logs() as logs:
        store = reopen()
    assert logs == []
    assert await store.get(REDIS, "7") == found()
    await store.put(REDIS, "7", found("new", checked_at=T + 1000), 3600)
    assert list(await store.history(REDIS, "7")) == [event("new", T + 1000, T + 1000)]


async def test_what_was_not_said_for_long_is_removed_from_the_history(
    path: Path, reopen: Open
) -> None:
    wall = HandClock(1_700_000_000.0)
    store = reopen(Clock(wall=wall))
    await store.put(REDIS, "7", found("old", checked_at=wall.now), 60)
    wall.now += 399 * 86400
    await store.put(REDIS, "8", found("old", checked_at=wall.now), 60)
    await tidied(store, wall)
    assert len(await store.history(REDIS, "7")) == 1
    wall.now += 2 * 86400
    await tidied(store, wall)
    assert list(await store.history(REDIS, "7")) == []
    assert len(await store.history(REDIS, "8")) == 1


async def tidied(store: EmbeddedTags, wall: HandClock) -> None:
    for number in range(256):
        await store.put(REDIS, "busy", found("busy", checked_at=wall.now + number), 60)


async def test_f55_the_history_of_a_flood_is_bounded(path: Path, reopen: Open) -> None:
    store = reopen(max_rows=100)
    for number in range(2000):
        flood = Repository("docker.io", f"flood/{number}")
        await store.put(flood, "latest", found(checked_at=T + 1000 + number), 60)
    assert rows(path, "history") <= 100 + 256


async def test_the_history_of_one_repository_pushes_out_no_others(path: Path, reopen: Open) -> None:
    """Nor do its records, nor those of many repositories in another registry."""
    store = reopen(max_rows=100)
    quay = Repository("quay.io", "app")
    for number in range(20):
        await store.put(REDIS, str(number), found(checked_at=T + number), 3600)
        await store.put(quay, str(number), found(checked_at=T + number), 3600)
    for number in range(2000):
        flood = Repository("docker.io", "flood" if number % 2 else f"flood/{number}")
        await store.put(flood, str(number), found(checked_at=T + 1000 + number), 86400)
    for number in range(20):
        assert await store.history(quay, str(number))
        assert await store.get(quay, str(number))
    assert not await store.has_forgotten(quay)
    # Of one registry's many repositories, those that were seen last have a little each.
    assert await store.has_forgotten(Repository("docker.io", "flood"))
    assert not await store.history(Repository("docker.io", "flood"), "1")
    assert rows(path, "history") <= 100 + 256


async def test_a_flood_of_one_repositorys_tags_leaves_the_others_their_history(
    reopen: Open,
) -> None:
    store = reopen(max_rows=100)
    for number in range(20):
        await store.put(REDIS, str(number), found(checked_at=T + number), 60)
    flood = Repository("docker.io", "library/flood")
    for number in range(2000):
        await store.put(flood, str(number), found(checked_at=T + 1000 + number), 86400)
    assert all([await store.history(REDIS, str(number)) for number in range(20)])
    assert not await store.has_forgotten(REDIS)
    assert await store.has_forgotten(flood)
    again = reopen(max_rows=100)
    assert await again.has_forgotten(flood)


async def test_of_too_many_repositories_it_is_remembered_whose_registry_forgot(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_tables, "MOST_FORGOTTEN", 10)
    store = reopen(max_rows=100)
    for number in range(1000):
        flood = Repository("docker.io", f"flood/{number}")
        await store.put(flood, "1", found(checked_at=T + number), 86400)
    assert await store.has_forgotten(Repository("docker.io", "flood/0"))
    assert await store.has_forgotten(Repository("docker.io", "flood/500"))
    assert not await store.has_forgotten(Repository("quay.io", "app"))


async def test_a_closed_store_says_so(reopen: Open) -> None:
    store = reopen()
    await store.close()
    with pytest.raises(TagStoreError):
        await store.get(REDIS, "7")
    with pytest.raises(TagStoreError):
        await store.put(REDIS, "7", found(), 60)


def rows(path: Path, table: str = "tags") -> int:
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
    finally:
        database.close()
