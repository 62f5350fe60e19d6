"""Connections to one endpoint and to wherever it leads: redirects, names, TLS, time limits."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mirror.asking.retry_policy import RetryPolicy
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, RegistryError, Unavailable, Untrustworthy
from mirror.secret_text import SecretStr
from mirror.upstream.client.remote import Remote
from mirror.upstream.egress import Allowed
from mirror.upstream.endpoint import Endpoint, Login
from mirror.upstream.failures import Exhausted, FailureKind, Unreached
from mirror.upstream.http.resolver import Resolver
from mirror.upstream.http.transport import Transport

from ..fakes import CONTEXT
from ..fakes.hub import Hub, cut, hang, status
from ..strict_tls import be_strict
from .authority import Authority, tls_server
from .conftest import QUICK, REDIS, Counts, MakeRemote

LAYER = b"layer " * 100
ONCE = RetryPolicy(tries=1)


class Names(AbstractResolver):
    """Resolves every name to these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None: ...


async def read_all(remote: Remote, digest: str) -> bytes:
    stream = await remote.blob(CONTEXT, REDIS, Digest.parse(digest))
    data = b""
    while piece := await stream.read():
        data += piece
    await stream.close()
    return data


def is_public(remote: Remote) -> Remote:
    """Makes an endpoint on loopback count as one that was seen at a public address."""
    remote._transport._guard.endpoint_at("8.8.8.8")
    return remote


# Requests


async def test_requests_say_who_asks_and_take_bytes_as_they_are(hub: Hub, remote: Remote) -> None:
    await read_all(remote, hub.add_blob(LAYER))
    assert {one.server for one in hub.requests} == {"registry", "realm", "blobs"}
    for one in hub.requests:
        assert one.headers["User-Agent"].startswith("registry-mirror/")
        assert one.headers["Accept-Encoding"] == "identity"


async def test_f62_cookies_are_never_kept(hub: Hub, make_remote: MakeRemote) -> None:
    remote = make_remote(hub.url, policy=RetryPolicy(tries=5))
    digest = hub.add_blob(LAYER)
    for server in ("registry", "realm", "blobs"):
        hub.fail(server, status(503, {"Set-Cookie": "a=b; Path=/"}))
    await read_all(remote, digest)
    assert not any("Cookie" in one.headers for one in hub.requests)


async def test_connections_are_kept_and_used_again(hub: Hub, remote: Remote) -> None:
    digest = hub.add_blob(LAYER)
    opened: set[object] = set()

    async def note(request: web.Request) -> None:
        opened.add(request.transport)

    hub.fail("registry", note, times=99)
    for _ in range(5):
        await read_all(remote, digest)
    assert len(opened) == 1


# F27, F62: redirects


async def test_f62_a_redirect_elsewhere_leaves_the_authorization_behind(
    hub: Hub, remote: Remote
) -> None:
    assert await read_all(remote, hub.add_blob(LAYER)) == LAYER
    assert "Authorization" in hub.seen("registry")[-1].headers
    assert "Authorization" not in hub.seen("blobs")[0].headers


async def test_f62_the_authorization_does_not_come_back_with_a_redirect_back(
    hub: Hub, remote: Remote
) -> None:
    digest = hub.add_blob(LAYER)
    await read_all(remote, digest)
    back = f"{hub.url}/v2/library/redis/blobs/{digest}"
    hub.fail("blobs", status(307, {"Location": back}), times=9)
    with pytest.raises(RegistryError):
        await read_all(remote, digest)
    assert "Authorization" not in hub.seen("registry")[-1].headers


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_f27_relative_locations_of_all_kinds_are_followed(
    hub: Hub, make_remote: MakeRemote, code: int
) -> None:
    hub.challenge, hub.redirects = "none", False
    digest = hub.add_blob(LAYER)
    hub.fail("registry", status(code, {"Location": f"../blobs/{digest}#part"}))
    assert await read_all(make_remote(hub.url), digest) == LAYER
    assert [one.method for one in hub.requests] == ["GET", "GET"]
    assert hub.requests[0].path == hub.requests[1].path


