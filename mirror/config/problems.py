"""What is wrong with a configuration, in words for whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence

from ..frozen import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `line` counts from 1; None when the file could not be read at all.

    `where` is the key's path, as in `storage.max_size`, or "" for the file as a whole. `found` and
    `write` never hold a secret's value.
    """

    source: str
    line: int | None
    where: str
    found: str
    write: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        key = f"{self.where}: " if self.where else ""
        return f"{place}: {key}found {self.found}, write {self.write}"


class ConfigError(Exception):
    """The configuration is of no use. Its text is one line a problem, in the file's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(map(str, self.problems)))


class Mistake(ValueError):
    """A value that cannot be used: what was found, and what to write.

    The place is added where the document is known.
    """

    def __init__(self, found: str, write: str) -> None:
        super().__init__(f"found {found}, write {write}")
        self.found = found
        self.write = write


def kind(value: object) -> str:
    """What a value is, without showing it: it may be a secret in the wrong place."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "keys and values"
        case list():
            return "a list"
        case _:
            return "text"
