"""Large bodies of requests are received by threads, whoever sends them, and however."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mirror.oci.errors import Interrupted
from mirror.server.hosted import bodies
from mirror.server.hosted.bodies import RequestBody
from mirror.server.http.receiving import Receiver
from mirror.server.http.sending import Sender
from mirror.threads import aside

from ...waiting import eventually
from .conftest import LOGIN, Door, hosted

LARGE = hashlib.shake_256(b"large").digest(5 << 20)
DIGEST = f"sha256:{hashlib.sha256(LARGE).hexdigest()}"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each of the bodies had, or lacked, that a thread received."""
    counts: list[int] = []
    receive = Receiver.receive

    async def counted(self: Receiver, client: int, tls: object, count: int, *rest: object) -> None:
        counts.append(count)
        await receive(self, client, tls, count, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Receiver, "receive", counted)
    return counts


async def connect(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = door.listener.addresses[0]
    return await asyncio.open_connection(host, port)


def head(door: Door, method: str, path: str, *more: str) -> bytes:
    host, port = door.listener.addresses[0]
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", f"Authorization: {LOGIN}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


async def begun(door: Door) -> str:
    """The path of a new session."""
    status, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    assert status == 202
    return headers["Location"]


async def test_a_large_body_is_received_by_a_thread_and_the_connection_ends_with_it(
    door: Door, received: list[int]
) -> None:
    path = await begun(door)
    status, headers, _ = await door.ask("PUT", f"{path}?digest={DIGEST}", data=LARGE)
    assert status == 201
    assert headers["Connection"] == "close"
    assert len(LARGE) - (1 << 20) < sum(received) <= len(LARGE)
    assert LARGE in door.held.here.values()


async def test_over_tls_too(
    sender: Sender, received: list[int], tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with hosted(sender, tls=tls) as door:
        for _ in range(2):
            path = await begun(door)
            status, *_ = await door.ask("PUT", f"{path}?digest={DIGEST}", data=LARGE)
            assert status == 201
        assert LARGE in door.held.here.values()
    assert len(received) == 2


@pytest.mark.parametrize("size", [0, 1, 70_000, 1 << 20])
async def test_a_small_body_leaves_the_connection_open(
    door: Door, received: list[int], size: int
) -> None:
    path = await begun(door)
    digest = f"sha256:{hashlib.sha256(LARGE[:size]).hexdigest()}"
    status, headers, _ = await door.ask("PUT", f"{path}?digest={digest}", data=LARGE[:size])
    assert status == 201
    assert "Connection" not in headers
    assert received == []


async def test_a_chunked_body_is_taken_whole(door: Door, received: list[int]) -> None:
    path = await begun(door)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(LARGE), 300_000):
            yield LARGE[at : at + 300_000]

    status, headers, _ = await door.ask("PATCH", path, data=chunks())
    assert status == 202
    status, *_ = await door.ask("PUT", f"{headers['Location']}?digest={DIGEST}")
    assert status == 201
    assert received == []


async def test_who_expects_to_be_told_is_told_to_go_on(door: Door, received: list[int]) -> None:
    reader, writer = await connect(door)
    length = f"Content-Length: {len(LARGE)}"
    path = f"{await begun(door)}?digest={DIGEST}"
    writer.write(head(door, "PUT", path, length, "Expect: 100-continue"))
    told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(LARGE)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert received == [len(LARGE)]
    writer.close()


async def test_what_came_before_the_client_left_stays(door: Door, received: list[int]) -> None:
    path = await begun(door)
    reader, writer = await connect(door)
    writer.write(head(door, "PATCH", path, f"Content-Length: {len(LARGE)}") + LARGE[:-1])
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"1 bytes early" in answer
    assert received
    writer.close()
    status, headers, _ = await door.ask("GET", path)
    assert (status, headers["Range"]) == (204, f"0-{len(LARGE) - 2}")


async def test_who_falls_silent_is_given_up(sender: Sender, received: list[int]) -> None:
    async with hosted(sender, patience=0.2) as door:
        reader, writer = await connect(door)
        writer.write(head(door, "PATCH", await begun(door), f"Content-Length: {len(LARGE)}"))
        writer.write(LARGE[:1000])
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"nothing was sent" in answer
        assert received
        writer.close()


async def test_bodies_come_side_by_side_more_than_there_are_threads(
    door: Door, received: list[int]
) -> None:
    async def push(number: int) -> int:
        data = LARGE + bytes([number])
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        status, *_ = await door.ask("PUT", f"{await begun(door)}?digest={digest}", data=data)
        return status

    assert await asyncio.gather(*map(push, range(9))) == [201] * 9
    assert len(received) == 9


async def test_who_leaves_while_the_first_bytes_are_written_has_interrupted_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody cancels what receives it."""
    receiving: list[asyncio.Task[None]] = []
    receive = RequestBody._receive

    async def apart(self: RequestBody, transport: asyncio.Transport, *rest: Any) -> None:
        async def gone(work: Callable[..., None], *arguments: object) -> None:
            await aside(work, *arguments)
            transport.abort()
            while transport.get_extra_info("socket").fileno() >= 0:
                await asyncio.sleep(0)

        monkeypatch.setattr(bodies, "aside", gone)
        receiving.append(asyncio.create_task(receive(self, transport, *rest)))
        await asyncio.shield(receiving[0])

    monkeypatch.setattr(RequestBody, "_receive", apart)
    path = await begun(door)
    _, writer = await connect(door)
    writer.write(head(door, "PATCH", path, f"Content-Length: {len(LARGE)}") + LARGE[:1000])
    await eventually(lambda: receiving)
    with pytest.raises(Interrupted):
        await receiving[0]
    writer.close()


async def test_a_thread_that_waits_for_the_loop_is_not_waited_for_on_it() -> None:
    """Whoever writes may wait until the loop has made room."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.send(b"first piece")
    loop, is_taking, had = asyncio.get_running_loop(), threading.Event(), list[bytes]()

    def take(piece: bytes | memoryview) -> None:
        is_taking.set()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), loop).result()
        had.append(bytes(piece))

    receiver = Receiver(threads=1)
    body = asyncio.create_task(receiver.receive(ours.fileno(), None, 100, take, 10))
    await eventually(is_taking.is_set)
    began = time.monotonic()
    await receiver.close()
    assert time.monotonic() - began < 4
    assert had == [b"first piece"]
    with pytest.raises(Interrupted, match="stopping"):
        await body
    ours.close()
    theirs.close()
