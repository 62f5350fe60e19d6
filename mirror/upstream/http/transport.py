"""HTTP to one endpoint and to wherever it leads: connections, redirects, and what each may see.

Errors name the endpoint, and hosts; never a path or a query, since signed URLs carry their secret
there.
"""

from __future__ import annotations

import asyncio
import copy
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from ...clock import Clock
from ...contracts.events import UpstreamAsked, UpstreamRead
from ...contracts.tracing import Attribute, span
from ...events import Events
from ...oci.errors import Unavailable, Untrustworthy
from ..egress import Guard
from ..endpoint import KIB, MIB, Endpoint
from ..failures import FailureKind, Unreachable, Unreached
from ..proxies import Proxy, Routes
from .proxying import Proxied, ProxyLogins, Ways
from .redirects import MAX_HOPS, REDIRECTS, target_of
from .resolver import Resolver
from .sessions import Contexts, Means, Reason, Sessions
from .sessions import origin as origin
from .words import (
    Asked,
    RefusedByProxy,
    Unresolvable,
    failure,
    is_no_connection,
    unresolved,
    wants_certificate,
)

# Reading a short body to its end keeps the connection; above this a new one is cheaper.
_DRAIN = 64 * KIB
# With these a server of TLS speaks of our certificate, or of plain HTTP, on a web page. 495 to 497
# are nginx's own, which it shows as 400.
_OF_CONNECTION = frozenset((400, 495, 496, 497))
_MOST_ORIGINS = 256  # of which it is remembered by which proxy they are asked
_MAX_PAGE = 8 * KIB


