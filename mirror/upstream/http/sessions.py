"""Connections, kept apart by why a host is asked: that decides which addresses are fine, and to
whom our certificate is shown."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from ... import __version__
from ...frozen import dataclass
from ...tls import verifying_context
from ..egress import Guard
from ..endpoint import KIB, Endpoint
from .connected import KnowingResponse
from .heads import LONGEST_FIELD, MOST_FIELDS, Connector


def origin(url: URL) -> str:
    """Scheme, host and port: all of a URL that may stand in a message or decide on a secret. yarl's
    own origins differ where a scheme's usual port is written out, and where it is not."""
    return _origin(url.scheme, url.raw_authority) if url.absolute else "nowhere"


@lru_cache(256)
def _origin(scheme: str, authority: str) -> str:
    return str(URL.build(scheme=scheme, authority=authority, encoded=True).origin())


class Reason(Enum):
    """Why a host is asked, which decides what is checked."""

    ENDPOINT = "endpoint"  # the configuration names it
    UNCONFIGURED = "unconfigured"  # the endpoint, that only a client names
    ALLOWED = "allowed"  # the configuration lets the upstream name it
    REFERRED = "referred"  # only the upstream names it
    UNPROTECTED = "unprotected"  # so it does, over http, for bytes that a digest proves


class Contexts:
    """TLS for one endpoint, made when it is first asked: authorities take tens of milliseconds to
    read. `others`, for all but the endpoint's own host, has no certificate of ours."""

    def __init__(self, endpoint: Endpoint, others: Callable[[], ssl.SSLContext] | None) -> None:
        self._connecting = endpoint.connecting
        self._others = others

    @cached_property
    def others(self) -> ssl.SSLContext:
        if self._others is not None:
            return self._others()
        return verifying_context(self._connecting.authorities)

    @cached_property
    def endpoint(self) -> ssl.SSLContext:
        shown = self._connecting.shown
        if shown is None:
            return self.others
        return verifying_context(self._connecting.authorities, shown)


@dataclass(frozen=True, slots=True)
class Means:
    """What all sessions of an endpoint have in common. `per_host` connections to one host at most;
    0: any number."""

    endpoint: Endpoint
    guard: Guard
    resolver: AbstractResolver
    contexts: Contexts
    per_host: int


class Sessions:
    """One session for each reason, and for each whether a proxy is between."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._endpoint = origin(URL(means.endpoint.url))
        self._realm = URL(realm) if (realm := means.endpoint.logins.realm) else None
        self._open: dict[tuple[Reason, bool, bool], aiohttp.ClientSession] = {}

    def reason(self, url: URL) -> Reason:
        addresses = self._means.endpoint.addresses
        if origin(url) == self._endpoint:
            return Reason.ENDPOINT if addresses.configured else Reason.UNCONFIGURED
        if self._realm is not None and origin(url) == origin(self._realm):
            return Reason.ALLOWED
        return Reason.ALLOWED if addresses.allowed.names(url.host or "") else Reason.REFERRED

    def session(self, url: URL, reason: Reason, by_proxy: bool) -> aiohttp.ClientSession:
        """Where this URL is asked. A proxy's own address is not checked: it is configured."""
        key = (reason, by_proxy, self._is_shown(url, reason))
        if key not in self._open:
            self._open[key] = self._opened(*key)
        return self._open[key]

    async def close(self) -> None:
        for session in self._open.values():
            await session.close()
        self._open.clear()

    def _is_shown(self, url: URL, reason: Reason) -> bool:
        """Whether our certificate is for this URL: the endpoint's own, or the configured realm's,
        where that is on the same host."""
        if reason is Reason.ENDPOINT:
            return True
        realm, host = self._realm, URL(self._means.endpoint.url).host
        return realm is not None and origin(url) == origin(realm) and realm.host == host

    def _opened(self, reason: Reason, by_proxy: bool, is_shown: bool) -> aiohttp.ClientSession:
        means = self._means
        limits = means.endpoint.limits
        contexts = means.contexts
        return aiohttp.ClientSession(
            connector=_Connector(
                contexts.others,
                ssl=contexts.endpoint if is_shown else contexts.others,
                resolver=means.resolver,
                ttl_dns_cache=30,
                limit=0,
                limit_per_host=means.per_host,
                socket_factory=None if by_proxy else self._socket_factory(reason),
            ),
            response_class=KnowingResponse,
            # Bytes come as they were sent, no cookie is kept, and aiohttp takes nothing from the
            # environment: neither .netrc, nor a proxy, which is chosen where addresses are checked.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers={
                "User-Agent": f"registry-mirror/{__version__}",
                "Accept-Encoding": "identity",
            },
            max_line_size=LONGEST_FIELD,
            max_field_size=LONGEST_FIELD,
            max_headers=MOST_FIELDS,
            read_bufsize=64 * KIB,  # of big bodies a Receiver takes the rest, in larger pieces
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.waits.connect),
        )

    def _socket_factory(self, reason: Reason) -> Callable[[Any], socket.socket]:
        """Makes the socket for one address: the last place before it is connected, which names and
        IP literals, redirects and rebinding DNS must all pass."""

        def make(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
            family, kind, protocol, _, address = info
            if reason is Reason.ENDPOINT:
                self._means.guard.endpoint_at(address[0])
            else:
                check(self._means.guard, reason, address[0])
            return socket.socket(family, kind, protocol)

        return make


def check(guard: Guard, reason: Reason, address: str) -> None:
    """Raises ReferralRefused where this address may not be connected for this reason."""
    match reason:
        case Reason.UNCONFIGURED:
            guard.check_public(address)
        case Reason.REFERRED:
            guard.check(address)
        case Reason.UNPROTECTED:
            guard.check_listed(address)


class _Connector(Connector):
    """A proxy that is itself spoken to in TLS is one more host: it is not shown our certificate.
    aiohttp has one context for both."""

    def __init__(self, to_proxies: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self._to_proxies = to_proxies
        self._is_by_proxy = options["socket_factory"] is None

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        context = super()._get_ssl_context(req)
        # What is asked by a proxy says so; the request that is made to the proxy itself does not.
        is_to_proxy = self._is_by_proxy and req.proxy is None
        return self._to_proxies if context is not None and is_to_proxy else context
