"""Connections: what they may cost, and how they end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from mirror.events import Events
from mirror.server.http.listening import Listener
from mirror.server.http.response_cache import ResponseCache
from mirror.server.http.sending import Sender
from mirror.server.v2.access_log import AccessLog
from mirror.server.v2.handler import V2
from mirror.server.v2.serving import Serving
from mirror.switch import Switch

from ..fakes import FakeRegistry
from ..waiting import eventually
from .conftest import DEADLINE, descriptors, ports, served


async def test_f51_a_head_that_drips_in_is_not_waited_for_for_ever(
    registry: FakeRegistry, sender: Sender
) -> None:
    async with served(registry, sender, idle=0.3) as port:
        silent, dripping, used = [await port.connect() for _ in range(3)]
        await used.ask("/v2/")
        await used.answer()

        async def drip() -> None:
            for byte in b"GET /v2/ HTTP/1.1\r\nHost: " + b"m" * 1000:
                await dripping.send(bytes([byte]))
                await asyncio.sleep(0.01)

        drop = asyncio.create_task(drip())
        for wire in (silent, dripping, used):
            assert await wire.rest() == b""
        assert not drop.done() or drop.exception(), "it was let finish"
        drop.cancel()
        await asyncio.gather(drop, return_exceptions=True)


async def test_f51_the_deadline_for_idle_clients_does_not_cut_an_answer(
    registry: FakeRegistry, sender: Sender
) -> None:
    async with served(registry, sender, idle=0.1) as port:
        data = os.urandom(500_000)
        blob = registry.grow_blob(data)
        blob.grow(1)
        wire = await port.connect()
        idle = await port.connect()
        await wire.ask(f"/v2/a/blobs/{blob.digest}")
        await wire.head()
        await idle.rest()  # the deadline has passed
        blob.grow(len(data))
        blob.finish()
        assert await wire.read(len(data)) == data


async def test_f51_a_body_that_drips_in_is_not_waited_for_for_ever(
    registry: FakeRegistry, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.server.http.listening._LINGER", 0.2)
    async with served(registry, sender) as port:
        wire = await port.connect()
        await wire.send(b"PUT /v2/a/manifests/7 HTTP/1.1\r\nHost: m\r\nContent-Length: 99\r\n\r\nx")
        assert (await wire.answer()).status == 405
        assert await wire.rest() == b""


async def test_f41_a_graceful_stop_lets_running_answers_end(
    registry: FakeRegistry, sender: Sender
) -> None:
    async with served(registry, sender) as port:
        data = os.urandom(1_000_000)
        blob = registry.grow_blob(data)
        blob.grow(100_000)
        busy, idle = await port.connect(), await port.connect()
        await idle.ask("/v2/")
        await idle.answer()
        await busy.ask(f"/v2/a/blobs/{blob.digest}")
        await busy.head()
        host, number = port.listener.addresses[0]
        stopping = asyncio.create_task(port.listener.stop(DEADLINE))
        assert await idle.rest() == b""  # closed at once
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, number)
        assert not stopping.done()
        blob.grow(len(data))
        blob.finish()
        assert await busy.read(len(data)) == data
        assert await busy.rest() == b""
        await stopping


async def test_f41_what_is_not_done_within_the_grace_time_is_cut(
    registry: FakeRegistry, sender: Sender
) -> None:
    before = descriptors()
    async with served(registry, sender) as port:
        blob = registry.grow_blob(os.urandom(1_000_000))
        blob.grow(100_000)
        waiting = registry.grow_blob(b"never comes")
        wires = [await port.connect() for _ in range(4)]
        for wire, digest in zip(wires, 2 * [blob.digest, waiting.digest], strict=True):
            await wire.ask(f"/v2/a/blobs/{digest}")
        await eventually(lambda: registry.open == 4)
        await wires[0].head()
        await asyncio.wait_for(port.listener.stop(0.05), DEADLINE)
        assert registry.open == 0
        for wire in wires:
            await wire.rest()
    await eventually(lambda: descriptors() <= before)


async def test_f41_who_has_connected_before_a_stop_is_answered(
    registry: FakeRegistry, sender: Sender
) -> None:
    async with served(registry, sender) as port:
        address = port.listener.addresses[0]
        clients = [socket.create_connection(address) for _ in range(200)]
        for client in clients:  # the loop has not run since: none of them is accepted
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
        await port.listener.stop(DEADLINE)
        for client in clients:
            client.settimeout(DEADLINE)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            client.close()


async def another(
    registry: FakeRegistry, sender: Sender, port: int, host: str = "127.0.0.1"
) -> Listener:
    """It serves. Raises OSError."""
    events = Events()
    log = AccessLog(print, events)
    table = ResponseCache(log)
    handler = V2(Switch(Serving(registry)), sender, log=log, response_cache=table, events=events)
    listener = Listener(handler, await ports(host, port), response_cache=table, events=events)
    listener.start()
    return listener


async def test_no_host_means_every_address(registry: FakeRegistry, sender: Sender) -> None:
    listener = await another(registry, sender, 0, host="")
    assert {host for host, _ in listener.addresses} == {"0.0.0.0", "::"}
    for _, number in listener.addresses:
        assert number
    await listener.stop(0)


async def test_every_address_is_ipv4_alone_where_the_kernel_has_no_ipv6(
    registry: FakeRegistry, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = socket.create_server

    def without_ipv6(address: Any, *, family: int, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    listener = await another(registry, sender, 0, host="")
    assert [host for host, _ in listener.addresses] == ["0.0.0.0"]
    await listener.stop(0)
    with pytest.raises(OSError, match="family"):
        await another(registry, sender, 0, host="::1")


@pytest.mark.parametrize("reason", [errno.EMFILE, errno.ENOBUFS, errno.EPROTO, errno.EPERM])
async def test_what_keeps_one_from_connecting_keeps_no_other(
    registry: FakeRegistry, sender: Sender, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    accept, failures = socket.socket._accept, [reason] * 3  # type: ignore[attr-defined]

    def failing(self: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "no")
        return accept(self)

    async with served(registry, sender) as port:
        monkeypatch.setattr(socket.socket, "_accept", failing)
        assert (await port.get("/v2/")).status == 200
        assert not failures
        wire = await port.connect()
        failures.append(reason)
        await wire.ask("/v2/")
        await port.listener.stop(0)  # goes on to its end
        await wire.rest()


async def test_a_port_that_is_taken_is_an_oserror_and_leaves_nothing_behind(
    registry: FakeRegistry, sender: Sender
) -> None:
    async with served(registry, sender) as port:
        _, number = port.listener.addresses[0]
        before = descriptors()
        with pytest.raises(OSError, match=str(number)):
            await another(registry, sender, number)
        assert descriptors() <= before
