"""What people may write: names, patterns, times, addresses. Pure; each raises NotValid, whose
message says what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from ...contracts.administration import NotValid
from ...contracts.hosted import RetentionRule
from ...contracts.identity import Grant
from ...oci.errors import NameInvalid, quoted
from ...oci.reference import parse_name

RESERVED = frozenset({"operator", "anonymous", "v1", "v2", "token"})
"""Names that no user and no organisation has: those of the audit log for who has none, and those of
paths. `library` is none of them: it is special to clients at Docker Hub alone."""

LONGEST_NAME = 64
LEAST_PASSWORD = 8  # characters (NIST SP 800-63B, 5.1.1.2)

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_PATTERN = re.compile(r"[a-z0-9*?._/-]{1,255}")
_TAGS = re.compile(r"[A-Za-z0-9*?._\[\]!-]{1,128}")
_LONGEST_TEXT = 1000
_MOST = 100  # patterns, rules or grants of one thing
_LONGEST_LIFE = 100 * 365 * 86_400.0


def account(name: str, what: str) -> str:
    """The name of a user, an organisation or a robot: the first part of repositories' names."""
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise NotValid(
            f"{quoted(name)} is no name for {what}: write small letters and digits, with single "
            f". _ or - between them, {LONGEST_NAME} at most"
        )
    if name in RESERVED:
        raise NotValid(f"the name {name} is reserved: write another")
    return name


def repository(name: str) -> str:
    """`organisation/name`, or `user/name`; the specification's grammar."""
    try:
        parse_name(name)
    except NameInvalid as error:
        raise NotValid(error.message) from None
    if "/" not in name:
        raise NotValid(f"write it with its organisation: acme/{name}, say")
    return name


def chosen_password(text: str) -> None:
    """What somebody chooses who is not the operator."""
    if len(text) < LEAST_PASSWORD:
        raise NotValid(f"the password has less than {LEAST_PASSWORD} characters: write more")


def grants(given: Sequence[Grant], organisation: str) -> tuple[Grant, ...]:
    """Patterns of names without the organisation, which is taken off where it was written."""
    if not 0 < len(given) <= _MOST:
        raise NotValid(f"write which repositories the robot is for: 1 to {_MOST} patterns")
    found = []
    for each in given:
        pattern = each.pattern.removeprefix(f"{organisation}/")
        if not _PATTERN.fullmatch(pattern):
            raise NotValid(
                f"{quoted(each.pattern)} is no pattern of repositories: write app, team/* or *, "
                "without the organisation"
            )
        found.append(Grant(pattern, each.right))
    return tuple(dict.fromkeys(found))


def webhook_pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise NotValid(f"{quoted(text)} is no pattern of repositories: write app, team/* or *")
    return text


def tag_patterns(given: Sequence[str]) -> tuple[str, ...]:
    if len(given) > _MOST:
        raise NotValid(f"these are more than {_MOST} patterns")
    for each in given:
        if not _TAGS.fullmatch(each):
            raise NotValid(f"{quoted(each)} is no pattern of tags: write v*, release-* or *")
    return tuple(given)


def rules(given: Sequence[RetentionRule]) -> tuple[RetentionRule, ...]:
    if len(given) > _MOST:
        raise NotValid(f"these are more than {_MOST} rules")
    for each in given:
        if not each.match:
            raise NotValid("a rule says which tags it keeps: match v*, say")
        tag_patterns(each.match)
        if each.keep is not None and not 0 <= each.keep <= 1_000_000:
            raise NotValid("keep is a number of tags")
        for seconds in (each.younger, each.untagged):
            if seconds is not None and not 0 <= seconds <= _LONGEST_LIFE:
                raise NotValid("a time is written as 30d")
    return tuple(given)


def label(text: str, what: str) -> str:
    """What people call something, in one line."""
    if not text.strip() or len(text) > LONGEST_NAME or not text.isprintable():
        raise NotValid(f"{what} is one line of 1 to {LONGEST_NAME} characters")
    return text.strip()


def description(text: str) -> str:
    if len(text) > _LONGEST_TEXT or not text.replace("\n", "").isprintable():
        raise NotValid(f"a description is text of {_LONGEST_TEXT} characters at most")
    return text


def quota(size: int | None) -> int | None:
    """Bytes."""
    if size is not None and not 0 <= size < 1 << 62:
        raise NotValid("a quota is a size, such as 50GiB, or none")
    return size


def life(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= _LONGEST_LIFE:
        raise NotValid("an end is a time from now, such as 90d")
    return seconds


def count(given: int, most: int = 1000) -> int:
    """Of entries of a page."""
    return min(max(given, 1), most)


def host_of(url: str) -> str:
    """`name:port` of a webhook's address."""
    write = f"{quoted(url)} is no address for a webhook: write https://ci.example.com/hook"
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        raise NotValid(write) from None
    if len(url) > 2000 or not url.isascii() or not url.isprintable() or " " in url:
        raise NotValid(write)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotValid(write)
    if parts.username is not None or parts.password is not None:
        raise NotValid("a webhook's address has no login in it: it is shown to many")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{port}"
