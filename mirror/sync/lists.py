"""Lists of images: a name a line, `#` before a comment."""

from __future__ import annotations

from collections.abc import Iterator

MOST_BYTES = 16 << 20


def names(text: str) -> Iterator[tuple[int, str]]:
    """Each line's number, from 1 on, and the name that stands there."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        name = _without_comment(line).strip()
        if name:
            yield number, name


def _without_comment(line: str) -> str:
    """A `#` begins one where it begins the line, or follows a space: no name has one."""
    before, sign, _ = line.partition("#")
    return before if sign and (not before or before[-1].isspace()) else line