class Transport:
    """Sends requests for one endpoint. Safe to make outside a running loop; close it inside.

    `resolver` and `tls` may be shared; the closer of this transport closes only its own resolver.
    What `tls` makes has no certificate of ours. `ways` has the proxies of the environment, where
    the endpoint says nothing of them, and the logins at proxies.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        events: Events,
        *,
        resolver: AbstractResolver | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        ways: Ways | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._events = events
        self._origin = origin(URL(endpoint.url))
        self._own_resolver: Resolver | None = None
        if resolver is None:
            resolver = self._own_resolver = Resolver(endpoint.limits.waits.dns)
        self._resolver: AbstractResolver = resolver
        ways = ways or Ways(Routes(), ProxyLogins(Clock()))
        self._routes = endpoint.connecting.routes or ways.environment
        self._proxy_at = lru_cache(_MOST_ORIGINS)(self._routes.proxy_for)
        self._guard, contexts = Guard(endpoint.addresses.allowed), Contexts(endpoint, tls)
        self._means = Means(endpoint, self._guard, resolver, contexts, endpoint.limits.connections)
        self._sessions = Sessions(self._means)
        self._proxied = Proxied(self._guard, resolver, ways.logins)
        self._closed = False

    def apart(self) -> Transport:
        """Another, with connections of its own, for what the mirror asks in its own name: whether
        an endpoint is there, for tokens, and whether a login is good. All connections of this one
        may be waiting for answers to what clients ask. Close it before this one."""
        apart = copy.copy(self)  # with the guard, which learns at what address the endpoint is
        apart._own_resolver = None
        apart._means = replace(self._means, per_host=0)
        apart._sessions = Sessions(apart._means)
        return apart

    async def close(self) -> None:
        self._closed = True
        await self._sessions.close()
        if self._own_resolver is not None:
            await self._own_resolver.close()

    async def addresses(self, url: URL) -> Sequence[str]:
        """Where the host of this URL is. Raises Unreached."""
        try:
            found = await self._resolver.resolve(url.host or "", url.port or 0, socket.AF_UNSPEC)
        except OSError as error:
            raise unresolved(error, self._asked(url, self._limits.waits.dns)) from error
        return list(dict.fromkeys(one["host"] for one in found))

    def proxy_for(self, url: URL) -> Proxy | None:
        """The proxy by which this URL is asked, if any."""
        return self._proxy_at(origin(url)) if url.absolute else None

    async def fetch(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        authorization: str | None = None,
        within: float | None = None,
        is_proven: bool = False,
        elsewhere: Callable[[URL], Awaitable[str | None]] | None = None,
    ) -> aiohttp.ClientResponse:
        """The answer after at most MAX_HOPS redirects; `response.url` is where it came from. Each
        exchange may take so many seconds (`limits.waits.headers`).

        `authorization` is for the origin of `url` alone: once a redirect has left it, it is not
        shown again, not even where a later redirect leads back. `elsewhere` says what is shown to
        other hosts than the endpoint's, where a redirect leads. With `is_proven` a digest proves
        the bytes: they may come over http from where `allow_private` says, and from a store at that
        origin, which sees no authorization unless it asks for it. Raises Unreached when there is no
        answer, Untrustworthy for a redirect that is not followed.
        """
        shown = authorized = (
            {**headers, "Authorization": authorization} if authorization else headers
        )
        began_secure, reason = url.scheme == "https", self._sessions.reason(url)
        for _ in range(MAX_HOPS + 1):
            response = await self._exchange(method, url, shown, within, reason)
            if response.status in (401, 403) and shown is not authorized:
                await self.discard(response)
                response = await self._exchange(method, url, authorized, within, reason)
            if response.status not in REDIRECTS:
                return response
            location = response.headers.get("Location")
            await self.discard(response)
            target = target_of(self._endpoint.name, url, location)
            if origin(target) != origin(url):
                authorized = headers
                if elsewhere is not None and origin(target) != self._origin:
                    other = await elsewhere(target)
                    authorized = {**headers, "Authorization": other} if other else headers
            # A signed URL takes no other login (S3, Azure). docker shows its token below /v2/
            # alone, containerd and skopeo to the whole host.
            shown = headers if is_proven and "/v2/" not in target.path else authorized
            reason = self._sessions.reason(target)
            if began_secure and target.scheme == "http":
                if not is_proven:
                    name, place = self._endpoint.name, origin(target)
                    raise Untrustworthy(
                        f"{name}: {origin(url)} redirects from https to {place}; refused: only "
                        "blobs, which their digests prove, may come over http"
                    )
                reason = Reason.UNPROTECTED if reason is Reason.REFERRED else reason
            url = target
        raise Untrustworthy(f"{self._endpoint.name}: more than {MAX_HOPS} redirects")

    async def post(
        self, url: URL, form: Mapping[str, str], within: float
    ) -> aiohttp.ClientResponse:
        """The answer to this form. A secret is in it, for the origin of `url` alone: a redirect is
        followed there only, and if it keeps the method (RFC 9110, 15.4.8 and 15.4.9). Raises
        Untrustworthy for another."""
        at = url
        for _ in range(MAX_HOPS + 1):
            response = await self.send("POST", at, {"Accept": "application/json"}, within, form)
            if response.status not in REDIRECTS:
                return response
            location = response.headers.get("Location")
            await self.discard(response)
            target = target_of(self._endpoint.name, at, location)
            if origin(target) != origin(url) or response.status not in (307, 308):
                raise Untrustworthy(
                    f"{self._endpoint.name}: {origin(at)} redirects a login ({response.status}) to "
                    f"{origin(target)}; it is not sent there"
                )
            at = target
        raise Untrustworthy(f"{self._endpoint.name}: more than {MAX_HOPS} redirects")

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        within: float | None = None,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """One exchange; redirects are handed back. The caller discards or reads the response."""
        return await self._exchange(method, url, headers, within, self._sessions.reason(url), form)

    async def _exchange(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        within: float | None,
        reason: Reason,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        about: dict[str, Attribute] = {
            "http.request.method": method,
            "server.address": url.host or "",
            "server.port": url.port or 0,
            "registry_mirror.endpoint": self._endpoint.name,
        }
        with span(method, about, is_client=True) as step:
            response = await self._answered(method, url, headers, within, reason, form)
            if step is not None:
                step.set({"http.response.status_code": response.status})
            return response

    async def _answered(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        within: float | None,
        reason: Reason,
        form: Mapping[str, str] | None,
    ) -> aiohttp.ClientResponse:
        within = self._limits.waits.headers if within is None else within
        asked = self._asked(url, within)
        if self._closed:  # a late try would open connections that are never closed
            raise Unavailable(f"{asked.where}: not asked any more")
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(within):
                if asked.proxy is None:
                    session = self._sessions.session(url, reason, by_proxy=False)
                    response = await session.request(
                        method, url, headers=headers, data=form, allow_redirects=False
                    )
                else:
                    session = self._sessions.session(url, reason, by_proxy=True)
                    response = await self._proxied.ask(
                        session, asked.proxy, method, url, headers, reason, form
                    )
        except (
            *(aiohttp.ClientError, OSError, ValueError),
            *(RefusedByProxy, Unresolvable),
        ) as error:
            raise self._failed(method, asked, error, began) from _without_login(error)
        self._tell(method, str(response.status), began)
        if response.status in _OF_CONNECTION and reason is Reason.ENDPOINT:
            await self._raise_of_connection(method, response, asked)
        return response

    def _failed(self, method: str, asked: Asked, error: Exception, began: float) -> Exception:
        failed = failure(error, asked)
        if not isinstance(failed, Unreached):
            return failed
        self._tell(method, failed.kind, began)
        if origin(asked.url) == self._origin and is_no_connection(error):
            return Unreachable(failed.message, failed.kind, passes=failed.passes)
        return failed

    def _asked(self, url: URL, within: float) -> Asked:
        return Asked(
            self._endpoint.name,
            url,
            origin(url) != self._origin,
            self.proxy_for(url),
            self._endpoint.connecting.shown is not None,
            within,
        )

    async def _raise_of_connection(
        self, method: str, response: aiohttp.ClientResponse, asked: Asked
    ) -> None:
        """Raises Unreachable for a web page that says that the connection is not as it should be:
        nginx's words for a missing or wrong certificate, and those of nginx and Go for plain HTTP
        on a port of TLS. They are the same for every path, and not there in answer to a HEAD."""
        if not response.content_type.startswith("text/"):
            return
        if method == "HEAD":
            await self.discard(response)
            url = asked.url.origin() / "v2/"
            await self.discard(await self._exchange("GET", url, {}, None, Reason.ENDPOINT))
            return
        page = await self.read(response, _MAX_PAGE, self._limits.waits.unwanted) or b""
        if b"SSL certificate" in page and asked.url.scheme == "https":
            words = wants_certificate(asked)
        elif re.search(rb"HTTP request (was sent )?to (an )?HTTPS", page):
            words = "it speaks TLS there: https:// is meant"
        else:
            return
        where = f"{asked.where}: ({response.status})"
        raise Unreachable(f"{where} {words}", FailureKind.TLS)

    def _tell(self, method: str, status: str, began: float) -> None:
        endpoint, took = self._endpoint, asyncio.get_running_loop().time() - began
        self._events.emit(UpstreamAsked(endpoint.registry, endpoint.name, method, status, took))

    async def read(
        self, response: aiohttp.ClientResponse, limit: int, within: float | None = None
    ) -> bytes | None:
        """A body of at most `limit` bytes, whole; None when it is longer. Ends the response.

        Raises Unreached when it is cut, or not here within so many seconds (`limits.waits.body`).
        """
        within = self._limits.waits.body if within is None else within
        if response.content_length is not None and response.content_length > limit:
            response.close()
            return None
        if response.content.is_eof() and response.content.exception() is None:  # all is here
            return self._at_hand(response, limit)
        data = bytearray()
        try:
            async with asyncio.timeout(within):
                while piece := await response.content.read(min(MIB, limit + 1 - len(data))):
                    data += piece
                    if len(data) > limit:
                        return None
        except (aiohttp.ClientError, OSError) as error:
            raise failure(error, self._asked(response.url, within)) from error
        finally:
            self._events.emit(UpstreamRead(self._endpoint.registry, self._endpoint.name, len(data)))
            response.release()  # closes the connection when the body was not read to its end
        return bytes(data)

    def _at_hand(self, response: aiohttp.ClientResponse, limit: int) -> bytes | None:
        """As `read`, of a body whose end has come."""
        data = response.content.read_nowait(limit + 1)
        self._events.emit(UpstreamRead(self._endpoint.registry, self._endpoint.name, len(data)))
        response.release()
        return data if len(data) <= limit else None

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


def _without_login(error: Exception) -> Exception | None:
    """Errors of CONNECT keep the request, and with it the proxy's login."""
    return None if isinstance(error, aiohttp.ClientResponseError) else error
