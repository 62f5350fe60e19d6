"""Sessions of browsers: a cookie with a random secret, of which the records know the hash.

A session ends with its time, by signing out, with another password of its user, and when the user
is disabled or gone: all of that is looked at when it is used, in the records that all processes and
nodes share. What shows that a form is the page's own (a CSRF token) is made of the cookie's secret,
which no page of another site can read.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import Protocol

from ....clock import Clock
from ....contracts.identity import Session, SessionRecords, User
from ....frozen import dataclass
from ...browsing.browsers import same

LIFE = 12 * 3600
"""Seconds for which a browser need not show the password again."""

MOST = 20
"""Sessions of one user: with one more, the oldest is over."""

_LONGEST = 64  # characters of a cookie that is looked for


class Accounts(Protocol):
    """What sessions ask of the records of users (see IdentityRecords)."""

    async def user(self, name: str) -> User | None: ...

    async def password_hash(self, user: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class SignedIn:
    """`proof`: the CSRF token of this session's forms."""

    user: str
    proof: str

    def is_own(self, shown: str) -> bool:
        """Whether a form comes from a page that was shown in this session."""
        return same(shown, self.proof)


class Sessions:
    def __init__(self, records: SessionRecords, accounts: Accounts, clock: Clock) -> None:
        self._records = records
        self._accounts = accounts
        self._clock = clock

    async def begin(self, user: str) -> str | None:
        """For a user who has just shown the password; the cookie's value. None where the account
        went away meanwhile."""
        mark = await self._mark(user)
        if mark is None:
            return None
        cookie = secrets.token_urlsafe(32)
        now = self._clock.wall()
        await self._records.add_session(_key(cookie), Session(user, mark, now, now + LIFE), MOST)
        return cookie

    async def of(self, cookie: str) -> SignedIn | None:
        if not cookie or len(cookie) > _LONGEST:
            return None
        found = await self._records.session(_key(cookie))
        if found is None or self._clock.wall() >= found.expires_at:
            return None
        mark = await self._mark(found.user)
        if mark is None or not hmac.compare_digest(mark, found.password_mark):
            return None
        proof = hmac.digest(cookie.encode("utf-8", "surrogateescape"), b"form", sha256).hex()
        return SignedIn(found.user, proof)

    async def end(self, cookie: str) -> None:
        await self._records.remove_session(_key(cookie))

    async def _mark(self, name: str) -> bytes | None:
        """None where nobody may sign in by this name."""
        user = await self._accounts.user(name)
        hashed = await self._accounts.password_hash(name)
        if user is None or user.is_disabled or hashed is None:
            return None
        return sha256(hashed.encode()).digest()


def _key(cookie: str) -> bytes:
    return sha256(cookie.encode("utf-8", "surrogateescape")).digest()
