"""Who may see the page and the API, and who may change something by them.

Three kinds of strangers are kept out:

- Pages of other sites, by way of their reader's browser. Browsers say where a request comes from
  (`Origin`, `Sec-Fetch-Site`): what changes something is taken from this page alone, which shows a
  token of this process as well. Programs send neither field, and are let in with a JSON body, which
  no page of another site can send without asking first (the Fetch standard's preflight), and that
  is refused. On a loopback address the Host has to name this machine (DNS rebinding).
- Whoever has not the token of `admin.token_file`, where there is one. Programs show it as a bearer
  token (RFC 6750). Browsers show it once, in a form, and then a cookie that this process has made.
- What guesses tokens: `_TRIES` wrong ones a minute of one client, then none is looked at.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from hashlib import sha256

from aiohttp import hdrs
from cachetools import TTLCache

from ...clock import Clock
from ..browsing.browsers import refuse_other_sites, same
from ..browsing.failures import Refused
from ..http.browsers import is_loopback_url, names_loopback
from ..http.networks import network_of
from .console import Admissions
from .failures import read_only

COOKIE = "registry_mirror_session"
PROOF = "X-CSRF-Token"
"""The header by which the page shows that a request is its own."""

LIFE = 12 * 3600
"""Seconds for which a browser need not show the token again."""

_TRIES = 10
_WINDOW = 60  # seconds
_CLIENTS = 1024  # whose wrong tokens are counted: the latest ones


class Guard:
    def __init__(self, admissions: Admissions, clock: Clock) -> None:
        self._admissions = admissions
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self.proof = secrets.token_urlsafe(32)
        self._wrong: TTLCache[str, int] = TTLCache(_CLIENTS, _WINDOW, timer=clock.monotonic)

    @property
    def asks_for_a_token(self) -> bool:
        return self._admissions().token is not None

    @property
    def may_write(self) -> bool:
        return self._admissions().write

    # Who asks.

    def check_sight(self, headers: Mapping[str, str], cookie: str, client: str) -> None:
        """Raises Refused where a token is wanted, and neither it nor a good cookie is shown."""
        if not self.asks_for_a_token or self._is_session(cookie):
            return
        scheme, _, shown = headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(shown.strip(), client):
            return
        raise Refused(
            401,
            "UNAUTHORIZED",
            "show the token of admin.token_file: Authorization: Bearer …"
            if not shown
            else "the token is not that of admin.token_file",
        )

    def is_token(self, shown: str, client: str) -> bool:
        """Raises Refused where this client has shown too many wrong ones."""
        wanted = self._admissions().token
        key = network_of(client)
        wrong = self._wrong.get(key, 0)
        if wrong >= _TRIES:
            words = f"too many wrong tokens: try again in {_WINDOW} s"
            raise Refused(429, "TOOMANYREQUESTS", words, retry_after=_WINDOW)
        if wanted is not None and same(shown, wanted):
            return True
        self._wrong[key] = wrong + 1
        return False

    def new_session(self) -> str:
        """A cookie's value for who has shown the token."""
        until = str(int(self._clock.wall()) + LIFE)
        return f"{until}.{self._sign(until)}"

    def _is_session(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        if not same(signature, self._sign(until)):
            return False
        return self._clock.wall() < int(until)

    def _sign(self, until: str) -> str:
        """With the token in it: of another one, no session is good."""
        words = f"{until}\n{self._admissions().token or ''}"
        return hmac.digest(self._key, words.encode(), sha256).hex()

    # Who changes something.

    def check_change(self, headers: Mapping[str, str], cookie: str) -> None:
        """Raises Refused where nothing may be changed, or not by who asks. To be called when
        `check_sight` has let them in."""
        if not self.may_write:
            raise read_only()
        refuse_other_sites(headers)
        by_browser = hdrs.ORIGIN in headers or "Sec-Fetch-Site" in headers or bool(cookie)
        if by_browser or PROOF in headers:
            if not same(headers.get(PROOF, ""), self.proof):
                words = "this page is older than the mirror that runs: load it again"
                raise Refused(403, "STALE_PAGE", words)
        elif headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip() != "application/json":
            words = "what changes something has a JSON body: Content-Type: application/json"
            raise Refused(415, "UNSUPPORTED", words)


def refuse_other_names(headers: Mapping[str, str]) -> None:
    """Of a loopback address. Raises Refused where Host or Origin name another machine."""
    if not names_loopback(headers):
        words = "the Host header names another machine: ask for localhost or 127.0.0.1"
        raise Refused(403, "OTHER_HOST", words)
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and not is_loopback_url(origin):
        raise Refused(403, "OTHER_SITE", "pages of other sites may not ask here")
