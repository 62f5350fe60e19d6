"""What went wrong on the way to a host, in words that say whose fault it is and what to write."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator

import aiohttp
from yarl import URL

from ...frozen import dataclass
from ...oci.errors import Denied, Untrustworthy, quoted
from ..egress import EndpointRefused, NotListed, ReferralRefused
from ..failures import Exhausted, FailureKind, Unreached
from ..proxies import Proxy

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN))
# Errors of this host, which cannot open one more connection: they say nothing of the other host.
_OUR_OWN = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))

# What OpenSSL finds where the other side speaks no TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
# Alerts of RFC 8446, 6.2, by which a server refuses our certificate, or misses it. TLS 1.2 has no
# word of its own for a missing one.
_OF_OURS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "UNSUPPORTED_CERTIFICATE",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
    "ALERT_ACCESS_DENIED",
    "ALERT_DECRYPT_ERROR",
    "ALERT_HANDSHAKE_FAILURE",
)
# OpenSSL's numbers for a certificate whose authority is not known (X509_V_ERR_*).
_UNKNOWN_AUTHORITY = frozenset((2, 18, 19, 20, 21, 27))
_OUT_OF_TIME = frozenset((9, 10))
_OTHER_NAME = frozenset((62, 64))  # another host's, another address's

_NAMED_WRONG = "is the url right, and does this host's DNS know the name?"
_NOBODY = "nobody listens there: is it running, and is the url right, its port too?"
_HANGS = "it is slow, or hangs, or something in between does"
_CUT = "it has ended it, or something in between has"
_NO_REGISTRY = "is the url right, its port too?"
_NO_WAY = "does a firewall stand between, or does the way lead by a proxy (proxy:)?"


class Unresolvable(Exception):
    """A name that only an upstream or a client names has no address here, and so none that could be
    checked."""


class EndpointUnresolvable(Unresolvable):
    """So it is with an endpoint that only a client names."""


class RefusedByProxy(Exception):
    """The proxy itself has answered, not who was asked by it."""

    def __init__(self, status: int, schemes: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.schemes = schemes  # of 407, what Proxy-Authenticate says

    @property
    def is_of_login(self) -> bool:
        """tinyproxy answers 401 to a login that is wrong, and 407 where there is none."""
        return self.status in (401, 407)


class UrlRefused(RefusedByProxy):
    """The proxy forbids this URL, and may let others of the same host through: companies filter by
    path, and clients choose it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked. `name` is the endpoint's; `shows_certificate`: one of ours is configured;
    `seconds` were given to it. `is_elsewhere`: the endpoint has named the host."""

    name: str
    url: URL
    is_elsewhere: bool
    proxy: Proxy | None
    shows_certificate: bool
    seconds: float

    @property
    def host(self) -> str:
        """`host:port`."""
        return f"{self.url.host_subcomponent}:{self.url.port}"

    @property
    def where(self) -> str:
        led = " (where it leads)" if self.is_elsewhere else ""
        by = f", by the proxy {self.proxy.url}" if self.proxy else ""
        return f"{self.name}: {self.url.origin()}{led}{by}"


def is_no_connection(error: Exception) -> bool:
    """Whether the error says that no connection could be made, through no fault of this host."""
    os_error = getattr(error, "os_error", None)
    if isinstance(os_error, OSError) and os_error.errno in _OUR_OWN:
        return False
    if isinstance(error, UrlRefused):
        return False
    kinds = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | RefusedByProxy
    return isinstance(error, kinds) or _alert(error) is not None


def failure(error: Exception, asked: Asked) -> Unreached | Exhausted | Untrustworthy | Denied:
    """The error for an exception of an exchange."""
    where = asked.where
    match error:
        case aiohttp.ClientConnectorError(os_error=OSError(errno=number)) if number in _EXHAUSTED:
            reason = os.strerror(number)
            return Exhausted(f"{where} cannot be asked from here now: {reason}", retry_after=0.5)
        case EndpointRefused() | aiohttp.ClientConnectorError(os_error=EndpointRefused()):
            return Denied(
                f"{where} is at an address that is not public, where only registries of the "
                "configuration may be"
            )
        case NotListed() | aiohttp.ClientConnectorError(os_error=NotListed()):
            return Untrustworthy(
                f"{asked.name} redirects from https to {asked.url.origin()}, which is refused: a "
                "blob, which its digest proves, may come over http where allow_private lists the "
                f"host; list {asked.url.host} there if that is meant"
            )
        case ReferralRefused() | aiohttp.ClientConnectorError(os_error=ReferralRefused()):
            return Untrustworthy(
                f"{where} was named by the upstream, and is at an address that is not public; "
                f"list it ({asked.url.host}) under allow_private if that is meant"
            )
        case EndpointUnresolvable():
            words = (
                f"{where} has a name that cannot be resolved here, so that nothing shows that it "
                f"is public: list it under registries if it may be asked ({error})"
            )
            return Unreached(words, FailureKind.DNS)
        case Unresolvable():
            words = (
                f"{where} was named by the upstream, and its name cannot be resolved here, so that "
                "nothing shows that it is public: list it, or *.example.com for all names below "
                f"one, under allow_private if the proxy may be asked for it ({error})"
            )
            return Unreached(words, FailureKind.DNS)
        case RefusedByProxy(status=status):
            return _refused(status, error.schemes, asked)
        case _ if asked.proxy is not None and _is_of_proxy(error, asked.proxy):
            return Unreached(f"{where}: {_of_proxy(error, asked.proxy)}", FailureKind.PROXY)
        case aiohttp.ClientConnectorDNSError():
            return unresolved(error.os_error, asked)
        case aiohttp.ClientConnectorCertificateError():
            return Unreached(f"{where}: {_of_certificate(error)}", FailureKind.TLS)
        case aiohttp.ClientConnectorSSLError():
            return Unreached(f"{where}: {_of_tls(error.os_error, asked)}", FailureKind.TLS)
        case aiohttp.ConnectionTimeoutError():
            words = f"{where}: no connection in time; {_NO_WAY}"
            return Unreached(words, FailureKind.TIMEOUT)
        case TimeoutError():
            words = f"{where}: no answer within {asked.seconds:g} s; {_HANGS}"
            return Unreached(words, FailureKind.TIMEOUT)
        case aiohttp.ClientConnectorError() if asked.proxy is not None:
            words = "it let us through, and the connection broke before TLS was agreed on"
            return Unreached(f"{where}: {words}", FailureKind.PROXY)
        case aiohttp.ClientConnectorError(os_error=ConnectionError() as lost) if not (
            isinstance(lost, ConnectionRefusedError) or asked.url.scheme == "http"
        ):
            words = f"{where}: cut before TLS was agreed on: {wants_certificate(asked)}"
            return Unreached(words, FailureKind.TLS)
        case aiohttp.ClientConnectorError():
            words = f"{where}: cannot be connected: {_reason(error.os_error)}"
            return Unreached(f"{words}; {_way(error.os_error)}", FailureKind.CONNECT)
        case aiohttp.InvalidURL() | ValueError():
            return Untrustworthy(f"{where}: not a URL that can be asked")
        case aiohttp.ClientResponseError():
            # TLS's alert (RFC 8446, 5.1): what a server of TLS says to a request in plain HTTP.
            is_tls = "\\x15\\x03" in error.message
            advice = "it speaks TLS there, so https:// may be meant" if is_tls else _NO_REGISTRY
            return Unreached(f"{where}: does not answer in HTTP; {advice}", FailureKind.CUT)
        case _ if (alert := _alert(error)) is not None:
            return Unreached(f"{where}: {_of_tls(alert, asked)}", FailureKind.TLS)
        case _:
            return Unreached(f"{where}: the connection broke; {_CUT}", FailureKind.CUT)


def unresolved(error: OSError, asked: Asked) -> Unreached:
    """The error for a name that has no address."""
    words = f"{asked.where}: its name cannot be resolved"
    return Unreached(f"{words}: {error.strerror or 'failed'}; {_NAMED_WRONG}", FailureKind.DNS)


def _reason(error: OSError) -> str:
    """asyncio's own words name the address once more."""
    return os.strerror(error.errno) if error.errno else error.strerror or "no connection"


