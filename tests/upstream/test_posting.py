"""Webhooks go where users say, and nowhere near."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from mirror.clock import Clock
from mirror.contracts.webhooks import MOST_WORDS, NotReceived
from mirror.upstream.egress import Allowed
from mirror.upstream.http.posting import GuardedPoster, refusal
from mirror.upstream.http.proxying import ProxyLogins, Ways
from mirror.upstream.proxies import Proxy, Routes

from ..fakes.proxy import FakeProxy
from .authority import Authority, tls_server

LOOPBACK = ("127.0.0.0/8",)


class Names(AbstractResolver):
    """Each lookup has the next of these addresses, and the last for ever."""

    def __init__(self, *addresses: str) -> None:
        self._left = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        family = socket.AF_INET
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
        ]

    async def close(self) -> None: ...


class Receiver:
    """Answers as it is told, and keeps what came."""

    def __init__(self) -> None:
        self.status, self.text, self.headers = 200, "", dict[str, str]()
        self.seen: list[tuple[str, bytes]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, await request.read()))
        if self.status == 0:
            await asyncio.sleep(60)
        return web.Response(status=self.status, text=self.text, headers=self.headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    found.url = f"http://127.0.0.1:{port}/in?token=SECRET"
    yield found
    await runner.cleanup()


@asynccontextmanager
async def poster(
    *allowed: str, routes: Routes | None = None, resolver: AbstractResolver | None = None
) -> AsyncIterator[GuardedPoster]:
    ways = Ways(routes or Routes(), ProxyLogins(Clock()))
    made = GuardedPoster(Allowed.parse(allowed), ways, timeout=2, resolver=resolver)
    yield made
    await made.close()


async def test_a_body_comes_as_it_is_and_the_status_is_told(receiver: Receiver) -> None:
    async with poster(*LOOPBACK) as sender:
        assert (await sender.post(receiver.url, {"A": "b"}, b"body")).status == 200
        receiver.status, receiver.text = 500, "\x1b[31mdown\n" + "x" * 5000
        answer = await sender.post(receiver.url, {}, b"more")
    assert receiver.seen == [("/in?token=SECRET", b"body"), ("/in?token=SECRET", b"more")]
    assert answer.status == 500
    assert answer.words.startswith("'\\x1b[31mdown")
    assert len(answer.words) <= MOST_WORDS


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"]
)
async def test_a_private_address_is_not_asked_unless_it_is_allowed(
    receiver: Receiver, host: str
) -> None:
    url = receiver.url.replace("127.0.0.1", host)
    async with poster() as sender:
        with pytest.raises(NotReceived) as error:
            await sender.post(url, {}, b"")
    assert "hosted: webhooks: allow_private" in str(error.value)
    assert "SECRET" not in str(error.value)
    assert receiver.seen == []


async def test_metadata_and_private_networks_are_refused_without_a_packet() -> None:
    async with poster(*LOOPBACK) as sender:
        for host in ("169.254.169.254", "10.0.0.1", "[fd00:ec2::254]", "192.168.1.1"):
            with pytest.raises(NotReceived, match="not public"):
                await sender.post(f"http://{host}/", {}, b"")


async def test_a_name_counts_by_what_is_connected(receiver: Receiver) -> None:
    """Public when it is looked up first, loopback when it is connected: DNS rebinding."""
    url = receiver.url.replace("127.0.0.1", "rebinds.example")
    async with poster(resolver=Names("127.0.0.1")) as sender:
        with pytest.raises(NotReceived, match="not public"):
            await sender.post(url, {}, b"")
    async with poster("rebinds.example", resolver=Names("127.0.0.1")) as sender:
        assert (await sender.post(url, {}, b"")).status == 200
    assert len(receiver.seen) == 1


async def test_no_redirect_is_followed(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 307, {"Location": receiver.url}
    async with poster(*LOOPBACK) as sender:
        assert (await sender.post(receiver.url, {}, b"")).status == 307
    assert len(receiver.seen) == 1


async def test_one_that_says_nothing_is_given_up(receiver: Receiver) -> None:
    receiver.status = 0
    async with poster(*LOOPBACK) as sender:
        with pytest.raises(NotReceived, match="no answer within 2 s"):
            await sender.post(receiver.url, {}, b"")


async def test_nobody_there_and_no_url() -> None:
    async with poster(*LOOPBACK) as sender:
        with pytest.raises(NotReceived, match="nobody listens there"):
            await sender.post("http://127.0.0.1:1/", {}, b"")
        for url in ("http://", "http://[", "nonsense", "ftp://127.0.0.1/"):
            with pytest.raises(NotReceived):
                await sender.post(url, {}, b"")


async def test_the_environments_proxy_is_asked_for_what_is_public_alone(
    receiver: Receiver,
) -> None:
    async with FakeProxy("hook.example") as proxy:
        routes = Routes(http=Proxy(proxy.url))
        url = receiver.url.replace("127.0.0.1", "hook.example")
        async with poster(routes=routes, resolver=Names("10.0.0.1")) as sender:
            with pytest.raises(NotReceived, match="not public"):
                await sender.post(url, {}, b"")
        assert receiver.seen == []
        async with poster("hook.example", routes=routes) as sender:
            assert (await sender.post(url, {}, b"by proxy")).status == 200
    assert receiver.seen[-1][1] == b"by proxy"


async def test_certificates_are_verified(tmp_path: Path, receiver: Receiver) -> None:
    authority = Authority(tmp_path)
    async with tls_server(authority.server("localhost"), receiver.handle) as port:
        url = f"https://localhost:{port}/"
        async with poster(*LOOPBACK) as sender:
            with pytest.raises(NotReceived, match="its TLS certificate is refused"):
                await sender.post(url, {}, b"")
        ways, trusted = Ways(Routes(), ProxyLogins(Clock())), authority.path.read_text()
        trusting = GuardedPoster(Allowed.parse(LOOPBACK), ways, authorities=trusted)
        assert (await trusting.post(url, {}, b"")).status == 200
        await trusting.close()


def test_what_a_url_alone_shows() -> None:
    allowed = Allowed.parse(["10.1.0.0/16", "ci.lan"])
    for url in ("https://8.8.8.8/x", "http://10.1.2.3:8080/", "https://ci.lan/", "https://a.b/"):
        assert refusal(url, allowed) is None, url
    for url in ("http://127.0.0.1/", "http://10.2.0.1/", "http://[::1]/", "ftp://a.b/", "nonsense"):
        assert refusal(url, allowed) is not None, url
