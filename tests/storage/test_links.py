"""Who has shown what: bounded, so that nobody pushes out what others need."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

import apsw
import pytest

from mirror.clock import Clock
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.storage.records.links import LinkRecords

from ..fakes import HandClock

HOT = Repository("docker.io", "library/redis")
OTHER = Repository("docker.io", "library/other")
MOST = 256 << 10
LAYER = Digest.of(b"layer")


@pytest.fixture
def wall() -> HandClock:
    return HandClock()


def digests(name: str, count: int) -> list[Digest]:
    return [Digest.of(f"{name} {number}".encode()) for number in range(count)]


async def shown(links: LinkRecords, repository: Repository, some: list[Digest]) -> int:
    return sum([await links.seen(repository, digest) is not None for digest in some])


async def size(links: LinkRecords, folder: Path) -> int:
    """Of the file, closed: with what stood in its journal."""
    await links.close()
    return (folder / "links.db").stat().st_size


async def flood(
    links: LinkRecords, wall: HandClock, *repositories: Repository, rounds: int
) -> None:
    """Manifests of a thousand layers each, that nobody fetches."""
    for number in range(rounds):
        wall.now += 1
        for repository in repositories:
            await links.add(repository, digests(f"{repository} {number}", 1000))


async def test_what_is_no_database_is_begun_anew(tmp_path: Path, wall: HandClock) -> None:
    path = tmp_path / "links.db"
    path.write_bytes(b"nonsense" * 1000)
    links = LinkRecords(path, Clock(wall=wall))
    await links.add(HOT, [LAYER])
    assert await links.seen(HOT, LAYER) == wall.now
    assert await links.seen(OTHER, LAYER) is None
    assert await links.is_shown(LAYER)
    await links.close()
    assert (tmp_path / "links.db.aside").exists()


async def test_what_is_shown_while_another_process_holds_the_file_is_written_later(
    tmp_path: Path, wall: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.storage.records.links._BUSY_MS", 1)
    path = tmp_path / "links.db"
    links = LinkRecords(path, Clock(wall=wall))
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    await links.add(HOT, [LAYER])
    assert await links.seen(HOT, LAYER) == wall.now
    assert await links.is_shown(LAYER)
    holder.execute("ROLLBACK")
    holder.close()
    await links.add(OTHER, digests("more", 3))
    await links.close()
    again = LinkRecords(path, Clock(wall=wall))
    assert await again.seen(HOT, LAYER) == wall.now
    assert await shown(again, OTHER, digests("more", 3)) == 3
    await again.close()


async def test_what_was_not_written_is_written_at_the_end(
    tmp_path: Path, wall: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.storage.records.links._BUSY_MS", 1)
    path = tmp_path / "links.db"
    links = LinkRecords(path, Clock(wall=wall))
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    await links.add(HOT, [LAYER])
    holder.close()
    await links.close()
    again = LinkRecords(path, Clock(wall=wall))
    assert await again.seen(HOT, LAYER) == wall.now
    await again.close()


async def test_at_the_end_what_was_not_written_waits_for_others_that_write_theirs(
    tmp_path: Path, wall: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers stop together, and somebody has held the file before."""
    monkeypatch.setattr("mirror.storage.records.links._BUSY_MS", 1)
    path = tmp_path / "links.db"
    links = LinkRecords(path, Clock(wall=wall))
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    await links.add(HOT, [LAYER])
    monkeypatch.setattr(links._database, "_busy_ms", 20_000)
    closing = asyncio.create_task(links.close())
    await asyncio.wait([closing], timeout=0.2)
    holder.close()
    await closing
    again = LinkRecords(path, Clock(wall=wall))
    assert await again.seen(HOT, LAYER) == wall.now
    await again.close()


async def test_of_too_many_that_wait_to_be_written_those_of_the_largest_go(
    tmp_path: Path, wall: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.storage.records.links._BUSY_MS", 1)
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall))
    holder = apsw.Connection(str(tmp_path / "links.db"))
    holder.execute("BEGIN IMMEDIATE")
    hot = digests("hot", 300)
    await links.add(HOT, hot)
    await flood(links, wall, OTHER, rounds=20)
    assert await shown(links, HOT, hot) == 300
    assert await shown(links, OTHER, digests(f"{OTHER} 0", 1000)) == 0
    assert await shown(links, OTHER, digests(f"{OTHER} 19", 1000)) == 1000
    holder.close()
    await links.close()


