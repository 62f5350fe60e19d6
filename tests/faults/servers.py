"""Upstreams that no HTTP library would let one write, and ones behind TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_RESET = struct.pack("ii", 1, 0)


@contextlib.asynccontextmanager
async def bare(serve: Serve) -> AsyncIterator[str]:
    """A server of bytes; its URL. Its connections end with it."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_ones:
            writer.close()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request, and answers with a reset."""
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def babbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request, and answers in no protocol."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"220 mail.example.org ESMTP\r\n")
    await writer.drain()


class Fickle:
    """An HTTP/1.1 server that promises to keep its connections, and closes them as it likes: after
    an answer, or when the next request comes. Serve it by `bare`."""

    def __init__(self, pages: Mapping[str, tuple[Mapping[str, str], bytes]], seed: int) -> None:
        self._pages = pages
        self._random = random.Random(seed)
        self.closed = 0  # requests that got no answer

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            method, path, _ = head.split(" ", 2)
            if answered and self._random.random() < 0.3:
                self.closed += 1
                return
            headers, body = self._pages[path]
            lines = [f"{name}: {value}" for name, value in headers.items()]
            lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *lines, "", ""]
            writer.write("\r\n".join(lines).encode("ascii") + (body if method == "GET" else b""))
            await writer.drain()
            answered += 1
            if self._random.random() < 0.3:
                return


@dataclass(frozen=True)
class Certificate:
    """PEM: what a client is to trust, and what the server has."""

    trusted: Path
    server: Path

    def environment(self) -> dict[str, str]:
        """For a client that is to trust it, and nobody else."""
        return {"SSL_CERT_FILE": str(self.trusted), "SSL_CERT_DIR": "/nowhere"}


def certificate(folder: Path, name: str = "localhost", ended: bool = False) -> Certificate:
    """A certificate that vouches for itself, for this name; `ended`: its time is over."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's server")])
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * day)
        .not_valid_after(now - day if ended else now + day)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    trusted, server = folder / "trusted.pem", folder / "server.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    server.write_bytes(
        trusted.read_bytes()
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(trusted, server)


@contextlib.asynccontextmanager
async def https(
    certificate: Certificate, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[str]:
    """A server behind TLS; its URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.server)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class NameServer(asyncio.DatagramProtocol):
    """DNS that says of every name that there is none; or, as long as it is `mute`, nothing."""

    def __init__(self) -> None:
        self.mute = False
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked += 1
        if not self.mute:
            # The question with the bits of an answer, and NXDOMAIN (RFC 1035, 4.1.1).
            self._transport.sendto(
                data[:2] + b"\x81\x83" + data[4:6] + bytes(6) + data[12:], address
            )


@contextlib.asynccontextmanager
async def name_server(address: str) -> AsyncIterator[NameServer]:
    """On port 53 of this address: that needs root."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, (address, 53))
    try:
        yield server
    finally:
        transport.close()


def asking(address: str, folder: Path) -> list[str]:
    """What to put before a command whose names this name server is to resolve. Needs root."""
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {address}\noptions timeout:2 attempts:1\n")
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(resolv)]
