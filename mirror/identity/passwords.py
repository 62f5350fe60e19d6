"""Passwords of users, as bcrypt keeps them: a hash takes some 60 ms of a processor."""

from __future__ import annotations

import asyncio
import os
import re
from functools import partial

import bcrypt

from ..contracts.identity import ROBOT_PREFIX, TOKEN_PREFIX
from ..frozen import dataclass
from ..places import Crowded, Places
from ..threads import Threads

COST = 10
"""The logarithm of the rounds: 60 ms, which a `docker login` does not feel."""

LONGEST_TURN = 10.0
"""Seconds that a login waits for others before it."""

_AT_ONCE = max(1, (os.cpu_count() or 1) // 4)  # of a process; the others serve meanwhile
_MOST_WAITING = 256  # about, in equal parts by client

_MOST_BYTES = 72  # bcrypt reads no further, and its library refuses more
_HIGHEST_COST = 14  # a login of a second
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_NOBODY = bcrypt.hashpw(b"nobody has this password", bcrypt.gensalt(COST))


class PasswordInvalid(ValueError):
    """The message says why, to a person."""


class TooManyLogins(Exception):
    """No turn came within LONGEST_TURN, or too many of this client wait already."""


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    client: str
    group: str = ""
    is_wanted: bool = True
    vain_turns: int = 0

    def give_back(self) -> bool:
        return False  # it ends by itself


class BcryptPasswords:
    """Passwords. Hashes are made on threads, some at a time; who waits for that has turns by
    client, so that a flood of logins from one place leaves turns to others. Close it."""

    def __init__(self) -> None:
        self._threads = Threads(_AT_ONCE, "passwords")
        self._places = Places(_AT_ONCE, lambda _: _AT_ONCE, most_waiting=_MOST_WAITING)

    async def hash(self, password: str) -> str:
        return await self._threads.run(hash_password, password)

    async def matches(self, password: str, hash: str) -> bool:
        return await self._threads.run(is_password, password, hash)

    def imported(self, hash: str) -> str:
        return imported_hash(hash)

    async def check(self, password: str, password_hash: str | None, client: str) -> bool:
        """As `is_password`, when it is this client's turn. Raises TooManyLogins."""
        claim = _Claim(client)
        try:
            await self._places.take(claim, LONGEST_TURN)
        except (TimeoutError, Crowded):
            raise TooManyLogins from None
        checking = self._threads.begin(is_password, password, password_hash)
        # The place is held until the thread is free, also when the client has left meanwhile.
        checking.add_done_callback(partial(self._leave, claim))
        return await asyncio.shield(checking)

    def _leave(self, claim: _Claim, _: object) -> None:
        self._places.give(claim)

    def close(self) -> None:
        """The threads end by themselves."""
        self._threads.leave()


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
    if password.startswith((TOKEN_PREFIX, ROBOT_PREFIX)):
        raise PasswordInvalid(f"a password begins otherwise than {password[:4]}, as tokens do")
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