async def test_a_file_that_could_not_be_opened_is_tried_again_and_not_waited_for(
    tmp_path: Path, wall: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "links.db", Clock(wall=wall, monotonic=wall)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process that opens for ever
        monkeypatch.setattr("mirror.storage.sqlite_files._OPENING_LIMIT", 0.1)
        links = LinkRecords(path, clock)
        monkeypatch.setattr("mirror.storage.sqlite_files._OPENING_LIMIT", 20)
        wall.now += 60
        await asyncio.wait_for(links.add(HOT, [LAYER]), 10)
    assert await links.seen(HOT, LAYER) is not None
    wall.now += 60
    await links.add(HOT, digests("more", 3))
    await links.close()
    again = LinkRecords(path, clock)
    assert await shown(again, HOT, digests("more", 3)) == 3
    await again.close()


async def test_one_repositorys_links_push_out_no_other_repositorys(
    tmp_path: Path, wall: HandClock
) -> None:
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall), most_bytes=MOST)
    hot = digests("hot", 300)
    await links.add(HOT, hot)
    await flood(links, wall, OTHER, rounds=20)
    assert await shown(links, HOT, hot) == 300
    # Of its own the newest are left.
    assert await shown(links, OTHER, digests(f"{OTHER} 0", 1000)) == 0
    assert await shown(links, OTHER, digests(f"{OTHER} 19", 1000)) > 500
    assert await size(links, tmp_path) < 2 * MOST


async def test_nor_do_those_of_many(tmp_path: Path, wall: HandClock) -> None:
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall), most_bytes=MOST)
    hot = digests("hot", 100)
    await links.add(HOT, hot)
    many = [Repository("docker.io", f"evil/{number}") for number in range(10)]
    await flood(links, wall, *many, rounds=3)
    assert await shown(links, HOT, hot) == 100
    await links.close()


async def test_nor_do_many_small_ones_of_another_registry(tmp_path: Path, wall: HandClock) -> None:
    """Of which each has less than the one whose links are to stay."""
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall), most_bytes=MOST)
    hot = digests("hot", 300)
    await links.add(HOT, hot)
    for number in range(100):
        repository = Repository("evil.example", f"a/{number}")
        await links.add(repository, digests(str(repository), 100))
    assert await shown(links, HOT, hot) == 300
    assert await size(links, tmp_path) < 2 * MOST


async def test_links_of_what_is_here_stay_as_long_as_there_are_others(
    tmp_path: Path, wall: HandClock
) -> None:
    """Without its link, and with the registry down, what is here would be of no use. The one that
    is flooded has more of them than anybody else."""
    hot = digests("hot", 1500)
    here = set(hot)
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall), here.__contains__, MOST)
    await links.add(HOT, hot)
    many = [HOT, *(Repository("docker.io", f"evil/{number}") for number in range(10))]
    await flood(links, wall, *many, rounds=3)
    assert await shown(links, HOT, hot) == 1500
    assert await size(links, tmp_path) < 2 * MOST


async def test_when_all_is_here_the_size_holds_all_the_same(
    tmp_path: Path, wall: HandClock
) -> None:
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall), lambda _: True, MOST)
    await flood(links, wall, HOT, OTHER, rounds=10)
    assert await shown(links, HOT, digests(f"{HOT} 9", 1000)) > 300
    assert await size(links, tmp_path) < 2 * MOST


async def test_the_size_holds_while_other_processes_write(tmp_path: Path, wall: HandClock) -> None:
    written = 0

    def write(_: Digest) -> bool:
        """Another worker notes something while this one looks for what is here."""
        nonlocal written
        written += 1
        name = f"docker.io/library/of-another-{written}"
        other.execute("INSERT INTO repositories (name) VALUES (?)", (name,))
        return False

    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall), write, MOST)
    other = apsw.Connection(str(tmp_path / "links.db"))
    await flood(links, wall, OTHER, rounds=20)
    assert written > 0
    assert await shown(links, OTHER, digests(f"{OTHER} 0", 1000)) == 0
    other.close()
    assert await size(links, tmp_path) < 2 * MOST


async def test_names_of_repositories_without_links_take_no_room(
    tmp_path: Path, wall: HandClock
) -> None:
    links = LinkRecords(tmp_path / "links.db", Clock(wall=wall), most_bytes=MOST)
    for number in range(5000):
        await links.add(Repository("docker.io", f"{'n' * 200}/{number}"), [LAYER])
    await flood(links, wall, OTHER, rounds=5)
    assert await size(links, tmp_path) < 6 * MOST


async def test_what_the_version_before_has_noted_is_known(tmp_path: Path, wall: HandClock) -> None:
    path = tmp_path / "links.db"
    old = apsw.Connection(str(path))
    old.execute(
        "CREATE TABLE links (digest BLOB NOT NULL, repository TEXT NOT NULL, "
        "seen_at INTEGER NOT NULL, PRIMARY KEY (digest, repository)) WITHOUT ROWID; "
        "CREATE INDEX links_by_age ON links (seen_at); PRAGMA user_version = 1"
    )
    old.execute("INSERT INTO links VALUES (?, ?, 5)", (bytes.fromhex(LAYER.hex), str(HOT)))
    old.close()
    links = LinkRecords(path, Clock(wall=wall))
    assert await links.seen(HOT, LAYER) == 5
    assert await links.seen(OTHER, LAYER) is None
    await links.add(OTHER, [LAYER])
    await links.close()
    again = LinkRecords(path, Clock(wall=wall))
    assert await again.seen(OTHER, LAYER) == wall.now
    await again.close()
