"""What people write into forms, read. All raise Refused, with words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from ....contracts.hosted import RetentionRule
from ...browsing.failures import Refused

_DAY = 86_400.0
_GIB = 2**30
_MOST = 36_500.0  # days

Word = TypeVar("Word", bound=StrEnum)


def invalid(words: str) -> Refused:
    return Refused(400, "INVALID", words)


def lines(text: str) -> tuple[str, ...]:
    """What is written on lines of its own, or with commas between.

    >>> lines("v*, release-* \\n\\n latest")
    ('v*', 'release-*', 'latest')
    """
    parts = (each.strip() for each in text.replace(",", "\n").splitlines())
    return tuple(each for each in parts if each)


def one_of(kind: type[Word], written: str, what: str) -> Word:
    try:
        return kind(written)
    except ValueError:
        raise invalid(f"{what} is one of {', '.join(kind)}.") from None


def days(written: str, what: str) -> float | None:
    """In seconds; None for nothing."""
    if not written:
        return None
    found = _number(written, f"{what} is a number of days, as 90.")
    if not 0 < found <= _MOST:
        raise invalid(f"{what} is from 1 to {_MOST:g} days.")
    return found * _DAY


def gib(written: str, what: str) -> int | None:
    """In bytes; None for nothing."""
    if not written:
        return None
    found = _number(written, f"{what} is a number of GiB, as 50.")
    if not 0 < found < 2**30:
        raise invalid(f"{what} is more than 0 GiB.")
    return int(found * _GIB)


def count(written: str, what: str) -> int | None:
    if not written:
        return None
    if not (written.isascii() and written.isdigit() and len(written) < 7 and int(written)):
        raise invalid(f"{what} is a whole number, as 10.")
    return int(written)


def _number(written: str, otherwise: str) -> float:
    try:
        found = float(written)
    except ValueError:
        raise invalid(otherwise) from None
    if found != found:  # NaN
        raise invalid(otherwise)
    return found


MOST_RULES = 20


def rules(form: Mapping[str, str]) -> Sequence[RetentionRule]:
    """Fields are `match-0`, `keep-0`, `younger-0`, `untagged-0`, …; a rule without patterns is
    none."""
    found = []
    for place in range(MOST_RULES):
        match = lines(form.get(f"match-{place}", ""))
        keep = count(form.get(f"keep-{place}", "").strip(), "How many stay")
        younger = days(form.get(f"younger-{place}", "").strip(), "The age of tags")
        untagged = days(form.get(f"untagged-{place}", "").strip(), "The age of what has no tag")
        if match:
            found.append(RetentionRule(match, keep, younger, untagged))
        elif keep or younger or untagged:
            raise invalid("A rule says which tags it is for: * for all.")
    return found


def in_days(seconds: float | None) -> str:
    """
    >>> in_days(90 * 86400.0), in_days(None), in_days(43200.0)
    ('90', '', '0.5')
    """
    return "" if seconds is None else f"{seconds / _DAY:g}"


def in_gib(count: int | None) -> str:
    """
    >>> in_gib(50 * 2**30), in_gib(None)
    ('50', '')
    """
    return "" if count is None else f"{count / _GIB:g}"
