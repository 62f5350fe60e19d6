"""Text of the configuration → sizes, times, words, paths. Each function raises Mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from ..oci.errors import quoted
from .problems import Mistake, kind

MIN_CACHE = 2**20  # bytes; less than that is a forgotten unit
MAX_CACHE = 2**60
MAX_WORKERS = 256
MAX_FILLS = 4096
MAX_SECONDS = 3650 * 86400

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?) ?([kMGT]B|[KMGT]iB)?", re.ASCII)
_SIZE_UNITS = {
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
}
_TIME = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?(ms|s|m|h|d)", re.ASCII)
_IMAGE_PATTERN = re.compile(r"[A-Za-z0-9._:/*?\[\]!-]{1,384}", re.ASCII)
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def text(value: object, write: str) -> str:
    """Text that is not empty and has no control characters."""
    if not isinstance(value, str):
        raise Mistake(kind(value), write)
    if not value.strip():
        raise Mistake("nothing", write)
    if CONTROL.search(value):
        raise Mistake("text with control characters", write)
    return value


def cache_size(value: object) -> int:
    """Bytes, from `50GiB`, `50GB`, or bare bytes."""
    write = "a size such as 50GiB"
    given, size = _size(value, write)
    if not MIN_CACHE <= size <= MAX_CACHE:
        raise Mistake(quoted(given), f"{write}, from 1MiB to 1048576TiB")
    return size


def size_or_none(value: object) -> int:
    """As `cache_size`, but 0 and small sizes are fine."""
    return _size(value, "a size such as 10GiB, or 0")[1]


def _size(value: object, write: str) -> tuple[str, int]:
    given = text(value, write)
    match = _SIZE.fullmatch(given)
    if not match:
        raise Mistake(quoted(given), write)
    return given, int(Decimal(match[1]) * _SIZE_UNITS.get(match[2], 1))


def seconds(value: object) -> float:
    """Seconds, from `500ms`, `30s`, `5m`, `24h` or `7d`."""
    write = "a time such as 30s, 5m or 24h"
    given = text(value, write)
    match = _TIME.fullmatch(given)
    if not match:
        bare = re.fullmatch(r"[0-9]{1,12}", given)
        raise Mistake(quoted(given), f"the unit too, such as {given}s" if bare else write)
    duration = float(Decimal(match[1]) * _MILLISECONDS[match[2]] / 1000)
    if duration > MAX_SECONDS:
        raise Mistake(quoted(given), f"{write}, 3650d at most")
    return duration


def count(most: int) -> Callable[[object], int]:
    """A validator that takes a whole number from 1 to `most`."""

    def number(value: object) -> int:
        write = f"a whole number from 1 to {most}"
        given = text(value, write)
        if not re.fullmatch(r"[0-9]{1,6}", given) or not 1 <= int(given) <= most:
            raise Mistake(quoted(given), write)
        return int(given)

    return number


def choice(*allowed: str) -> Callable[[object], str]:
    """A validator that takes one of these words."""

    def one(value: object) -> str:
        write = " or ".join(allowed)
        given = text(value, write)
        if given not in allowed:
            raise Mistake(quoted(given), write)
        return given

    return one


def path(value: object) -> Path:
    """A path, `~` expanded; a relative one is relative to the working directory."""
    return Path(os.path.expanduser(text(value, "a path such as /var/lib/registry-mirror")))


def readable_file(value: object) -> Path:
    """A file that is there, and may be read by this process."""
    place = path(value)
    try:
        place.open("rb").close()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        found = f"{quoted(str(place))}: {reason}"
        raise Mistake(found, "the path of a readable file") from None
    return place


def image_pattern(value: object) -> str:
    """Shell-like: `library/redis:7`, `library/*:latest`, `ghcr.io/acme/*`."""
    write = "an image such as library/redis:7, or a pattern such as library/*:latest"
    given = text(value, write)
    if not _IMAGE_PATTERN.fullmatch(given):
        raise Mistake(quoted(given), write)
    return given