def _way(error: OSError) -> str:
    return _NOBODY if error.errno == errno.ECONNREFUSED else _NO_WAY


def _is_of_proxy(error: Exception, proxy: Proxy) -> bool:
    """Whether the proxy itself was not reached, or did not speak as one."""
    match error:
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientConnectorDNSError():
            return True
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            at = URL(proxy.url)
            return (error.host, error.port) == (at.raw_host, at.port)
        case aiohttp.ClientResponseError():
            # Over http it is the proxy that answers; what it cannot read it would not pass on.
            return error.request_info.method == "CONNECT" or error.request_info.url.scheme == "http"
        case _:
            return False


def _of_proxy(error: Exception, proxy: Proxy) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            detail = error.os_error.strerror or "failed"
            return f"the proxy's name {URL(proxy.url).host} cannot be resolved: {detail}"
        case aiohttp.ClientConnectorCertificateError():
            return f"of the proxy, {_of_certificate(error)}"
        case aiohttp.ClientConnectorSSLError():
            detail = getattr(error.os_error, "reason", "") or "no handshake"
            return f"TLS with the proxy failed: {detail}; is its URL http://?"
        case aiohttp.ClientConnectorError():
            return f"the proxy cannot be connected: {_reason(error.os_error)}"
        case _:  # tinyproxy sends a page with its 500, also in answer to a HEAD
            return "the proxy does not answer in HTTP, which may mean that it does not reach it"


