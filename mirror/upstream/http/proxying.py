"""How a proxy is asked: for whom, with which login, and which answers are its own."""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from dataclasses import field
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver
from cachetools import LRUCache
from yarl import URL

from ...clock import Clock
from ...frozen import dataclass
from ...oci.registries import DOCKER_HUB_REALM
from ...secret_text import SecretStr
from ...threads import MayHang
from ...times import SECRET
from ..egress import Guard
from ..proxies import Proxy, Routes
from .sessions import Reason, check, origin
from .words import EndpointUnresolvable, RefusedByProxy, Unresolvable, UrlRefused

# Refusals, and what a proxy says that does not reach who was asked by it.
_OWN = frozenset((401, 403, 500, 502, 503, 504))
# Seconds that a refused login rests, twice as long each time, as a registry's does.
_REST, _LONGEST_REST = 60.0, 900.0
_MOST_PROXIES = 256
_NEEDS_NO_CHECK = frozenset((Reason.ENDPOINT, Reason.ALLOWED))


@dataclass(slots=True)
class _Login:
    """`password`: as its file had it when it was last read. It was refused `refused` times in a
    row, and rests until `rests_until`, by the monotonic clock."""

    password: SecretStr | None
    refused: int = 0
    rests_until: float = 0.0
    disk: MayHang = field(default_factory=lambda: MayHang(SECRET))


class ProxyLogins:
    """The logins at proxies, one for each, whoever is asked by it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logins: LRUCache[Proxy, _Login] = LRUCache(_MOST_PROXIES)

    def header(self, proxy: Proxy) -> Mapping[str, str]:
        """Proxy-Authorization (RFC 9110, 11.7.2), where there is a login."""
        password = self._of(proxy).password
        if proxy.username is None or password is None:
            return {}
        login = f"{proxy.username}:{password.get_secret_value()}".encode()
        return {"Proxy-Authorization": "Basic " + base64.b64encode(login).decode("ascii")}

    async def admit(self, proxy: Proxy) -> None:
        """Raises RefusedByProxy while the login rests and its file has no other: who shows a wrong
        one again and again locks its account out."""
        rests = self._of(proxy).rests_until > self._clock.monotonic()
        if rests and not await self.read_again(proxy):
            raise RefusedByProxy(407)

    async def was_refused(self, proxy: Proxy) -> bool:
        """Whether the password, which the proxy has refused, is another one by now. Else the login
        rests."""
        if await self.read_again(proxy):
            return True
        if proxy.username is not None:
            login, now = self._of(proxy), self._clock.monotonic()
            if login.rests_until <= now:  # of those that were refused together one counts
                login.rests_until = now + min(_REST * 2.0**login.refused, _LONGEST_REST)
                login.refused += 1
        return False

    def was_good(self, proxy: Proxy) -> None:
        """Also told by what was asked before a refusal, in a tunnel that is open: that is no word
        on the login."""
        login = self._of(proxy)
        if login.rests_until <= self._clock.monotonic():
            login.refused, login.rests_until = 0, 0.0

    async def read_again(self, proxy: Proxy) -> bool:
        """Whether the password's file has another one by now. Not where that cannot be told: the
        file may be on a share that is gone."""
        login = self._of(proxy)
        try:
            read = await login.disk.run(proxy.again) if proxy.again is not None else None
        except (TimeoutError, OSError):
            return False
        if read is None or read == login.password:
            return False
        login.password, login.refused, login.rests_until = read, 0, 0.0
        return True

    def _of(self, proxy: Proxy) -> _Login:
        login = self._logins.get(proxy)
        if login is None:
            login = self._logins[proxy] = _Login(proxy.password)
        return login


@dataclass(frozen=True, slots=True)
class Ways:
    """What all endpoints of a process have in common: the environment's proxies, and the logins."""

    environment: Routes
    logins: ProxyLogins


