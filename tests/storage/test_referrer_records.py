"""Lists of referrers on the disk: found again, bounded, and lost without harm."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.records import ReferrerList
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.storage.records.referrers import ReferrerBounds, ReferrerRecords

REDIS = Repository("docker.io", "library/redis")
SUBJECT = Digest.of(b"subject")
LIST = ReferrerList(b'{"manifests": [{}]}', 1, 1000.0)
KIB = 1024

Open = Callable[..., ReferrerRecords]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    made: list[ReferrerRecords] = []

    def make(path: Path | None = None, **bounds: int) -> ReferrerRecords:
        small = {"one": 8 * KIB, "tidy_every": 1, **bounds}
        path = path or tmp_path / "referrers.db"
        made.append(ReferrerRecords(path, Clock(), ReferrerBounds(**small)))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def numbered(number: int) -> Digest:
    return Digest.of(b"%d" % number)


def listing(number: int, size: int = KIB, count: int = 1) -> ReferrerList:
    return ReferrerList(bytes(size), count, 1000.0 + number)


async def test_what_was_put_is_found_by_others_and_after_a_restart(opened: Open) -> None:
    first, second = opened(), opened()
    assert await first.get(REDIS, SUBJECT) is None
    await first.put(REDIS, SUBJECT, LIST)
    assert await second.get(REDIS, SUBJECT) == LIST
    newer = ReferrerList(b'{"manifests": []}', 0, 2000.0)
    await second.put(REDIS, SUBJECT, newer)
    assert await first.get(REDIS, SUBJECT) == newer
    assert await opened().get(REDIS, SUBJECT) == newer
    for other in (Repository("docker.io", "library/other"), Repository("quay.io", REDIS.name)):
        assert await first.get(other, SUBJECT) is None


async def test_a_list_that_is_too_long_is_not_kept_nor_the_one_before_it(opened: Open) -> None:
    records = opened()
    await records.put(REDIS, SUBJECT, LIST)
    await records.put(REDIS, SUBJECT, listing(1, size=9 * KIB))
    assert await records.get(REDIS, SUBJECT) is None


async def test_lists_that_are_empty_push_out_none_that_is_not(opened: Open) -> None:
    records = opened(repository=64 * KIB)
    await records.put(REDIS, SUBJECT, LIST)
    for number in range(500):
        await records.put(REDIS, numbered(number), listing(number, count=0))
    assert await records.get(REDIS, SUBJECT) == LIST
    assert await records.get(REDIS, numbered(499)) is not None
    assert await records.get(REDIS, numbered(0)) is None


@pytest.mark.parametrize(
    ("bound", "flood"),
    [
        ("repository", Repository("docker.io", "library/flood")),
        ("registry", Repository("evil.example", "a")),
    ],
)
async def test_lists_of_one_push_out_none_of_another(
    opened: Open, bound: str, flood: Repository
) -> None:
    records = opened(**{bound: 64 * KIB})
    await records.put(REDIS, SUBJECT, LIST)
    for number in range(200):
        name = flood.name if bound == "repository" else f"{flood.name}{number % 40}"
        await records.put(Repository(flood.registry, name), numbered(number), listing(number))
    assert await records.get(REDIS, SUBJECT) == LIST


async def test_all_are_bounded_and_the_longest_unasked_go_first(
    opened: Open, tmp_path: Path
) -> None:
    records = opened(total=256 * KIB)
    for number in range(1000):
        repository = Repository("docker.io", f"library/{number}")
        await records.put(repository, SUBJECT, listing(number))
    assert await records.get(Repository("docker.io", "library/999"), SUBJECT) is not None
    assert await records.get(Repository("docker.io", "library/0"), SUBJECT) is None
    assert (tmp_path / "referrers.db").stat().st_size < 1024 * KIB


async def test_the_file_is_its_owners_alone(opened: Open, tmp_path: Path) -> None:
    opened()
    assert (tmp_path / "referrers.db").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_of_no_use_is_set_aside(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "referrers.db").write_bytes(os.urandom(8192))
    records = opened()
    await records.put(REDIS, SUBJECT, LIST)
    assert await records.get(REDIS, SUBJECT) == LIST
    assert (tmp_path / "referrers.db.aside").exists()


async def test_where_no_file_can_be_had_the_memory_is_the_processes(
    opened: Open, tmp_path: Path
) -> None:
    records = opened(tmp_path / "nowhere" / "referrers.db")
    await records.put(REDIS, SUBJECT, LIST)
    assert await records.get(REDIS, SUBJECT) == LIST
