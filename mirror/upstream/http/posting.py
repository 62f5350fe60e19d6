"""What is sent to addresses that users have written: webhooks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from ... import __version__
from ...contracts.webhooks import MOST_WORDS, Answer, NotReceived
from ...oci.errors import quoted
from ...tls import verifying_context
from ..egress import Allowed, Guard, Reach, ReferralRefused, reach_of
from ..failures import FailureKind, Unreached
from .heads import Connector
from .proxying import Proxied, Ways
from .resolver import Resolver
from .sessions import Reason, check
from .words import Asked, RefusedByProxy, Unresolvable, failure

_TIMEOUT = 10.0
_DNS = 5.0
_LONGEST_LINE = 8 * 1024
_MOST_FIELDS = 100
_NOT_PUBLIC = (
    "at an address that is not public; an operator may list it ({host}) in mirror.yaml, under "
    "hosted: webhooks: allow_private"
)
_FAILURES = (aiohttp.ClientError, OSError, ValueError, RefusedByProxy, Unresolvable)


class GuardedPoster:
    """Posts to public addresses, and to those that the operator allows. Each exchange has a
    connection of its own, whose address is checked as it is made: what a name meant before proves
    nothing. To be made in a running loop."""

    def __init__(
        self,
        allowed: Allowed,
        ways: Ways,
        *,
        authorities: str = "",
        timeout: float = _TIMEOUT,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`authorities` (PEM) are trusted besides the system's. One exchange takes `timeout`
        seconds at most."""
        self._allowed = allowed
        self._routes = ways.environment
        self._guard = Guard(allowed)
        self._resolver = resolver or Resolver(_DNS)
        self._proxied = Proxied(self._guard, self._resolver, ways.logins)
        self._timeout = timeout
        self._tls = verifying_context(authorities)
        self._sessions: dict[tuple[Reason, bool], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        await self._resolver.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """No redirect is followed. Raises NotReceived."""
        at = _read(url)
        named = self._allowed.names(at.host or "")
        reason = Reason.ALLOWED if named else Reason.REFERRED
        proxy = self._routes.proxy_for(str(at))
        asked = Asked("webhook", at, False, proxy, False, self._timeout)
        try:
            async with asyncio.timeout(self._timeout):
                if proxy is None:
                    session = self._session(reason, by_proxy=False)
                    response = await session.request(
                        "POST", at, headers=headers, data=body, allow_redirects=False
                    )
                else:
                    session = self._session(reason, by_proxy=True)
                    response = await self._proxied.ask(
                        session, proxy, "POST", at, headers, reason, body
                    )
                return await _answer(response)
        except _FAILURES as error:
            raise NotReceived(_words(error, asked)[:MOST_WORDS]) from None

    def _session(self, reason: Reason, by_proxy: bool) -> aiohttp.ClientSession:
        key = (reason, by_proxy)
        if key not in self._sessions:
            self._sessions[key] = aiohttp.ClientSession(
                connector=Connector(
                    ssl=self._tls,
                    resolver=self._resolver,
                    use_dns_cache=False,
                    limit=0,  # what sends here bounds them
                    force_close=True,
                    socket_factory=None if by_proxy else self._socket_factory(reason),
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                headers={
                    "User-Agent": f"registry-mirror/{__version__}",
                    "Accept-Encoding": "identity",
                },
                max_line_size=_LONGEST_LINE,
                max_field_size=_LONGEST_LINE,
                max_headers=_MOST_FIELDS,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._sessions[key]

    def _socket_factory(self, reason: Reason) -> Callable[[Any], socket.socket]:
        """Makes the socket for one address: the last place before it is connected."""

        def make(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
            family, kind, protocol, _, address = info
            check(self._guard, reason, address[0])
            return socket.socket(family, kind, protocol)

        return make


def refusal(url: str, allowed: Allowed) -> str | None:
    """Why nothing would be posted to this address, as far as the URL alone shows it."""
    try:
        host = _read(url).host or ""
    except NotReceived as error:
        return str(error)
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if allowed.names(host) or allowed.covers(address) or reach_of(address) is Reach.PUBLIC:
        return None
    return _NOT_PUBLIC.format(host=host)


def _read(url: str) -> URL:
    try:
        at = URL(url)
    except ValueError:
        at = URL()
    if at.scheme not in ("http", "https") or not at.host:
        raise NotReceived("not a URL that can be asked: https://host/path is meant")
    return at


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    """Reads no more of the body than is shown."""
    try:
        beginning = b""
        if not 200 <= response.status < 300:
            beginning = await response.content.read(MOST_WORDS)
    except aiohttp.ClientError:
        beginning = b""  # the status has come
    finally:
        response.close()
    words = quoted(beginning.decode(errors="replace"), MOST_WORDS // 2) if beginning else ""
    return Answer(response.status, words[:MOST_WORDS])


def _words(error: Exception, asked: Asked) -> str:
    """Never with the URL's path or query, in which receivers have their secrets."""
    if isinstance(getattr(error, "os_error", error), ReferralRefused):
        return f"{asked.where}: {_NOT_PUBLIC.format(host=asked.url.host)}"
    if isinstance(error, Unresolvable):
        return str(
            Unreached(f"{asked.where}: its name cannot be resolved: {error}", FailureKind.DNS)
        )
    return failure(error, asked).message
