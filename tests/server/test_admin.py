"""The admin port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from mirror.oci.errors import NameInvalid
from mirror.server.admin import application as admin
from mirror.server.admin.application import admin_application, admin_runner
from mirror.server.admin.console import Console
from mirror.server.http.reserved_port import SparePort

from ..fakes.activity import FakeActivity
from ..fakes.images import FakeImages
from ..waiting import eventually

Client = Callable[[web.Application], Awaitable[TestClient[Any, Any]]]

READY = {"upstream": "ok"}
CONSOLE = Console(FakeActivity(), FakeImages(), {}.get)


def application(bound_to: str = "127.0.0.1", *, ready: bool = True) -> web.Application:
    return admin_application(bound_to, metrics, lambda: (ready, READY), missing, CONSOLE)


async def metrics() -> bytes:
    return b"up 1\n"


async def test_metrics_are_in_prometheus_text_format(aiohttp_client: Client) -> None:
    client = await aiohttp_client(application())
    answer = await client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert await answer.read() == b"up 1\n"


async def test_health_is_that_the_loop_answers(aiohttp_client: Client) -> None:
    client = await aiohttp_client(application(ready=False))
    assert (await client.get("/healthz")).status == 200


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_readiness_says_why(aiohttp_client: Client, ready: bool, status: int) -> None:
    client = await aiohttp_client(application(ready=ready))
    answer = await client.get("/readyz")
    assert answer.status == status
    assert (await answer.json())["upstream"] == "ok"


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "localhost:5001", 200),
        ("Host", "127.0.0.1", 200),
        ("Host", "127.8.8.8:1", 200),
        ("Host", "[::1]:5001", 200),
        ("Host", "evil.example.org:5001", 403),
        ("Host", "localhost.evil.example.org", 403),
        ("Host", "127.0.0.1.evil.example.org", 403),
        ("Host", "192.168.1.1", 403),
        ("Host", "", 403),
        ("Host", "[", 403),
        ("Origin", "http://localhost:3000", 200),
        ("Origin", "https://evil.example.org", 403),
        ("Origin", "null", 403),
    ],
)
async def test_f70_a_loopback_port_answers_only_those_who_name_it_so(
    aiohttp_client: Client, header: str, value: str, status: int
) -> None:
    client = await aiohttp_client(application())
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await client.get(path, headers={header: value})).status == status


async def test_f70_elsewhere_the_operator_decides_who_reaches_the_port(
    aiohttp_client: Client,
) -> None:
    client = await aiohttp_client(application("0.0.0.0"))
    assert (await client.get("/metrics", headers={"Host": "mirror.internal"})).status == 200


async def test_f70_nothing_else_is_served(aiohttp_client: Client) -> None:
    client = await aiohttp_client(application())
    for path in ("/v2/", "/page.py", "/../../etc/passwd", "/%2e%2e/etc/passwd"):
        assert (await client.get(path)).status == 404
    assert (await client.post("/metrics")).status == 405


async def missing(image: str, platform: str | None) -> list[str]:
    """What the image of this test lacks."""
    if image == "Bad":
        raise NameInvalid(image)
    return [] if (image, platform) == ("redis:7", "linux/arm64") else ["layer sha256:abc"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("image=redis:7&platform=linux/arm64", 200, '"status": "ready"'),
        ("image=redis:7", 503, '"missing": ["layer sha256:abc"]'),
        ("image=Bad", 400, "is no repository name"),
    ],
)
async def test_readyz_tells_whether_an_image_is_whole(
    aiohttp_client: Client, query: str, status: int, words: str
) -> None:
    client = await aiohttp_client(application())
    answer = await client.get(f"/readyz?{query}", headers={"Host": "localhost"})
    assert answer.status == status
    assert words in await answer.text()


@contextlib.asynccontextmanager
async def served(idle: float = 60.0) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """The port itself: what it answers to these bytes until it closes the connection."""
    runner = await admin_runner(application(), idle)
    assert runner.server is not None
    port = SparePort(runner.server)
    await port.listen("127.0.0.1", 0)

    async def ask(words: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*port.addresses[0])
        try:
            writer.write(words)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()

    try:
        yield ask
    finally:
        port.close()
        await runner.cleanup()


@pytest.mark.parametrize("target", ["http://xn--a/healthz", "http://localhost/healthz?a=b"])
async def test_a_target_with_a_host_is_answered_whatever_the_host(target: str) -> None:
    async with served() as ask:
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await ask(head.encode())
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("target", ["xn--a:443", "xn--a", "*"])
async def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    async with served() as ask:
        head = f"CONNECT {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await ask(head.encode())).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("words", [b"", b"GET /heal"], ids=["nothing", "half a head"])
async def test_a_connection_on_which_nothing_is_asked_ends(words: bytes) -> None:
    async with served(idle=0.1) as ask:
        assert await ask(words) == b""


async def test_a_connection_whose_answers_are_not_read_ends() -> None:
    async def large() -> bytes:
        return bytes(16 << 20)  # more than sockets hold

    application = admin_application("127.0.0.1", large, lambda: (True, READY), missing, CONSOLE)
    runner = await admin_runner(application, 60)
    assert runner.server is not None
    port = SparePort(runner.server, patience=0.5)
    await port.listen("127.0.0.1", 0)
    with socket.create_connection(port.addresses[0]) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: runner.server.connections)
        await eventually(lambda: not runner.server.connections, 20)
    port.close()
    await runner.cleanup()


async def test_an_answer_that_is_not_read_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "_END", 0.2)

    async def large() -> bytes:
        return bytes(16 << 20)  # more than sockets hold

    application = admin_application("127.0.0.1", large, lambda: (True, READY), missing, CONSOLE)
    runner = await admin_runner(application, 60)
    assert runner.server is not None
    port = SparePort(runner.server)
    await port.listen("127.0.0.1", 0)
    with socket.create_connection(port.addresses[0]) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: runner.server.requests_count)
        port.close()
        async with asyncio.timeout(15):
            await runner.cleanup()


async def test_workers_do_not_carry_the_page() -> None:
    """Which takes memory that only the process with the port needs."""
    code = "import sys, mirror.app.workers.child; sys.exit('jinja2' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
