"""A socket that speaks TLS, used like a plain one."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from collections.abc import Iterator

import pytest

from mirror.sockets.tls import TlsSocket, Wait

from ..upstream.authority import Authority

HOST = "registry.example"
MIB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def pair(
    authority: Authority, request: pytest.FixtureRequest
) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    """A server's and its client's, who have shaken hands."""
    context = authority.server(HOST)
    context.maximum_version = request.param
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)  # for many small records
    server, client = TlsSocket(ours, context), TlsSocket(theirs, authority.trusted(), HOST)
    waits = [Wait.READABLE]
    while any(wait is not Wait.NOTHING for wait in waits):
        waits = [client.shake(), server.shake()]
    yield server, client
    server.close()
    client.close()


def received(client: TlsSocket, size: int = MIB) -> bytes:
    """By one call."""
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: client.recv_into(buffer)])


def test_one_call_receives_all_that_has_come(pair: tuple[TlsSocket, TlsSocket]) -> None:
    server, client = pair
    data = os.urandom(50_000)
    assert server.send(data) == len(data)
    assert received(client) == data
    with pytest.raises(BlockingIOError):
        received(client)


def test_what_is_left_of_a_record_waits_for_the_next_call(
    pair: tuple[TlsSocket, TlsSocket],
) -> None:
    server, client = pair
    server.send(b"abcdef")
    assert received(client, 4) == b"abcd"
    assert client.has_more()
    assert received(client) == b"ef"
    assert not client.has_more()


def test_who_sends_a_byte_in_each_record_gets_turns_as_others_do(
    pair: tuple[TlsSocket, TlsSocket],
) -> None:
    server, client = pair
    for _ in range(300):
        server.send(b"x")
    assert 0 < len(received(client)) < 300
    assert len(received(client)) > 0


def test_what_came_before_the_end_comes_before_it(pair: tuple[TlsSocket, TlsSocket]) -> None:
    server, client = pair
    server.send(b"last")
    server.close()
    assert [received(client) for _ in range(3)] == [b"last", b"", b""]


def test_who_is_cut_off_without_a_word_is_at_the_end(pair: tuple[TlsSocket, TlsSocket]) -> None:
    server, client = pair
    server.send(b"last")
    server.cut()
    server.close()
    assert [received(client) for _ in range(3)] == [b"last", b"", b""]


def test_what_came_before_nonsense_comes_before_its_error(
    pair: tuple[TlsSocket, TlsSocket],
) -> None:
    server, client = pair
    server.send(b"last")
    os.write(server.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
    assert received(client) == b"last"
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            received(client)


def shaken(client: TlsSocket, server: socket.socket, records: bytes) -> int:
    """With all of these; how often."""
    left, times = memoryview(records), 0
    while left:
        with contextlib.suppress(BlockingIOError):
            left = left[server.send(left) :]
        assert client.shake() is Wait.READABLE
        times += 1
    return times


def test_a_server_that_only_asks_for_hellos_holds_nobody_and_is_cut() -> None:
    """HelloRequests (RFC 5246, 7.4.1.1) are passed over, whoever sends them."""
    ours, theirs = socket.socketpair()
    client = TlsSocket(ours, ssl.create_default_context(), HOST)
    assert client.shake() is Wait.READABLE
    theirs.recv(MIB)
    theirs.setblocking(False)
    records = b"\x16\x03\x03\0\x04\0\0\0\0" * (MIB // 36)  # a quarter of a MiB
    assert shaken(client, theirs, records) > 2
    with pytest.raises(ConnectionResetError, match="bytes of nothing"):
        shaken(client, theirs, records * 3)
    client.close()
    theirs.close()


def test_an_end_that_comes_with_the_last_bytes_is_seen_by_a_poll(
    authority: Authority,
) -> None:
    """Of the server's TLS alone, whose connection stays open."""
    ours, theirs = socket.socketpair()
    server = TlsSocket(ours, authority.server(HOST))
    client = TlsSocket(theirs, authority.trusted(), HOST)
    waits = [Wait.READABLE]
    while any(wait is not Wait.NOTHING for wait in waits):
        waits = [client.shake(), server.shake()]
    assert server.send(b"the last") == 8
    held = os.dup(server.fileno())
    server.close()
    assert client.recv(MIB) == b"the last"
    ready, _, _ = select.select([client], [], [], 10)
    assert ready
    assert client.recv(MIB) == b""
    os.close(held)
    client.close()
