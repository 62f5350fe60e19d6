"""What tells one request from all others: in answers, in the log, and in bodies of errors."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from itertools import count

HEADER = "X-Request-Id"

# A client may name its request itself, in words that are harmless wherever they are shown.
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

_beginning = ""
_numbers = count()


def _begin() -> None:
    """A counter behind a random beginning, for each process: 0.2 µs, where 8 random bytes take
    0.45."""
    global _beginning, _numbers
    _beginning, _numbers = secrets.token_hex(4), count(secrets.randbits(32))


_begin()
os.register_at_fork(after_in_child=_begin)


def request_id(given: Sequence[str]) -> str:
    """The client's own, of these values of the header, if there is one and it may be taken; else a
    new one of 16 hex digits."""
    if len(given) == 1 and is_id(given[0]):
        return given[0]
    return f"{_beginning}{next(_numbers) & 0xFFFFFFFF:08x}"


def is_id(text: str) -> bool:
    return _GIVEN.fullmatch(text) is not None