async def test_f27_a_loop_ends_after_ten_hops(hub: Hub, make_remote: MakeRemote) -> None:
    hub.challenge = "none"
    digest = hub.add_blob(LAYER)
    hub.fail("registry", status(307, {"Location": "/again"}), times=99)
    with pytest.raises(Untrustworthy, match="more than 10 redirects"):
        await read_all(make_remote(hub.url), digest)
    assert hub.count("registry") == 11


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://[::1/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1/a b",
        "http://bücher.example/",
    ],
)
async def test_f27_a_redirect_to_nothing_that_can_be_asked_is_refused(
    hub: Hub, make_remote: MakeRemote, location: str | None
) -> None:
    hub.challenge = "none"
    headers = {} if location is None else {"Location": location}
    hub.fail("registry", status(307, headers), times=9)
    with pytest.raises((Untrustworthy, Unavailable), match=r"Location|http URL|HTTP"):
        await read_all(make_remote(hub.url, policy=ONCE), hub.add_blob(LAYER))
    assert hub.count("registry") <= 2


async def test_f69_a_login_in_a_location_is_not_shown(hub: Hub, make_remote: MakeRemote) -> None:
    hub.challenge, hub.redirects = "none", False
    digest = hub.add_blob(LAYER)
    target = hub.url.replace("http://", "http://ann:secret@")
    hub.fail("registry", status(307, {"Location": f"{target}/v2/library/redis/blobs/{digest}"}))
    assert await read_all(make_remote(hub.url), digest) == LAYER
    assert "Authorization" not in hub.requests[1].headers


async def test_f71_signed_urls_are_not_in_errors(hub: Hub, remote: Remote) -> None:
    digest = hub.add_blob(LAYER)
    hub.fail("blobs", status(500), times=9)
    with pytest.raises(Unavailable) as caught:
        await read_all(remote, digest)
    told: BaseException | None = caught.value
    assert hub.blobs_url in str(told)
    while told is not None:
        assert "signature" not in f"{told} {told!r}"
        told = told.__cause__ or told.__context__


# F63: where a registry may lead


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"]
)
async def test_f63_a_public_registry_does_not_lead_to_loopback(
    hub: Hub, make_remote: MakeRemote, host: str
) -> None:
    digest = hub.add_blob(LAYER)
    remote = is_public(make_remote(hub.url))
    hub.challenge = "none"
    hub.blobs_url = hub.blobs_url.replace("127.0.0.1", host)
    with pytest.raises(Untrustworthy, match=r"allow_private|not a URL"):
        await read_all(remote, digest)
    assert hub.count("blobs") == 0


async def test_f63_a_name_is_checked_by_the_address_that_is_connected(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.challenge = "none"
    digest = hub.add_blob(LAYER)
    hub.blobs_url = hub.blobs_url.replace("127.0.0.1", "cdn.example")
    names = Names("127.0.0.1")
    with pytest.raises(Untrustworthy, match=r"cdn\.example.*allow_private"):
        await read_all(is_public(make_remote(hub.url, resolver=names)), digest)
    assert names.asked == ["cdn.example"]
    assert hub.count("blobs") == 0


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "cdn.example"])
async def test_f63_what_is_listed_may_be_led_to(
    hub: Hub, make_remote: MakeRemote, allowed: str
) -> None:
    hub.challenge = "none"
    digest = hub.add_blob(LAYER)
    hub.blobs_url = hub.blobs_url.replace("127.0.0.1", "cdn.example")
    remote = make_remote(hub.url, resolver=Names("127.0.0.1"), allowed=Allowed.parse([allowed]))
    assert await read_all(is_public(remote), digest) == LAYER


