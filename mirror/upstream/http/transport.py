"""HTTP to one endpoint and to wherever it leads: connections, redirects, and what each may see.

Errors name the endpoint, and hosts; never a path or a query, since signed URLs carry their secret
there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ... import __version__
from ...contracts.events import UpstreamAsked, UpstreamRead
from ...events import Events
from ...oci.errors import Denied, Unavailable, Untrustworthy
from ...threads import Threads
from ...tls import verifying_context
from ..egress import EndpointRefused, Guard, ReferralRefused
from ..endpoint import KIB, MIB, Endpoint
from ..failures import Exhausted, FailureKind, Unreachable, Unreached
from .connected import KnowingResponse
from .heads import LONGEST_FIELD, MOST_FIELDS, Connector

MAX_HOPS = 10  # as Go's net/http, and with it container clients
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN))
REDIRECTS = frozenset((301, 302, 303, 307, 308))
_LOCATION = re.compile(r"[\x21-\x7e]+")
# Errors of this host, which cannot open one more connection: they say nothing of the other host.
_OUR_OWN = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
# Reading a short body to its end keeps the connection; above this a new one is cheaper.
_DRAIN = 64 * KIB


def origin(url: URL) -> str:
    """Scheme, host and port: all of a URL that may stand in a message or decide on a secret."""
    return str(url.origin()) if url.absolute else "nowhere"


class Resolver(AbstractResolver):
    """getaddrinfo in threads of its own, and not for longer than `timeout` seconds.

    A name server that hangs would else hold the threads that hash and write.
    """

    def __init__(self, timeout: float, threads: int = 4) -> None:
        self._timeout = timeout
        self._threads = Threads(threads, "dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        # AI_ADDRCONFIG: no IPv6 addresses on a machine that has none.
        ask = partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            flags=socket.AI_ADDRCONFIG,
        )
        if not self._threads.can_run():  # it would hold up the event loop
            raise OSError(errno.EAGAIN, "no thread can be started to ask for an address")
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._threads.run(ask)
        except TimeoutError:
            # Not a TimeoutError: the connector takes only an OSError with a number for DNS's.
            raise OSError(0, f"no answer within {self._timeout:g} s") from None
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for found_family, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.leave()


class _Why(Enum):
    """Why a host is connected, which decides what is checked."""

    ENDPOINT = "endpoint"  # the configuration names it
    ALLOWED = "allowed"  # the configuration lets the upstream name it
    REFERRED = "referred"  # only the upstream names it


class Transport:
    """Sends requests for one endpoint. Safe to make outside a running loop; close it inside.

    `resolver` and `tls` may be shared; the closer of this transport closes only its own resolver.
    `per_host` connections to one host at most; 0: any number.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        events: Events,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        per_host: int | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._per_host = endpoint.limits.connections if per_host is None else per_host
        self._events = events
        self._origin = origin(URL(endpoint.url))
        self._realm = origin(URL(realm)) if (realm := endpoint.logins.realm) else None
        self._guard = Guard(endpoint.addresses.allowed)
        self._own_resolver: Resolver | None = None
        if resolver is None:
            resolver = self._own_resolver = Resolver(endpoint.limits.waits.dns)
        self._resolver: AbstractResolver = resolver
        self._tls = tls or verifying_context()
        self._sessions: dict[_Why, aiohttp.ClientSession] = {}
        self._closed = False

    def apart(self) -> Transport:
        """Another, with connections of its own, for what the mirror asks in its own name: whether
        an endpoint is there, for tokens, and whether a login is good. All connections of this one
        may be waiting for answers to what clients ask. Close it before this one."""
        apart = Transport(
            self._endpoint, self._events, resolver=self._resolver, tls=self._tls, per_host=0
        )
        apart._guard = self._guard  # which learns at what address the endpoint is
        return apart

    async def close(self) -> None:
        self._closed = True
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        if self._own_resolver is not None:
            await self._own_resolver.close()

    async def addresses(self, url: URL) -> Sequence[str]:
        """Where the host of this URL is. Raises Unreached."""
        host, port = url.host or "", url.port or 0
        try:
            found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        except OSError as error:
            reason = error.strerror or "failed"
            where = f"{self._endpoint.name}: {origin(url)}"
            raise Unreached(
                f"{where}: its name cannot be resolved: {reason}", FailureKind.DNS
            ) from error
        return list(dict.fromkeys(one["host"] for one in found))

    async def fetch(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        authorization: str | None = None,
        within: float | None = None,
    ) -> aiohttp.ClientResponse:
        """The answer after at most MAX_HOPS redirects; `response.url` is where it came from. Each
        exchange may take so many seconds (`limits.waits.headers`).

        `authorization` is for the origin of `url` alone: once a redirect has left it, it is not
        shown again, not even where a later redirect leads back. Raises Unreached when there is no
        answer, Untrustworthy for a redirect that is not followed.
        """
        asked = {**headers, "Authorization": authorization} if authorization else dict(headers)
        for _ in range(MAX_HOPS + 1):
            response = await self.send(method, url, asked, within)
            if response.status not in REDIRECTS:
                return response
            location = response.headers.get("Location")
            await self.discard(response)
            target = self._target(url, location)
            if target.origin() != url.origin():
                asked.pop("Authorization", None)
            url = target
        raise Untrustworthy(f"{self._endpoint.name}: more than {MAX_HOPS} redirects")

    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], within: float | None = None
    ) -> aiohttp.ClientResponse:
        """One exchange; redirects are handed back. The caller discards or reads the response."""
        within = self._limits.waits.headers if within is None else within
        where = f"{self._endpoint.name}: {origin(url)}"
        if self._closed:  # a late try would open connections that are never closed
            raise Unavailable(f"{where}: not asked any more")
        try:
            async with asyncio.timeout(within):
                response = await self._session(url).request(
                    method, url, headers=headers, allow_redirects=False
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = _failure(error, where, within)
            if isinstance(failure, Unreached):
                self._tell(method, failure.kind)
                if origin(url) == self._origin and _is_no_connection(error):
                    raise Unreachable(failure.message, failure.kind) from error
            raise failure from error
        self._tell(method, str(response.status))
        return response

    def _tell(self, method: str, status: str) -> None:
        endpoint = self._endpoint
        self._events.emit(UpstreamAsked(endpoint.registry, endpoint.name, method, status))

    async def read(
        self, response: aiohttp.ClientResponse, limit: int, within: float | None = None
    ) -> bytes | None:
        """A body of at most `limit` bytes, whole; None when it is longer. Ends the response.

        Raises Unreached when it is cut, or not here within so many seconds (`limits.waits.body`).
        """
        within = self._limits.waits.body if within is None else within
        where = f"{self._endpoint.name}: {origin(response.url)}"
        if response.content_length is not None and response.content_length > limit:
            response.close()
            return None
        data = bytearray()
        try:
            async with asyncio.timeout(within):
                while piece := await response.content.read(min(MIB, limit + 1 - len(data))):
                    data += piece
                    if len(data) > limit:
                        return None
        except (aiohttp.ClientError, OSError) as error:
            raise _failure(error, where, within) from error
        finally:
            self._events.emit(UpstreamRead(self._endpoint.registry, self._endpoint.name, len(data)))
            response.release()  # closes the connection when the body was not read to its end
        return bytes(data)

    async def discard(self, response: aiohttp.ClientResponse) -> None:
        """Ends a response whose body is of no use, keeping the connection where that is cheap."""
        length = response.content_length
        if length is None or length > _DRAIN:
            response.close()
            return
        try:
            await self.read(response, _DRAIN, self._limits.waits.unwanted)
        except Unavailable:
            response.close()

    def _target(self, url: URL, location: str | None) -> URL:
        """Where a redirect leads. A login in it, and its fragment, are left out."""
        name = self._endpoint.name
        if not location:
            raise Untrustworthy(f"{name}: a redirect without Location from {origin(url)}")
        if not _LOCATION.fullmatch(location):
            raise Untrustworthy(f"{name}: a redirect from {origin(url)} with a broken Location")
        try:
            # `encoded`: a signed URL is signed as it is written.
            target = url.join(URL(location, encoded=True))
            target = target.with_user(None).with_fragment(None)
            downgrade = url.scheme == "https" and target.scheme == "http"
            usable = target.scheme in ("http", "https") and bool(target.host)
        except ValueError:
            raise Untrustworthy(
                f"{name}: a redirect from {origin(url)} with a broken Location"
            ) from None
        if downgrade:
            raise Untrustworthy(
                f"{name}: {origin(url)} redirects from https to {origin(target)}; refused"
            )
        if not usable:
            raise Untrustworthy(f"{name}: a redirect from {origin(url)} to no http URL")
        return target

    def _session(self, url: URL) -> aiohttp.ClientSession:
        if origin(url) == self._origin:
            why = _Why.ENDPOINT
        elif origin(url) == self._realm or self._endpoint.addresses.allowed.names(url.host or ""):
            why = _Why.ALLOWED
        else:
            why = _Why.REFERRED
        if why not in self._sessions:
            self._sessions[why] = self._open_session(why)
        return self._sessions[why]

    def _open_session(self, why: _Why) -> aiohttp.ClientSession:
        limits = self._limits
        return aiohttp.ClientSession(
            connector=Connector(
                ssl=self._tls,
                resolver=self._resolver,
                ttl_dns_cache=30,
                limit=0,
                limit_per_host=self._per_host,
                socket_factory=self._socket_factory(why),
            ),
            response_class=KnowingResponse,
            # Bytes come as they were sent, no cookie is kept, and nothing is taken from the
            # environment: neither a proxy, behind which no address could be checked, nor .netrc.
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

    def _socket_factory(self, why: _Why) -> Callable[[Any], socket.socket]:
        """Makes the socket for one address: the last place before it is connected, which names and
        IP literals, redirects and rebinding DNS must all pass."""

        def make(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
            family, kind, protocol, _, address = info
            if why is _Why.ENDPOINT and not self._endpoint.addresses.configured:
                self._guard.check_public(address[0])
            elif why is _Why.ENDPOINT:
                self._guard.endpoint_at(address[0])
            elif why is _Why.REFERRED:
                self._guard.check(address[0])
            return socket.socket(family, kind, protocol)

        return make


def _is_no_connection(error: Exception) -> bool:
    """Whether the error says that no connection could be made, through no fault of this host."""
    os_error = getattr(error, "os_error", None)
    if isinstance(os_error, OSError) and os_error.errno in _OUR_OWN:
        return False
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _failure(
    error: Exception, where: str, seconds: float
) -> Unreached | Exhausted | Untrustworthy | Denied:
    """The error for an exception of aiohttp, in words that name the endpoint and the host."""
    match error:
        case aiohttp.ClientConnectorError(os_error=OSError(errno=number)) if number in _EXHAUSTED:
            reason = os.strerror(number)
            return Exhausted(f"{where} cannot be asked from here now: {reason}", retry_after=0.5)
        case aiohttp.ClientConnectorDNSError():
            detail = error.os_error.strerror or "failed"
            return Unreached(f"{where}: its name cannot be resolved: {detail}", FailureKind.DNS)
        case aiohttp.ClientConnectorCertificateError():
            detail = getattr(error.certificate_error, "verify_message", "") or "not valid"
            return Unreached(f"{where}: its TLS certificate is refused: {detail}", FailureKind.TLS)
        case aiohttp.ClientConnectorSSLError():
            detail = getattr(error.os_error, "reason", "") or "no handshake"
            return Unreached(f"{where}: TLS failed: {detail}", FailureKind.TLS)
        case aiohttp.ClientConnectorError(os_error=EndpointRefused()):
            return Denied(
                f"{where} is at an address that is not public, where only registries of the "
                "configuration may be"
            )
        case aiohttp.ClientConnectorError(os_error=ReferralRefused()):
            return Untrustworthy(
                f"{where} was named by the upstream, and is at an address that is not public; "
                "list it under allow_private if that is meant"
            )
        case aiohttp.ConnectionTimeoutError():
            return Unreached(f"{where}: no connection in time", FailureKind.TIMEOUT)
        case TimeoutError():
            return Unreached(f"{where}: no answer within {seconds:g} s", FailureKind.TIMEOUT)
        case aiohttp.ClientConnectorError():
            detail = error.os_error.strerror or "no connection"
            return Unreached(f"{where}: cannot be connected: {detail}", FailureKind.CONNECT)
        case aiohttp.InvalidURL() | ValueError():
            return Untrustworthy(f"{where}: not a URL that can be asked")
        case aiohttp.ClientResponseError():
            return Unreached(f"{where}: does not answer in HTTP", FailureKind.CUT)
        case _:
            return Unreached(f"{where}: the connection broke", FailureKind.CUT)
