"""Passwords of users, as bcrypt keeps them. Blocking: a hash takes some 60 ms of a processor."""

from __future__ import annotations

import re

import bcrypt

COST = 10
"""The logarithm of the rounds: 60 ms, which a `docker login` does not feel."""

_MOST_BYTES = 72  # bcrypt reads no further, and its library refuses more
_HIGHEST_COST = 14  # a login of a second
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_NOBODY = bcrypt.hashpw(b"nobody has this password", bcrypt.gensalt(COST))


class PasswordInvalid(ValueError):
    """The message says why, to a person."""


def hash_password(password: str) -> str:
    """Raises PasswordInvalid for what cannot be a password."""
    data = password.encode("utf-8", "surrogatepass")
    if len(data) > _MOST_BYTES:
        raise PasswordInvalid(
            f"a password has {_MOST_BYTES} bytes at most (bcrypt reads no further); this has "
            f"{len(data)}"
        )
    if "\0" in password or not password.isprintable():
        raise PasswordInvalid("a password has no control characters")
    return bcrypt.hashpw(data, bcrypt.gensalt(COST)).decode("ascii")


def imported_hash(text: str) -> str:
    """A hash of bcrypt that another program has made (`htpasswd -B`), to be kept as it is. Raises
    PasswordInvalid."""
    found = _HASH.fullmatch(text)
    if found is None:
        raise PasswordInvalid("this is no hash of bcrypt: make it by htpasswd -B")
    if not 4 <= int(found[1]) <= _HIGHEST_COST:
        raise PasswordInvalid(f"the cost of a hash is {_HIGHEST_COST} at most: htpasswd -C sets it")
    return text


def is_password(password: str, password_hash: str | None) -> bool:
    """Whether this password has this hash; None: there is no such account, which takes as long to
    say as that the password is wrong. Never raises."""
    data = password.encode("utf-8", "surrogatepass")
    # What is too long, or has a NUL, can be nobody's, and takes as long as any other.
    sayable = len(data) <= _MOST_BYTES and b"\0" not in data
    shown = data if sayable else b"x"
    found = None if password_hash is None else _HASH.fullmatch(password_hash)
    if found is None or password_hash is None:
        bcrypt.checkpw(shown, _NOBODY)
        return False
    matches = bcrypt.checkpw(shown, password_hash.encode("ascii"))
    if not matches and int(found[1]) < COST:  # imported; a hash that is made here takes longer
        bcrypt.checkpw(shown, _NOBODY)
    return matches and sayable
