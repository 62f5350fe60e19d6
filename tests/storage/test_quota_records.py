"""What processes tell each other of endpoints' limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.interfaces import QuotaRecord
from mirror.storage.quota_records import QuotaRecords

from ..waiting import eventually

HUB = "https://registry-1.docker.io me 0"
RECORD = QuotaRecord(
    limit=100,
    remaining=0,
    window=21600.0,
    source="192.0.2.7",
    said_at=1_700_000_000.125,
    pulls_at=1_700_021_600.125,
    counted=True,
    asks_at=0.0,
)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[QuotaRecords]:
    records = QuotaRecords(tmp_path)
    yield records
    records.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[QuotaRecords]:
    records = QuotaRecords(tmp_path)
    yield records
    records.close()


async def test_what_one_notes_another_hears_once(one: QuotaRecords, other: QuotaRecords) -> None:
    teller, listener = one.of(HUB), other.of(HUB)
    assert listener.heard() is None
    teller.note(RECORD)
    assert await eventually(listener.heard) == RECORD
    assert listener.heard() is None
    assert teller.heard() is None  # it knows
    assert other.of("https://registry-1.docker.io you 0").heard() is None
    listener.note(replace(RECORD, remaining=5, pulls_at=0.0))
    assert await eventually(teller.heard) == replace(RECORD, remaining=5, pulls_at=0.0)


def test_of_many_notes_the_last_holds_and_it_outlives_the_process(tmp_path: Path) -> None:
    records = QuotaRecords(tmp_path)
    teller = records.of(HUB)
    for remaining in range(100):
        teller.note(replace(RECORD, remaining=remaining))
    records.close()
    teller.note(RECORD)  # too late, and no fault
    later = QuotaRecords(tmp_path)
    assert later.of(HUB).heard() == replace(RECORD, remaining=99)
    later.close()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 4000,
        b" " * 5000,
        json.dumps({"version": 1, "account": HUB, "by": "x"}).encode(),
        json.dumps({"version": 1, "account": HUB, "by": "x", "limit": "many"}).encode(),
    ],
)
def test_f48_a_file_that_says_nothing_is_nothing(
    one: QuotaRecords, tmp_path: Path, content: bytes
) -> None:
    records = QuotaRecords(tmp_path)
    records.of(HUB).note(RECORD)
    records.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert one.of(HUB).heard() is None


def test_a_folder_that_cannot_be_written_costs_the_sharing_and_nothing_else(
    tmp_path: Path,
) -> None:
    records = QuotaRecords(tmp_path / "none")
    notes = records.of(HUB)
    notes.note(RECORD)
    records.close()
    assert notes.heard() is None