class Proxied:
    """Asks proxies."""

    def __init__(self, guard: Guard, resolver: AbstractResolver, logins: ProxyLogins) -> None:
        self._guard = guard
        self._resolver = resolver
        self._logins = logins

    async def ask(
        self,
        session: aiohttp.ClientSession,
        proxy: Proxy,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        reason: Reason,
        form: Mapping[str, str] | bytes | None,
    ) -> aiohttp.ClientResponse:
        """The answer of who is asked by this proxy. Where the proxy refuses its login, the password
        is read again, and shown once more if it is another one; else it rests.

        Raises RefusedByProxy for an answer of the proxy's own, Unresolvable and ReferralRefused for
        a host that it is not asked for, and what `session` raises.
        """
        asked, host = await self._checked(url, reason)
        await self._logins.admit(proxy)
        while True:
            try:
                response = await self._once(
                    session, proxy, method, asked, {**headers, **host}, form
                )
            except RefusedByProxy as refused:
                if not refused.is_of_login or not await self._logins.was_refused(proxy):
                    raise
            else:
                self._logins.was_good(proxy)
                return response

    async def _once(
        self,
        session: aiohttp.ClientSession,
        proxy: Proxy,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        form: Mapping[str, str] | bytes | None,
    ) -> aiohttp.ClientResponse:
        """For https the proxy connects us (CONNECT), for http it asks for us: its login is in the
        one request that it reads itself."""
        login, is_tunnel = self._logins.header(proxy), url.scheme == "https"
        try:
            response = await session.request(
                method,
                url,
                headers=headers if is_tunnel else {**headers, **login},
                data=form,
                allow_redirects=False,
                proxy=proxy.url,
                proxy_headers=login if is_tunnel else None,
            )
        except aiohttp.ClientHttpProxyError as error:
            schemes = error.headers.getall("Proxy-Authenticate", []) if error.headers else []
            raise RefusedByProxy(error.status, ", ".join(schemes)) from None
        except aiohttp.ClientResponseError:
            if not is_tunnel and method == "HEAD":
                # tinyproxy puts a page into its own answers to a HEAD, which makes nonsense of
                # them. What it has against this host it says of each path.
                registry = url.origin() / "v2/"
                shown = {"Host": headers["Host"]} if "Host" in headers else {}
                (await self._once(session, proxy, "GET", registry, shown, None)).close()
            raise
        if not is_tunnel:
            _raise_own_answer(response)
        return response

    async def _checked(self, url: URL, reason: Reason) -> tuple[URL, Mapping[str, str]]:
        """What a proxy is asked for, and a Host where that is an address.

        The proxy's address is all that is connected here: so the host of a URL that only an
        upstream or a client names is resolved here, and every address of it has to be fit for that
        (ReferralRefused). https then goes by the name: who answers there has to prove it by a
        certificate, so that a name server which tells the proxy another address gains nothing. http
        proves nothing, and goes by the address that was checked.
        """
        if reason in _NEEDS_NO_CHECK or origin(url) == DOCKER_HUB_REALM:
            return url, {}
        host = url.host or ""
        try:
            addresses = [str(ip_address(host))]
        except ValueError:
            try:
                found = await self._resolver.resolve(host, url.port or 0, socket.AF_UNSPEC)
            except OSError as error:
                kind = EndpointUnresolvable if reason is Reason.UNCONFIGURED else Unresolvable
                raise kind(error.strerror or "no answer") from None
            addresses = [one["host"] for one in found]
        for address in addresses:
            check(self._guard, reason, address)
        if url.scheme == "https" or not addresses:
            return url, {}
        return url.with_host(addresses[0]), {"Host": url.authority}


def _raise_own_answer(response: aiohttp.ClientResponse) -> None:
    """Raises RefusedByProxy where an answer to a request in absolute form is the proxy's, not the
    registry's. 407 always is. Of the others nothing in HTTP tells it; but squid says that an error
    is its own, and tinyproxy who it is; RFC 9209 has a header that few send."""
    status, headers = response.status, response.headers
    # What is said of /v2/ is said of the registry, and so is that the proxy cannot reach it.
    is_forbidden = status < 500 and status not in (401, 407) and response.url.name
    kind = UrlRefused if is_forbidden else RefusedByProxy
    is_own = status == 407 or (
        status in _OWN
        and (
            "X-Squid-Error" in headers
            or headers.get("Server", "").startswith("tinyproxy")
            or "error=" in headers.get("Proxy-Status", "")
        )
    )
    if is_own:
        response.close()
        raise kind(status, ", ".join(headers.getall("Proxy-Authenticate", [])))
