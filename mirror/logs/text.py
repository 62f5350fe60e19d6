"""Lines of the log for people: one line each, and nothing in them that a terminal acts on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST = 500  # characters of one value
_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "31"}
_FRAMES = 3  # of a traceback, the innermost


def printable(text: str, longest: int = _LONGEST) -> str:
    """Without what a terminal acts on, or shows as something else: control characters, and those
    that change the direction of writing. What is left out is shown as U+FFFD.

    >>> printable("a\\x1b[2Jb\\u202ec")
    'a\ufffd[2Jb\ufffdc'
    """
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def harmless(text: str) -> str:
    """As `printable`, of a text that has lines and tabs, whatever its length.

    >>> harmless("a\\tb\\n\\x1b[2Jc")
    'a\\tb\\n\ufffd[2Jc'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def clock_of(at: float | None = None) -> str:
    """The local time of day; None: now."""
    return time.strftime("%T", time.localtime(at))


def line_of(event: Mapping[str, Any], *, is_coloured: bool) -> str:
    """An event of structlog, whose name and level are among its values.

    >>> told = {"event": "endpoint_is_back", "level": "info", "endpoint": "hub", "timestamp": ""}
    >>> line_of(told, is_coloured=False)[9:]
    'endpoint is back  endpoint=hub'
    """
    values = dict(event)
    name = printable(str(values.pop("event", ""))).replace("_", " ")
    level = str(values.pop("level", "info"))
    values.pop("timestamp", None)
    traceback = values.pop("exception", None)
    words = [
        f"{printable(str(key))}={_shown(value)}"
        for key, value in values.items()
        if value not in ("", None)
    ]
    text = f"{name}  {' '.join(words)}" if words else name
    if level != "info":
        text = f"{level.upper()} {text}"
    if traceback is not None:
        text += _traceback(traceback)
    if is_coloured and level in _COLOURS:
        text = f"\x1b[{_COLOURS[level]}m{text}\x1b[0m"
    return f"{clock_of()} {text}"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return printable(", ".join(map(str, value)))
    text = printable(str(value))
    return f'"{text}"' if " " in text else text


def _traceback(told: object) -> str:
    """What structlog makes of one, in one line."""
    if not isinstance(told, Sequence) or isinstance(told, str):
        return f"  {printable(str(told))}"
    parts = []
    for one in told[:2]:
        frames = [f"{frame['filename']}:{frame['lineno']}" for frame in one.get("frames", ())]
        raised = f"{one.get('exc_type', '')}: {one.get('exc_value', '')}"
        parts.append(printable(f"{raised} ({' < '.join(reversed(frames[-_FRAMES:]))})"))
    return "  " + "; caused by ".join(parts)
