"""Over which connection an answer came: told to people who look for what is wrong."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from ...frozen import dataclass
from ...oci.errors import quoted
from .connecting import Connection

_MOST_NAMES = 3  # of a certificate, that are shown
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server has shown, and was verified: for whom, by whom, and until when (seconds since
    the epoch). Names are fit for a message."""

    names: tuple[str, ...]
    issuer: str
    until: float


@dataclass(frozen=True, slots=True)
class Connected:
    """`address`: of the server that was connected, or of a proxy. `certificate`: None without
    TLS."""

    address: str
    certificate: Certificate | None


class KnowingResponse(aiohttp.ClientResponse):
    """Keeps what carried it, also when the connection is given back, as that of a short answer is
    at once."""

    over: asyncio.Transport | None = None
    shown: Mapping[str, Any] | None = None  # the server's certificate

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        self.over, protocol = connection.transport, connection.protocol
        if isinstance(protocol, Connection):
            self.shown = protocol.certificate
        return await super().start(connection)


def connected(response: aiohttp.ClientResponse) -> Connected | None:
    """None where that is not known."""
    if not isinstance(response, KnowingResponse):
        return None
    over = response.over
    peer = over.get_extra_info("peername") if over is not None else None
    if over is None or not peer:
        return None
    host, port = peer[:2]
    shown = over.get_extra_info("peercert") or response.shown  # the first is asyncio's
    return Connected(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        _certificate(shown) if shown else None,
    )


async def refused_certificate(host: str, port: int, within: float) -> Certificate | None:
    """What a server shows whose certificate is refused; None where that cannot be told in so many
    seconds. Nothing is sent to it. Python tells the names of a certificate only once it is
    verified: so this one is, as its own authority, whenever it is valid."""
    try:
        async with asyncio.timeout(within):
            alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            alone.check_hostname, alone.verify_mode = False, ssl.CERT_NONE
            encoded = await _shown(host, port, alone, binary=True)
            alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            alone.check_hostname = False
            alone.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
            alone.load_verify_locations(cadata=encoded)
            return _certificate(await _shown(host, port, alone, binary=False))
    except (OSError, ValueError, LookupError):
        return None


async def _shown(host: str, port: int, context: ssl.SSLContext, *, binary: bool) -> Any:
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        return writer.get_extra_info("ssl_object").getpeercert(binary)
    finally:
        writer.transport.abort()


def _certificate(shown: Mapping[str, Any]) -> Certificate:
    """From what `SSLSocket.getpeercert` gives."""
    names = [value for _, value in shown.get("subjectAltName", ())]
    subject, issuer = _words(shown.get("subject", ())), _words(shown.get("issuer", ()))
    return Certificate(
        tuple(quoted(name) for name in names[:_MOST_NAMES]) or (_name_of(subject),),
        _name_of(issuer),
        ssl.cert_time_to_seconds(shown["notAfter"]),
    )


def _words(name: Any) -> Mapping[str, str]:
    return {key: value for part in name for key, value in part}


def _name_of(words: Mapping[str, str]) -> str:
    """The common name, and the organisation, of a distinguished name."""
    parts = (words.get("commonName"), words.get("organizationName"))
    return quoted(", ".join(part for part in parts if part) or "nobody")