def _refused(status: int, schemes: str, asked: Asked) -> Unreached:
    proxy = asked.proxy
    who = f"{asked.where}: the proxy"
    match status:
        case 401 | 407 if schemes and "basic" not in schemes.lower():
            offered = quoted(schemes, 60)
            words = f"{who} wants a login of a kind that is not spoken here ({status}, {offered})"
        case 401 | 407 if proxy is not None and proxy.username:
            words = f"{who} refuses the login {proxy.username!r} ({status})"
        case 401 | 407:
            write = "proxy: {url: …, username: …, password_file: …}"
            words = f"{who} wants a login ({status}): write {write}"
        case 403:
            words = f"{who} lets nobody, or not us, through to {asked.host} (403)"
        case 500 | 502 | 503 | 504:
            words = f"{who} does not reach {asked.host} ({status})"
            return Unreached(words, FailureKind.PROXY)
        case _:
            words = f"{who} does not let us through to {asked.host} ({status})"
    return Unreached(words, FailureKind.PROXY, passes=False)


def _of_certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    detail = getattr(found, "verify_message", "") or "not valid"
    code = getattr(found, "verify_code", 0)
    words = f"its TLS certificate is refused: {detail}"
    if code in _UNKNOWN_AUTHORITY:
        return f"{words}; if its authority is your own, write ca_file: with that one's certificate"
    if code in _OTHER_NAME:
        return f"{words.rstrip('.')}; write in the url a name that it is for"
    if code in _OUT_OF_TIME:
        return f"{words}; it has to be renewed there, unless this host's clock is wrong"
    return words


def _of_tls(error: OSError, asked: Asked) -> str:
    reason = getattr(error, "reason", None) or ""
    words = f"TLS failed: {reason or 'no handshake'}"
    if any(reason.startswith(sign) for sign in _NO_TLS):
        return f"{words}: it speaks no TLS there, so http:// may be meant"
    if any(reason.endswith(sign) for sign in _OF_OURS):
        return f"{words}: {wants_certificate(asked)}"
    return words


def wants_certificate(asked: Asked) -> str:
    """What a server says, one way or another, that does not take us without a certificate."""
    if asked.shows_certificate:
        return "it refuses our client certificate, which client: names"
    return "it may want a client certificate: write client: {cert: …, key: …}"


def _alert(error: BaseException) -> ssl.SSLError | None:
    """In TLS 1.3 the server says what it has against our certificate after the handshake has ended
    for us: the first read fails by it."""
    return next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
