"""Tags in the order of the versions that they name, and those of them that a pattern means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..oci.wanted import matcher

_VERSION = re.compile(r"[vV]?(?P<numbers>[0-9]{1,18}(?:\.[0-9]{1,18}){0,5})(?P<rest>.*)", re.DOTALL)
_BEFORE = re.compile(r"[-._+]?(?:alpha|beta|rc|pre|dev|snapshot|nightly|canary)", re.IGNORECASE)
_DIGITS = re.compile(r"([0-9]{1,18})")
# Of signatures and what else is found by an image's digest (cosign; the referrers' fallback).
_OF_A_DIGEST = re.compile(r"sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\.[a-z]+)?")

_Key = tuple[object, ...]


def chosen(tags: Iterable[str], pattern: str, newest: int | None = None) -> Sequence[str]:
    """The tags that the pattern means, the newest version first, as many as `newest`. What is found
    by a digest, as signatures are, is meant only by a pattern that begins like it.

    >>> chosen(["v1.9", "v1.10", "latest", "v1.10-rc1"], "v*", 2)
    ['v1.10', 'v1.10-rc1']
    """
    matches = matcher(pattern).match
    of_digests = pattern.startswith("sha")
    found = {tag for tag in tags if matches(tag) and (of_digests or not is_of_a_digest(tag))}
    return sorted(found, key=_version, reverse=True)[:newest]


def is_of_a_digest(tag: str) -> bool:
    return _OF_A_DIGEST.fullmatch(tag) is not None


def _version(tag: str) -> _Key:
    """As semver orders versions, and above all that is none. What follows a version, as in
    `7.2-alpine`, makes it no older, unless it is a word for what comes before a release."""
    found = _VERSION.fullmatch(tag)
    if found is None:
        return (0, (), 0, _natural(tag))
    numbers = tuple(map(int, found["numbers"].split(".")))
    while numbers and not numbers[-1]:
        numbers = numbers[:-1]
    rest = found["rest"]
    return (1, numbers, -1 if _BEFORE.match(rest) else 0, _natural(rest))


def _natural(text: str) -> _Key:
    """Numbers in it by their size."""
    parts = _DIGITS.split(text)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
