"""What processes tell each other of logins that are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.contracts.accounts import RefusedLogin
from mirror.storage.records.accounts import AccountRecords, refused_logins

from ..waiting import eventually

HUB = "https://registry-1.docker.io me 0"
RECORD = RefusedLogin(
    endpoint="registry-1.docker.io",
    login="me",
    why="its token realm (401) refuses the login 'me'",
    until=1_700_000_060.5,
    secret="17 9 1700000000000000000",
    mend="write the right password",
)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[AccountRecords]:
    records = AccountRecords(tmp_path)
    yield records
    records.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[AccountRecords]:
    records = AccountRecords(tmp_path)
    yield records
    records.close()


async def test_what_one_notes_another_hears_once(
    one: AccountRecords, other: AccountRecords
) -> None:
    teller, listener = one.login(HUB), other.login(HUB)
    assert listener.heard() is None
    teller.note(RECORD)
    assert await eventually(listener.heard) == RECORD
    assert listener.heard() is None
    assert teller.heard() is None  # it knows
    assert other.login("https://registry-1.docker.io you 0").heard() is None
    listener.note(replace(RECORD, why="the registry (403)"))
    assert await eventually(teller.heard) == replace(RECORD, why="the registry (403)")


async def test_of_many_notes_the_last_holds_and_it_outlives_the_process(tmp_path: Path) -> None:
    records = AccountRecords(tmp_path)
    teller = records.login(HUB)
    for second in range(100):
        teller.note(replace(RECORD, until=float(second)))
    records.close()
    teller.note(RECORD)  # too late, and no fault
    later = AccountRecords(tmp_path)
    assert later.login(HUB).heard() == replace(RECORD, until=99.0)
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
        json.dumps({"version": 2, "account": HUB, "by": "x"}).encode(),
        json.dumps({"version": 2, "account": HUB, "by": "x", "until": "soon"}).encode(),
    ],
)
async def test_f48_a_file_that_says_nothing_is_nothing(
    one: AccountRecords, tmp_path: Path, content: bytes
) -> None:
    records = AccountRecords(tmp_path)
    records.login(HUB).note(RECORD)
    records.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert one.login(HUB).heard() is None


async def test_a_folder_that_cannot_be_written_costs_the_sharing_and_nothing_else(
    tmp_path: Path,
) -> None:
    records = AccountRecords(tmp_path / "none")
    notes = records.login(HUB)
    notes.note(RECORD)
    records.close()
    assert notes.heard() is None


async def test_a_refused_login_is_heard_of_and_shown_until_it_is_good_again(
    one: AccountRecords, other: AccountRecords, tmp_path: Path
) -> None:
    teller, listener = one.login(HUB), other.login(HUB)
    teller.note(RECORD)
    assert await eventually(listener.heard) == RECORD
    assert refused_logins(tmp_path) == [RECORD]
    listener.note(replace(RECORD, why="", until=0.0))
    assert await eventually(teller.heard) == replace(RECORD, why="", until=0.0)
    assert refused_logins(tmp_path) == []


def test_what_is_no_record_of_a_login_is_passed_over(tmp_path: Path) -> None:
    for number, text in enumerate(("", "{}", "[", '{"version": 2, "by": ""}', "x" * 10_000)):
        (tmp_path / f"login-{number}.json").write_text(text)
    (tmp_path / "login-folder.json").mkdir()
    assert refused_logins(tmp_path) == []
    assert refused_logins(tmp_path / "missing") == []
