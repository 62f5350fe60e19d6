"""One line of the doctor's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from ...frozen import dataclass


class Mark(StrEnum):
    GOOD = "ok"
    WARN = "warn"
    BAD = "FAIL"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`subject`: what was looked at. `mend`: what to do, "" where nothing is to be done."""

    mark: Mark
    subject: str
    words: str
    mend: str = ""

    def as_json(self) -> Mapping[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Diagnosis:
        return cls(Mark(found["mark"]), found["subject"], found["words"], found["mend"])


def good(subject: str, words: str) -> Diagnosis:
    return Diagnosis(Mark.GOOD, subject, words)


def warn(subject: str, words: str, mend: str) -> Diagnosis:
    return Diagnosis(Mark.WARN, subject, words, mend)


def bad(subject: str, words: str, mend: str) -> Diagnosis:
    return Diagnosis(Mark.BAD, subject, words, mend)
