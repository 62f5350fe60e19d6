"""What the account of the content costs, in steps of its database, which are the same each time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from mirror.oci.digest import Digest
from mirror.storage.coming import Coming
from mirror.storage.index import Index


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
    index.admit(top, 100, 1.0, [manifest])
    index.admit(manifest, 100, 2.0, [config, layer])
    for blob in (config, layer):
        index.reserve(Coming(blob), 1000, 1000)
        index.add(blob, 1000, 3.0)
    index.touch([(each, 4.0) for each in (top, manifest, config, layer)])
    index.reserve(Coming(of("given up", image)), 1000, None)
    index.release(Coming(of("given up", image)))


def steps_of(index: Index, work: Callable[[], None]) -> int:
    steps = 0

    def count(event: dict[str, dict[str, int]]) -> None:
        nonlocal steps
        steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    index._writer.trace_v2(apsw.SQLITE_TRACE_PROFILE, count)
    work()
    index._writer.trace_v2(0, None)
    return steps


def test_an_image_costs_the_same_however_many_there_are(index: Index) -> None:
    pull(index, 0)
    few = steps_of(index, lambda: pull(index, 1))
    for image in range(2, 100):
        pull(index, image)
    many = steps_of(index, lambda: pull(index, 100))
    assert 0 < many <= few * 1.1


def test_a_database_from_before_is_as_cheap(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db", 1 << 40)
    index._writer.execute("DROP INDEX needs_by_child")
    pull(index, 1)
    index.close()
    again = Index(tmp_path / "index.db", 1 << 40)
    assert again.size(of(3, 1)) == 1000
    assert again._reader.execute(
        "SELECT 1 FROM sqlite_schema WHERE name = 'needs_by_child'"
    ).fetchall()
    again.close()