async def test_f63_a_registry_on_loopback_does_not_lead_to_a_metadata_service(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.challenge = "none"
    hub.blobs_url = "http://169.254.169.254/latest/meta-data"
    with pytest.raises(Untrustworthy, match="allow_private"):
        await read_all(make_remote(hub.url), hub.add_blob(LAYER))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1"])
async def test_f63_a_registry_that_a_client_named_is_not_at_a_private_address(
    hub: Hub, make_remote: MakeRemote, address: str
) -> None:
    url = hub.url.replace("127.0.0.1", "registry.example")
    remote = make_remote(url, resolver=Names(address), configured=False)
    with pytest.raises(Denied, match=r"registry\.example.* not public"):
        await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.requests == []


async def test_who_is_closed_connects_no_more(hub: Hub, make_remote: MakeRemote) -> None:
    remote = make_remote(hub.url, policy=ONCE)
    await remote.close()
    with pytest.raises(Unavailable, match="not asked any more"):
        await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.requests == []


async def test_f63_a_public_registrys_realm_is_not_on_loopback(
    hub: Hub, make_remote: MakeRemote
) -> None:
    login = Login("ann", SecretStr("secret"))
    with pytest.raises(Untrustworthy, match="allow_private"):
        await is_public(make_remote(hub.url, credentials=(login,))).resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 0


async def test_a_configured_realm_may_be_anywhere(hub: Hub, make_remote: MakeRemote) -> None:
    hub.add_image("library/redis", "7")
    await is_public(make_remote(hub.url, realm=hub.realm_url)).resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 1


# F22, F23: no answer


async def failure_of(remote: Remote) -> Unreached:
    with pytest.raises(Unreached) as caught:
        await remote.resolve(CONTEXT, REDIS, "7")
    assert caught.value.message.startswith("hub")
    return caught.value


async def test_f22_a_refused_connection_is_named(
    make_remote: MakeRemote, unused_tcp_port: int, counts: Counts
) -> None:
    failure = await failure_of(make_remote(f"http://127.0.0.1:{unused_tcp_port}"))
    assert failure.kind is FailureKind.CONNECT
    assert str(unused_tcp_port) in failure.message
    assert set(counts.requests) == {("hub", "HEAD", "connect")}
    assert len(counts.requests) == 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_f42_what_is_lacking_here_is_no_fault_of_the_endpoint(
    make_remote: MakeRemote, monkeypatch: pytest.MonkeyPatch, counts: Counts, number: int
) -> None:
    async def connect(*_: object, **__: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", connect)
    with pytest.raises(Exhausted, match=f"cannot be asked from here now: {os.strerror(number)}"):
        await make_remote("http://127.0.0.1:9").resolve(CONTEXT, REDIS, "7")
    assert counts.requests == []


async def test_f22_a_reset_is_named(hub: Hub, make_remote: MakeRemote, counts: Counts) -> None:
    hub.fail("registry", cut(), times=99)
    failure = await failure_of(make_remote(hub.url))
    assert failure.kind is FailureKind.CUT
    assert counts.requests[-2:] == [("hub", "HEAD", "cut"), ("hub", "GET", "cut")]


async def test_f22_nonsense_instead_of_http_is_named(make_remote: MakeRemote) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        failure = await failure_of(make_remote(f"http://127.0.0.1:{port}"))
    assert failure.kind is FailureKind.CUT
    assert "HTTP" in failure.message


async def test_f22_a_name_that_does_not_exist_is_named(make_remote: MakeRemote) -> None:
    class NoSuchName(Names):
        async def resolve(self, *_: object, **__: object) -> list[ResolveResult]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    failure = await failure_of(make_remote("http://nowhere.example", resolver=NoSuchName()))
    assert failure.kind is FailureKind.DNS
    assert "nowhere.example" in failure.message
    assert "Name or service not known" in failure.message


async def test_f22_a_name_server_that_hangs_is_given_up(
    make_remote: MakeRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30))
    resolver = Resolver(timeout=0.05)
    try:
        failure = await failure_of(make_remote("http://slow.example", resolver=resolver))
    finally:
        over.set()
        await resolver.close()
    assert failure.kind is FailureKind.DNS
    assert "no answer within 0.05 s" in failure.message


async def test_f23_headers_that_never_come_are_given_up(
    hub: Hub, make_remote: MakeRemote, counts: Counts
) -> None:
    over = asyncio.Event()
    hub.fail("registry", hang(over), times=9)
    failure = await failure_of(
        make_remote(hub.url, limits=replace(QUICK, waits=replace(QUICK.waits, headers=0.1)))
    )
    over.set()
    assert failure.kind is FailureKind.TIMEOUT
    assert counts.requests == [("hub", "HEAD", "timeout")], "a timeout has cost enough"


async def test_f23_an_answer_is_bounded_in_all(hub: Hub, make_remote: MakeRemote) -> None:
    over = asyncio.Event()
    hub.fail("registry", hang(over), times=9)
    failure = await failure_of(
        make_remote(hub.url, limits=replace(QUICK, waits=replace(QUICK.waits, answer=0.1)))
    )
    over.set()
    assert failure.kind is FailureKind.TIMEOUT
    assert "retries included" in failure.message


# F22: TLS

Serve = Callable[..., Awaitable[str]]


@pytest.mark.parametrize(
    ("host", "days", "says"),
    [
        ("registry.example", -1, "expired"),
        ("other.example", 1, "registry.example"),
    ],
)
async def test_f22_a_bad_certificate_is_refused_and_named(
    make_remote: MakeRemote, tmp_path: Path, counts: Counts, host: str, days: int, says: str
) -> None:
    authority = Authority(tmp_path)
    trusting = authority.trusted()
    async with tls_server(authority.server(host, days), status(404)) as port:
        url = f"https://registry.example:{port}"
        failure = await failure_of(make_remote(url, resolver=Names("127.0.0.1"), tls=trusting))
    assert failure.kind is FailureKind.TLS
    assert says in failure.message
    assert counts.requests == [("hub", "HEAD", "tls")]


async def test_f22_plain_http_on_a_tls_port_is_named(hub: Hub, make_remote: MakeRemote) -> None:
    failure = await failure_of(make_remote(hub.url.replace("http://", "https://")))
    assert failure.kind is FailureKind.TLS
    assert hub.requests == []


@pytest.mark.parametrize("strict", [False, True], ids=["this Python", "as 3.13"])
async def test_certificates_are_trusted_by_ssl_cert_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """Also those without what a strict reading wants: clients, which are Go, take them."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    if strict:
        be_strict(monkeypatch)
    async with tls_server(authority.server("registry.example"), status(200)) as port:
        url = f"https://registry.example:{port}"
        transport = Transport(Endpoint("it", url), Events(), resolver=Names("127.0.0.1"))
        response = await transport.fetch("GET", URL(url), {})
        await transport.discard(response)
        await transport.close()
    assert response.status == 200


async def test_f27_a_redirect_from_https_to_http_is_refused(
    hub: Hub, make_remote: MakeRemote, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    trusting = authority.trusted()
    digest = hub.add_blob(LAYER)
    redirect = status(307, {"Location": f"{hub.blobs_url}/data/{digest}"})
    async with tls_server(authority.server("registry.example"), redirect) as port:
        url = f"https://registry.example:{port}"
        remote = make_remote(url, resolver=Names("127.0.0.1"), tls=trusting)
        with pytest.raises(Untrustworthy, match="from https"):
            await read_all(remote, digest)
    assert hub.count("blobs") == 0


async def test_a_name_is_not_asked_for_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Resolver(1.0)
    with monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="no thread can be started"):
            await resolver.resolve("localhost", 443)
    assert await resolver.resolve("localhost", 443)
    await resolver.close()
