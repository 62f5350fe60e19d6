"""A mirror's port over real sockets, with a FakeRegistry behind it."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mirror.server.http import accepting
from mirror.server.http.listening import Listener
from mirror.server.http.response_cache import ResponseCache
from mirror.server.http.sending import Sender
from mirror.server.v2.access_log import AccessLog
from mirror.server.v2.handler import V2
from mirror.server.v2.serving import Serving
from mirror.switch import Switch

from ..fakes import Answers, FakeRegistry

DEADLINE = 10.0  # seconds after which a test is stuck


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@dataclass
class Answer:
    """An answer as it came over the wire; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Wire:
    """A client that sends exactly what it is told, and sees exactly what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [] if "Host" in (headers or {}) else ["Host: mirror"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def head(self) -> Answer:
        """Status and headers of the next answer, its body left unread."""
        async with asyncio.timeout(DEADLINE):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = raw.decode("latin-1").rstrip().split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        assert len({name.lower() for name, _, _ in pairs}) == len(pairs), "a header came twice"
        return Answer(int(status.split()[1]), {name.lower(): value for name, _, value in pairs})

    async def answer(self, method: str = "GET") -> Answer:
        answer = await self.head()
        if method != "HEAD" and answer.status != 304:
            answer.body = await self.read(int(answer.headers["content-length"]))
        return answer

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """All that comes until the server closes; a reset is its end too."""
        data = bytearray()
        async with asyncio.timeout(DEADLINE):
            try:
                while piece := await self.reader.read(1 << 16):
                    data += piece
            except ConnectionError:
                pass
        return bytes(data)

    def leave(self) -> None:
        self.writer.transport.abort()


@dataclass
class Port:
    """The port under test."""

    registry: FakeRegistry
    told: Answers
    listener: Listener
    lines: list[str]
    serving: Switch[Serving]
    response_cache: ResponseCache
    tls: ssl.SSLContext | None = None
    """What its clients connect with."""
    wires: list[Wire] = field(default_factory=list)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The access log's lines so far."""
        self.response_cache._log.flush()
        return [json.loads(line) for lines in self.lines for line in lines.split("\n")]

    async def connect(self, limit: int = 1 << 16) -> Wire:
        host, port = self.listener.addresses[0]
        name = "m" if self.tls is not None else None
        wire = Wire(
            *await asyncio.open_connection(
                host, port, limit=limit, ssl=self.tls, server_hostname=name
            )
        )
        self.wires.append(wire)
        return wire

    async def get(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        wire = await self.connect()
        await wire.ask(path, method, headers)
        answer = await wire.answer(method)
        wire.leave()
        return answer


@pytest.fixture
def registry(tmp_path: Path) -> FakeRegistry:
    return FakeRegistry(tmp_path)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, with a certificate of its own making, and one of a client that does not
    mind."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "m")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


async def ports(host: str = "127.0.0.1", port: int = 0, tls: bool = False) -> list[accepting.Port]:
    """Sockets that listen there. Raises OSError."""
    return [accepting.Port(each, tls) for each in await accepting.open_sockets(host, port, 1024)]


@asynccontextmanager
async def served(
    registry: FakeRegistry,
    sender: Sender,
    *,
    patience: float = 60.0,
    idle: float = 60.0,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> AsyncIterator[Port]:
    """This registry on a port of its own. `tls`: a server's context, and a client's."""
    told, lines = Answers(), list[str]()
    log = AccessLog(lines.append, told)
    response_cache = ResponseCache(log)
    serving = Switch(Serving(registry, patience=patience))
    handler = V2(serving, sender, log=log, response_cache=response_cache, events=told)
    listener = Listener(
        handler,
        await ports(tls=tls is not None),
        response_cache=response_cache,
        events=told,
        tls=tls[0] if tls else None,
        idle=idle,
    )
    listener.start()
    port = Port(registry, told, listener, lines, serving, response_cache, tls[1] if tls else None)
    try:
        yield port
    finally:
        for wire in port.wires:
            wire.leave()
        await listener.stop(0)


@pytest.fixture
def sender() -> Iterator[Sender]:
    sender = Sender()
    sender.start()
    yield sender
    sender.close()


@pytest.fixture
async def port(registry: FakeRegistry, sender: Sender) -> AsyncIterator[Port]:
    async with served(registry, sender) as port:
        yield port
    assert registry.open == 0, "a content was not closed"
