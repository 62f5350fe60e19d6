"""JSON from strangers: read strictly, or refused."""

from __future__ import annotations

import json
from typing import Any

from .errors import Untrustworthy, quoted

MAX_DEPTH = 32
"""Objects and arrays within one another. An index with platforms has 5."""

MAX_VALUES = 200_000
"""Values in all: what 4 MiB of `[],[],…` would cost, in memory and time, is no manifest's due.
Each value begins its container or follows a comma, so these are counted, within strings too."""


def read_object(data: bytes, most: int = MAX_VALUES) -> dict[str, Any]:
    """A JSON object of at most so many values, by RFC 8259 to the letter: UTF-8 without a byte
    order mark, no NaN; and no key twice, since readers differ in which of the two they believe.

    Raises Untrustworthy, and nothing else; its message never shows the bytes, which may be a
    secret (a token's answer). The caller bounds the length.
    """
    if data.count(b"{") + data.count(b"[") + data.count(b",") > most:
        raise Untrustworthy(f"the JSON has more than {most} values")
    try:
        document = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except RecursionError as error:
        raise Untrustworthy("the JSON is nested too deeply") from error
    except ValueError as error:  # also UnicodeDecodeError, and int() of a thousand digits
        raise Untrustworthy(f"the body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise Untrustworthy(f"the JSON is no object but a {type(document).__name__}")
    if _deeper_than(MAX_DEPTH, document):
        raise Untrustworthy(f"the JSON is nested more than {MAX_DEPTH} deep")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            break
        seen.add(key)
    raise ValueError(f"the key {quoted(key)} occurs twice")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _deeper_than(limit: int, document: dict[str, Any]) -> bool:
    # Level by level. The parser's own guard is the interpreter's stack, of which the caller may
    # have used any part: whether bytes are a manifest must not hang on that.
    level: list[Any] = [document]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
