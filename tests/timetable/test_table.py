"""The tables of docs/time.md are what is measured, in virtual time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from mirror.times import DEADLINES

from .own_trouble import OWN
from .stack import Seen, first_byte, manifest, rest, seen, tag
from .wire import (
    Exchange,
    connects_never,
    drips,
    half_then,
    has_a_silent_realm,
    has_no_name,
    refuses,
    says_nothing,
    sends_no_body,
    status,
    well,
)

PAGE = Path(__file__).parents[2] / "docs" / "time.md"

TROUBLES: Mapping[str, Exchange] = {
    "refuses connections": refuses,
    "its name is not found": has_no_name,
    "does not connect": connects_never,
    "sends no headers": says_nothing,
    "sends no body": sends_no_body,
    "drips 100 bytes a second": drips,
    "its token realm is silent": has_a_silent_realm,
    "503": status(503),
    "429, for 30 seconds": status(429, Retry_After="30"),
    "429, for how long it does not say": status(429),
    "404": status(404),
}


Measure = Callable[..., Seen]

COLUMNS: Mapping[str, Measure] = {
    "a tag": lambda *troubles: seen(tag, *troubles),
    "… that was known": lambda *troubles: seen(tag, *troubles, known=True),
    "a manifest": lambda *troubles: seen(manifest, *troubles, promised=True),
    "a blob's first byte": lambda *troubles: seen(first_byte, *troubles, promised=True),
    "… not promised": lambda *troubles: seen(first_byte, *troubles),
    "a blob's second half": lambda *troubles: seen(
        rest, half_then(troubles[0]), *troubles[1:], promised=True
    ),
}


def table(heading: str) -> Sequence[Sequence[str]]:
    """The cells of the table below this heading of the page, its head first."""
    text = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set(row[0]) <= set("-|")]


ONE, TWO, OURS = "One endpoint", "Two endpoints, one of them well", "The mirror's own trouble"
ROWS = [
    pytest.param(heading, row, column, id=f"{heading.split()[0]}: {row}: {column}")
    for heading in (ONE, TWO)
    for row in TROUBLES
    for column in COLUMNS
]


@pytest.mark.parametrize(("heading", "row", "column"), ROWS)
def test_a_client_sees_what_the_page_says(heading: str, row: str, column: str) -> None:
    head, *rows = table(heading)
    shown = {cells[0]: dict(zip(head, cells, strict=True)) for cells in rows}
    others = [well] if heading == TWO else []
    assert str(COLUMNS[column](TROUBLES[row], *others)) == shown[row][column]


@pytest.mark.parametrize("row", OWN)
def test_the_mirrors_own_trouble_is_seen_as_the_page_says(row: str) -> None:
    shown = {cells[0]: cells[1] for cells in table(OURS)}
    assert str(OWN[row]()) == shown[row]


def test_the_page_has_no_row_that_is_not_measured() -> None:
    for heading in (ONE, TWO):
        head, *rows = table(heading)
        assert head[1:] == list(COLUMNS)
        assert [cells[0] for cells in rows] == list(TROUBLES)
    assert [cells[0] for cells in table(OURS)[1:]] == list(OWN)


def test_nothing_takes_longer_than_its_deadline() -> None:
    latest = {
        "a tag": DEADLINES.tag,
        "… that was known": 1.0,
        "a manifest": DEADLINES.manifest,
        "a blob's first byte": DEADLINES.blob,
        "… not promised": DEADLINES.blob,
    }
    for heading in (ONE, TWO):
        head, *rows = table(heading)
        for cells in rows:
            for column, cell in zip(head[1:], cells[1:], strict=True):
                seconds = float((re.findall(r"after ([\d.]+) s", cell) or ["0"])[0])
                assert seconds <= latest.get(column, 91), (heading, cells[0], column)
