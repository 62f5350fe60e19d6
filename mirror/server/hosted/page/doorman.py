"""Whose browser it is: a name and a password become a cookie."""

from __future__ import annotations

from math import ceil

from aiohttp import web

from ....contracts.context import PrincipalKind
from ....contracts.identity import TOKEN_PREFIX, Authenticator, Refusal
from ...browsing.failures import Refused
from .sessions import LIFE, Sessions, SignedIn
from .visits import Site, Visit


class Doorman:
    """Whose browser it is."""

    def __init__(self, authenticator: Authenticator, sessions: Sessions, site: Site) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._site = site

    async def recognise(self, visit: Visit) -> SignedIn | None:
        return await self._sessions.of(self._cookie(visit))

    def _cookie(self, visit: Visit) -> str:
        return visit.request.cookies.get(self._cookie_name(visit), "")

    def _cookie_name(self, visit: Visit) -> str:
        """With TLS, one that no plain page and no other name of this domain can have set (RFC
        6265bis, section 4.1.3.2)."""
        return "__Host-registry" if self._site.is_secure(visit.request) else "registry"

    def _set_cookie(self, visit: Visit, answer: web.Response, value: str, life: int) -> None:
        answer.set_cookie(
            self._cookie_name(visit),
            value,
            max_age=life,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._site.is_secure(visit.request) or None,
        )

    async def sign_in(self, visit: Visit, name: str, password: str) -> str:
        """The name of the user whose login that is. Raises Refused."""
        if password.startswith(TOKEN_PREFIX):
            raise Refused(403, "DENIED", "Sign in by the password: tokens are for clients.")
        found = await self._authenticator.login(name, password, visit.context.client)
        if isinstance(found, Refusal):
            wait = ceil(found.retry_after) or None
            words = (
                f"There were too many wrong passwords: try again in {wait} s."
                if wait
                else "That name and password are none that are known here."
            )
            raise Refused(429 if wait else 403, "UNAUTHORIZED", words, retry_after=wait)
        if found.kind is not PrincipalKind.USER:
            raise Refused(403, "DENIED", "A robot has no page: sign in as a user.")
        return found.name

    async def begin(self, visit: Visit, user: str, answer: web.Response) -> None:
        """Another session than the one that this browser has had. Raises Refused."""
        await self._end(visit)
        cookie = await self._sessions.begin(user)
        if cookie is None:
            raise Refused(403, "UNAUTHORIZED", "That account is not in use.")
        self._set_cookie(visit, answer, cookie, LIFE)

    async def end(self, visit: Visit, answer: web.Response) -> None:
        await self._end(visit)
        self._set_cookie(visit, answer, "", 0)

    async def _end(self, visit: Visit) -> None:
        if visit.signed_in is not None:
            await self._sessions.end(self._cookie(visit))
