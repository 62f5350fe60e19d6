"""Text of the configuration → sizes, times, shares, words, paths. Each function raises Mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from ..oci.digest import ALGORITHMS, Digest
from ..oci.errors import BadRequest, DigestInvalid, quoted
from ..oci.reference import parse_image
from ..oci.registries import DOCKER_HUB
from . import cores
from .problems import Mistake, kind

MIN_CACHE = 2**20  # bytes; less than that is a forgotten unit
MAX_CACHE = 2**60
MAX_WORKERS = 256
MAX_FILLS = 4096
MAX_CONNECTIONS = 1024
MAX_PARTS = 16
MAX_SECONDS = 3650 * 86400

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?) ?([kMGT]B|[KMGT]iB)?", re.ASCII)
_SIZE_UNITS = {
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
}
_TIME = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?(ms|s|m|h|d)", re.ASCII)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%", re.ASCII)
_IMAGE_PATTERN = re.compile(r"[A-Za-z0-9._:/*?\[\]!-]{1,384}", re.ASCII)
_VARIABLE = re.compile(r"\$\{|\$[A-Z_]+(?:/|$)")
_RULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
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


def share(value: object) -> float:
    """A part of the whole, from `20%`."""
    write = "a share such as 20%, from 0% to 100%"
    given = text(value, write)
    match = _SHARE.fullmatch(given)
    if not match or float(match[1]) > 100:
        raise Mistake(quoted(given), write)
    return float(match[1]) / 100


def count(most: int) -> Callable[[object], int]:
    """A validator that takes a whole number from 1 to `most`."""

    def number(value: object) -> int:
        write = f"a whole number from 1 to {most}"
        given = text(value, write)
        if not re.fullmatch(r"[0-9]{1,6}", given) or not 1 <= int(given) <= most:
            raise Mistake(quoted(given), write)
        return int(given)

    return number


def workers(value: object) -> int:
    """How many processes: `auto` becomes as many as cores that this one may use."""
    if value == "auto":
        return cores.usable()
    try:
        return count(MAX_WORKERS)(value)
    except Mistake as mistake:
        raise Mistake(mistake.found, f"{mistake.write}, or auto") from None


def yes_or_no(value: object) -> bool:
    """`true` or `false`, and none of YAML's other words for them."""
    return choice("true", "false")(value) == "true"


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
    given = text(value, "a path such as /var/lib/registry-mirror")
    if _VARIABLE.search(given):
        raise Mistake(f"{quoted(given)}, in which no variable is replaced", "the path itself")
    return Path(os.path.expanduser(given))


def path_or_none(value: object) -> Path | None:
    """As `path`; `none` is None."""
    return None if value == "none" else path(value)


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


def repository_patterns(value: object) -> tuple[str, ...]:
    """One pattern of repositories, or a list of them: `library/*`, `ghcr.io/acme/*`, `*`."""
    write = "a repository such as library/redis, or a pattern such as ghcr.io/acme/*"
    patterns = []
    for each in value if isinstance(value, list) else [value]:
        given = text(each, write)
        bare, colon, _ = given.rpartition(":")
        if colon and "/" not in given[len(bare) :]:
            # What a tag points to can be had by its digest too: a rule for tags would hold nobody.
            raise Mistake(quoted(given), f"{bare}: a rule is for a repository with all its tags")
        if not _IMAGE_PATTERN.fullmatch(given):
            raise Mistake(quoted(given), write)
        patterns.append(given)
    if not patterns:
        raise Mistake("an empty list", write)
    return tuple(patterns)


def rule_name(value: object) -> str:
    """What messages to clients call a rule."""
    write = "a name such as no-internal: letters, digits, '-', '_', '.', 64 at most"
    given = text(value, write)
    if not _RULE_NAME.fullmatch(given):
        raise Mistake(quoted(given), write)
    return given


def image_patterns(value: object) -> tuple[str, ...]:
    """One pattern as `image_pattern` takes it, or a list of them."""
    patterns = tuple(map(image_pattern, value if isinstance(value, list) else [value]))
    if not patterns:
        raise Mistake("an empty list", "a pattern such as library/*:latest")
    return patterns


def tagged_image(value: object) -> str:
    """`redis`, `redis:7`, `ghcr.io/acme/app:v1`: whose registry is read where the default is
    known (`parse_image`)."""
    write = "an image such as redis:7 or ghcr.io/acme/app:v1"
    given = text(value, write)
    try:
        image = parse_image(given, DOCKER_HUB)
    except BadRequest:
        raise Mistake(quoted(given), write) from None
    if isinstance(image.reference, Digest):
        raise Mistake("an image with a digest", f"its tag, as in {image.repository.name}:latest")
    return given


def digest_or_time(value: object) -> Digest | datetime:
    """A digest, or a time with its zone: `2026-11-01` is its first moment in UTC."""
    write = "sha256:… (a digest), a date such as 2026-11-01, or a time such as 2026-11-01T12:30Z"
    given = text(value, write)
    try:
        if given.partition(":")[0] in ALGORITHMS:
            return Digest.parse(given)
        time = datetime.fromisoformat(given)
    except DigestInvalid:
        raise Mistake(quoted(given), "sha256: and 64 lower-case hex digits") from None
    except ValueError:
        raise Mistake(quoted(given), write) from None
    if not 1970 < time.year < 3000:
        raise Mistake(quoted(given), "a date of this century")
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def image_pattern(value: object) -> str:
    """Shell-like: `library/redis:7`, `library/*:latest`, `ghcr.io/acme/*`."""
    write = "an image such as library/redis:7, or a pattern such as library/*:latest"
    given = text(value, write)
    if not _IMAGE_PATTERN.fullmatch(given):
        raise Mistake(quoted(given), write)
    return given
