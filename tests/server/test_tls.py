"""The mirror's port with TLS: who is let in, how others are told, and what they may cost."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from mirror.oci.errors import Unavailable
from mirror.secret_text import SecretStr
from mirror.server.http.sending import Sender
from mirror.tls import serving_context

from ..e2e.certificates import Certificate, issue
from ..fakes import FakeRegistry
from ..waiting import eventually
from .conftest import DEADLINE, Port, Wire, descriptors, served

Tls = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("issued"), ("m",))


def context_of(issued: Certificate, *, asking: bool = False) -> ssl.SSLContext:
    """A server's, as the mirror makes it; `asking` clients for a certificate by the authority."""
    authority = issued.authority.read_text() if asking else None
    return serving_context(SecretStr(issued.server.read_text()), authority)


def client_of(issued: Certificate, *, showing: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(issued.authority))
    if showing is not None:
        context.load_cert_chain(showing.server)
    return context


@pytest.fixture
async def port(registry: FakeRegistry, sender: Sender, issued: Certificate) -> AsyncIterator[Port]:
    async with served(
        registry, sender, idle=0.5, tls=(context_of(issued), client_of(issued))
    ) as port:
        yield port


async def refusal(port: Port, client: ssl.SSLContext) -> str:
    """What a client is told in place of an answer, or at its first read."""
    port.tls = client

    async def ask() -> None:
        wire = await port.connect()
        await wire.ask("/v2/")
        await wire.head()

    with pytest.raises(ssl.SSLError) as raised:
        await ask()
    return str(raised.value.reason)


async def test_a_client_that_verifies_is_answered_by_http_1_1(port: Port) -> None:
    assert port.tls is not None
    port.tls.set_alpn_protocols(["h2", "http/1.1"])
    wire = await port.connect()
    for _ in range(3):
        await wire.ask("/v2/")
        assert (await wire.answer()).status == 200
    spoken = wire.writer.get_extra_info("ssl_object")
    assert (spoken.selected_alpn_protocol(), spoken.version()) == ("http/1.1", "TLSv1.3")


async def test_older_versions_are_refused_with_an_alert_and_1_2_is_not(
    port: Port, issued: Certificate
) -> None:
    client = client_of(issued)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    port.tls = client
    assert (await port.get("/v2/")).status == 200
    client = client_of(issued)
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
    client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    assert await refusal(port, client) == "TLSV1_ALERT_PROTOCOL_VERSION"


async def test_a_session_is_resumed(port: Port, issued: Certificate) -> None:
    host, number = port.listener.addresses[0]
    client = client_of(issued)

    def twice() -> bool:
        session = None
        for _ in range(2):
            plain = socket.create_connection((host, number), DEADLINE)
            with client.wrap_socket(plain, server_hostname="m", session=session) as spoken:
                spoken.sendall(b"GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n")
                spoken.recv(100)
                session = spoken.session
                reused = bool(spoken.session_reused)
        return reused

    assert await asyncio.to_thread(twice)


async def test_a_new_certificate_is_shown_to_who_comes_next_and_cuts_nobody(
    port: Port, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wire = await port.connect()
    await wire.ask("/v2/")
    await wire.answer()
    other = issue(tmp_path_factory.mktemp("other"), ("m",))
    port.listener.show(context_of(other))
    await wire.ask("/v2/")
    assert (await wire.answer()).status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        await port.get("/v2/")
    port.tls = client_of(other)
    assert (await port.get("/v2/")).status == 200


async def test_only_clients_with_a_certificate_by_the_authority_are_let_in(
    registry: FakeRegistry,
    sender: Sender,
    issued: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    strange = issue(tmp_path_factory.mktemp("strange"), ("m",))
    known = client_of(issued, showing=issued)
    async with served(registry, sender, tls=(context_of(issued, asking=True), known)) as port:
        assert (await port.get("/v2/")).status == 200
        assert await refusal(port, client_of(issued)) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        shown = client_of(issued, showing=strange)
        # Of an authority by the same name as ours, with another key.
        assert await refusal(port, shown) == "TLSV1_ALERT_UNKNOWN_CA"
        await eventually(lambda: port.listener.connections == 0)


async def test_plain_http_is_answered_in_words(port: Port) -> None:
    port.tls = None
    wire = await port.connect()
    await wire.ask("/v2/library/redis/manifests/7", headers={"X": "y" * 9000})
    answer = await wire.answer()
    assert answer.status == 400
    assert b"this port speaks HTTPS" in answer.body
    assert await wire.rest() == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x00\x02",
        bytes(64),
        b"\x16" * 70_000,
    ],
)
async def test_what_is_no_handshake_or_half_of_one_is_let_go(port: Port, sent: bytes) -> None:
    port.tls = None
    before = descriptors()
    wire = await port.connect()
    await wire.send(sent)
    await wire.rest()
    wire.leave()
    await eventually(lambda: port.listener.connections == 0)
    await eventually(lambda: descriptors() <= before)


async def test_half_handshakes_hold_up_nobody_and_end(port: Port) -> None:
    """A hundred that drip: what each has is its time, from when it connected."""
    client, port.tls = port.tls, None
    halves = [await port.connect() for _ in range(100)]
    ends = asyncio.gather(*(drip(half) for half in halves))
    port.tls = client
    assert (await port.get("/v2/")).status == 200
    await asyncio.wait_for(ends, DEADLINE)
    await eventually(lambda: port.listener.connections == 0)


async def drip(wire: Wire) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(400)
    for byte in hello:
        try:
            await wire.send(bytes([byte]))
            await asyncio.sleep(0.02)
        except ConnectionError:
            return


async def test_who_shakes_hands_and_asks_nothing_is_let_go(port: Port) -> None:
    wire = await port.connect()
    await eventually(lambda: port.listener.connections == 1)
    assert await wire.rest() == b""
    assert port.listener.connections == 0


async def test_a_stop_does_not_wait_for_who_never_shakes_hands(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.server.http.accepting._HANDING", 0.05)
    port.tls = None
    wire = await port.connect()
    await wire.send(b"\x16")
    await eventually(lambda: port.listener.connections == 1)
    await asyncio.wait_for(port.listener.stop(0), DEADLINE)
    assert await wire.rest() == b""


async def test_the_end_of_an_answer_that_is_cut_is_not_said_to_be_one(
    port: Port, registry: FakeRegistry
) -> None:
    """A client that takes the end of TLS for that of a body, as by Connection: close, would take it
    for whole."""
    data = os.urandom(1_000_000)
    blob = registry.grow_blob(data)
    blob.grow(300_000)
    host, number = port.listener.addresses[0]
    assert port.tls is not None
    client = port.tls

    def read() -> bytes:
        plain = socket.create_connection((host, number), DEADLINE)
        with client.wrap_socket(plain, server_hostname="m", suppress_ragged_eofs=False) as spoken:
            spoken.sendall(f"GET /v2/a/blobs/{blob.digest} HTTP/1.1\r\nHost: m\r\n\r\n".encode())
            taken = b""
            while piece := spoken.recv(1 << 16):
                taken += piece
        return taken

    reading = asyncio.create_task(asyncio.to_thread(read))
    await eventually(lambda: registry.open == 1)
    blob.fail(Unavailable("gone"))
    with pytest.raises((ssl.SSLEOFError, ConnectionError)):
        await reading
