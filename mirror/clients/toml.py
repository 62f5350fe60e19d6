"""TOML that others have written: read, and extended by tables."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from .plan import Unusable, by_hand

_PLACE = re.compile(r" ?\(at line (\d+), column (\d+)\)$")


def parsed(text: str) -> dict[str, Any]:
    """Raises Unusable."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.search(str(error))
        why = f"it is no TOML: {_PLACE.sub('', str(error))}"
        if found is None:
            raise Unusable(why) from None
        raise Unusable(why, int(found[1]), int(found[2])) from None
    except RecursionError:
        raise Unusable("it is nested too deeply") from None


def extended(text: str, table: str, line: int | None, wanted: dict[str, Any]) -> str:
    """The text with these lines before one of its lines (counted from 0; None: at its end), if that
    makes it say `wanted`, and else Unusable is raised."""
    lines = text.splitlines(keepends=True)
    if line is None:
        line = len(lines)
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        head = ["\n"] if lines and lines[-1].strip() else []
        new = [*lines, *head, table]
    else:
        while line and lines[line - 1].lstrip().startswith("#"):  # those of what comes behind
            line -= 1
        new = [*lines[:line], table, "\n", *lines[line:]]
    after = "".join(new)
    try:
        is_wanted = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        is_wanted = False
    if not is_wanted:
        raise Unusable(by_hand(table))
    return after


def quoted(text: str) -> str:
    """A basic string. What is quoted here has no control characters."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
