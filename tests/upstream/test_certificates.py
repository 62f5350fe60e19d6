"""Whose certificates are trusted, to whom ours is shown, and how what is wrong with one is told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from mirror.asking.retry_policy import RetryPolicy
from mirror.events import Events
from mirror.oci.errors import RegistryError, Untrustworthy
from mirror.secret_text import SecretStr
from mirror.upstream.client.remote import Remote
from mirror.upstream.egress import Allowed
from mirror.upstream.endpoint import Addresses, Connecting, Endpoint, Logins
from mirror.upstream.failures import FailureKind, Unreachable, Unreached
from mirror.upstream.http.transport import Transport

from ..fakes import CONTEXT
from ..fakes.hub import Hub, status
from ..strict_tls import be_strict
from .authority import Authority, tls_server
from .conftest import QUICK, REDIS, MakeRemote
from .test_transport import LAYER, Names, failure_of, read_all

HUB = "registry.example"
ONCE = RetryPolicy(tries=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def make(make_remote: MakeRemote) -> Callable[..., Remote]:
    """Builds a remote for HUB, which is at 127.0.0.1 and this port."""

    def build(port: int, connecting: Connecting, **values: Any) -> Remote:
        url, names = f"https://{HUB}:{port}", Names("127.0.0.1")
        return make_remote(url, connecting=connecting, resolver=names, policy=ONCE, **values)

    return build


Make = Callable[..., Remote]


# Whose are trusted


@pytest.mark.parametrize("strict", [False, True], ids=["this Python", "as 3.13"])
async def test_a_ca_file_is_trusted_besides_the_systems(
    authority: Authority,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    strict: bool,
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "another authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(other.path))
    if strict:
        be_strict(monkeypatch)
    connecting = Connecting(authorities=authority.path.read_text())
    for signed_by in (authority, other):
        async with tls_server(signed_by.server(HUB), status(404)) as port:
            with pytest.raises(RegistryError, match="does not have"):
                await make(port, connecting).resolve(CONTEXT, REDIS, "7")


@pytest.mark.parametrize("strict", [False, True], ids=["this Python", "as 3.13"])
@pytest.mark.parametrize(
    ("host", "days", "says"),
    [(HUB, -1, "expired"), ("other.example", 1, "registry.example")],
)
async def test_names_and_times_are_verified_with_a_ca_file_too(
    authority: Authority,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    strict: bool,
    host: str,
    days: int,
    says: str,
) -> None:
    if strict:
        be_strict(monkeypatch)
    connecting = Connecting(authorities=authority.path.read_text())
    async with tls_server(authority.server(host, days), status(404)) as port:
        failure = await failure_of(make(port, connecting))
    assert failure.kind is FailureKind.TLS
    assert says in failure.message
    assert "ca_file" not in failure.message


@pytest.mark.parametrize("strict", [False, True], ids=["this Python", "as 3.13"])
async def test_a_servers_own_certificate_may_be_the_ca_file(
    authority: Authority, make: Make, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """As in Go, where what is given as an authority is taken for one."""
    if strict:
        be_strict(monkeypatch)
    context = authority.server(HUB)
    own = (authority.folder / f"{HUB}.pem").read_text()
    async with tls_server(context, status(404)) as port:
        with pytest.raises(RegistryError, match="does not have"):
            await make(port, Connecting(authorities=_certificate(own))).resolve(CONTEXT, REDIS, "7")


def _certificate(pem: str) -> str:
    end = "-----END CERTIFICATE-----\n"
    return pem[: pem.index(end) + len(end)]


async def test_an_unknown_authority_is_told_with_what_to_write(
    authority: Authority, make: Make
) -> None:
    async with tls_server(authority.server(HUB), status(404)) as port:
        failure = await failure_of(make(port, Connecting()))
    assert isinstance(failure, Unreachable)
    assert failure.kind is FailureKind.TLS
    assert "its TLS certificate is refused: unable to get local issuer" in failure.message
    assert "write ca_file:" in failure.message


# To whom ours is shown


class Doors:
    """Servers over TLS that ask for a certificate, and note whose was shown, "" for none."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.shown: dict[str, list[str]] = {}

    @asynccontextmanager
    async def open(self, name: str, host: str, location: str = "") -> AsyncIterator[int]:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            subject = (request.transport.get_extra_info("peercert") or {}).get("subject", ())
            self.shown.setdefault(name, []).append(subject[0][0][1] if subject else "")
            return await status(307 if location else 404, {"Location": location})(request)

        context = self._authority.server(host, clients=True)
        context.verify_mode = ssl.CERT_OPTIONAL
        async with tls_server(context, answer) as port:
            yield port


async def test_our_certificate_is_shown_to_the_endpoint_alone(
    authority: Authority, make: Make
) -> None:
    """Not to where it redirects, also not to another port of the same host."""
    doors = Doors(authority)
    ours = SecretStr(authority.issued("mirror").read_text())
    connecting = Connecting(authorities=authority.path.read_text(), shown=ours)
    async with (
        doors.open("elsewhere", "cdn.example") as cdn,
        doors.open("port", HUB, f"https://cdn.example:{cdn}/x") as other,
        doors.open("hub", HUB, f"https://{HUB}:{other}/y") as port,
    ):
        with pytest.raises(RegistryError):
            await make(port, connecting).resolve(CONTEXT, REDIS, "7")
    shown = {name: sorted(set(each)) for name, each in doors.shown.items()}
    assert shown == {"hub": ["mirror"], "port": [""], "elsewhere": [""]}


@pytest.mark.parametrize(("host", "is_shown"), [(HUB, True), ("auth.example", False)])
async def test_our_certificate_is_shown_to_the_configured_realm_of_the_same_host(
    authority: Authority, host: str, is_shown: bool
) -> None:
    doors = Doors(authority)
    ours = SecretStr(authority.issued("mirror").read_text())
    async with doors.open("realm", host) as realm, doors.open("hub", HUB) as port:
        url = f"https://{host}:{realm}/token"
        endpoint = Endpoint(
            "hub",
            f"https://{HUB}:{port}",
            connecting=Connecting(authorities=authority.path.read_text(), shown=ours),
            logins=Logins(realm=url),
            addresses=Addresses(allowed=Allowed.parse(["127.0.0.0/8"])),
            limits=QUICK,
        )
        transport = Transport(endpoint, Events(), resolver=Names("127.0.0.1"))
        for each in (transport, transport.apart()):
            await each.discard(await each.fetch("GET", URL(url), {}))
            await each.close()
    assert doors.shown["realm"] == [("mirror" if is_shown else "")] * 2


# Refusals


@contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[int]:
    """A server whose refusal of a handshake comes as an alert: asyncio's servers cut without one.
    Whom it takes it answers 404."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            taken.settimeout(10)
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(taken, True, do_handshake_on_connect=False) as tls,
            ):
                try:
                    tls.do_handshake()
                    tls.recv(65536)
                    tls.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
                except ssl.SSLError:  # closed at once, the request would reset the connection
                    socket.socket.shutdown(tls, socket.SHUT_WR)
                    while socket.socket.recv(tls, 65536):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shows", ["none", "a stranger's", "ours"])
async def test_a_server_that_wants_a_certificate_is_told_as_that(
    authority: Authority,
    make: Make,
    tmp_path: Path,
    version: ssl.TLSVersion,
    shows: str,
) -> None:
    """In TLS 1.3 the refusal comes after the handshake, as the first that is read."""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "another authority")
    issuers = {"ours": authority, "a stranger's": stranger}
    issuer = issuers.get(shows)
    connecting = Connecting(
        authorities=authority.path.read_text(),
        shown=SecretStr(issuer.issued("mirror").read_text()) if issuer else None,
    )
    context = authority.server(HUB, clients=True)
    context.maximum_version = context.minimum_version = version
    with refusing(context) as port:
        remote = make(port, connecting)
        if shows == "ours":
            with pytest.raises(RegistryError, match="does not have"):
                await remote.resolve(CONTEXT, REDIS, "7")
            return
        failure = await failure_of(remote)
    assert isinstance(failure, Unreached)
    assert failure.kind is FailureKind.TLS
    if shows == "none":
        assert "write client: {cert: …, key: …}" in failure.message
    else:
        assert "it refuses our client certificate" in failure.message


@pytest.mark.parametrize(
    "words", ["No required SSL certificate was sent", "The SSL certificate error"]
)
@pytest.mark.parametrize("code", [400, 495, 496])
async def test_a_web_page_about_certificates_is_told_as_that(
    authority: Authority, make: Make, words: str, code: int
) -> None:
    page = f"<html><head><title>400 {words}</title></head></html>"
    answer = status(code, {"Content-Type": "text/html"}, page)
    async with tls_server(authority.server(HUB), answer) as port:
        connecting = Connecting(authorities=authority.path.read_text())
        remote = make(port, connecting)
        for ask in (remote.tags(CONTEXT, REDIS), remote.resolve(CONTEXT, REDIS, "7")):
            with pytest.raises(Unreachable, match="client certificate") as caught:
                await ask
            assert caught.value.kind is FailureKind.TLS


async def test_plain_http_to_a_port_of_tls_is_told(
    authority: Authority, make_remote: MakeRemote
) -> None:
    async with tls_server(authority.server(HUB), status(404)) as port:
        failure = await failure_of(make_remote(f"http://127.0.0.1:{port}", policy=ONCE))
    assert failure.kind in (FailureKind.CUT, FailureKind.TLS)


async def test_tls_to_a_port_of_plain_http_is_told(hub: Hub, make_remote: MakeRemote) -> None:
    failure = await failure_of(make_remote(hub.url.replace("http://", "https://"), policy=ONCE))
    assert failure.kind is FailureKind.TLS
    assert "http:// may be meant" in failure.message


@pytest.mark.parametrize(
    "page",
    [
        "The plain HTTP request was sent to HTTPS port",
        "Client sent an HTTP request to an HTTPS server.",
    ],
)
async def test_a_page_that_says_that_tls_is_spoken_there_is_told(
    hub: Hub, make_remote: MakeRemote, page: str
) -> None:
    hub.fail("registry", status(400, {"Content-Type": "text/html"}, page))
    remote = make_remote(hub.url, policy=ONCE)
    with pytest.raises(Unreachable, match="https:// is meant"):
        await remote.tags(CONTEXT, REDIS)


# Blobs that are redirected to http


@pytest.mark.parametrize(
    ("allowed", "name"),
    [
        (["cdn.example"], "cdn.example"),
        (["*.example"], "cdn.example"),
        (["127.0.0.1"], "127.0.0.1"),
        (["127.0.0.0/8"], "127.0.0.1"),
        (["127.0.0.0/8"], "cdn.example"),
    ],
)
async def test_a_blobs_redirect_to_http_is_followed_to_hosts_that_are_listed(
    authority: Authority, make: Make, hub: Hub, allowed: list[str], name: str
) -> None:
    hub.challenge = "none"
    hub.redirects = False
    digest = hub.add_blob(LAYER)
    place = f"{hub.url.replace('127.0.0.1', name)}/v2/library/redis/blobs/{digest}"
    async with tls_server(authority.server(HUB), status(307, {"Location": place})) as port:
        connecting = Connecting(authorities=authority.path.read_text())
        remote = make(port, connecting, allowed=Allowed.parse(allowed))
        assert await read_all(remote, digest) == LAYER
    assert [one.headers.get("Authorization") for one in hub.requests] == [None]


async def test_a_blobs_redirect_to_http_elsewhere_is_refused_with_what_to_write(
    authority: Authority, make: Make, hub: Hub
) -> None:
    digest = hub.add_blob(LAYER)
    place = f"{hub.url}/v2/library/redis/blobs/{digest}"
    async with tls_server(authority.server(HUB), status(307, {"Location": place})) as port:
        connecting = Connecting(authorities=authority.path.read_text())
        for allowed in ([], ["10.0.0.0/8"], ["cdn.example"]):
            remote = make(port, connecting, allowed=Allowed.parse(allowed))
            with pytest.raises(Untrustworthy, match=r"allow_private.*list 127\.0\.0\.1 there"):
                await read_all(remote, digest)
    assert hub.requests == []


async def test_no_tag_is_followed_to_http(authority: Authority, make: Make, hub: Hub) -> None:
    hub.add_image("library/redis", "7", LAYER)
    place = f"{hub.url}/v2/library/redis/manifests/7"
    async with tls_server(authority.server(HUB), status(307, {"Location": place})) as port:
        connecting = Connecting(authorities=authority.path.read_text())
        remote = make(port, connecting, allowed=Allowed.parse(["127.0.0.0/8"]))
        for ask in (
            remote.resolve(CONTEXT, REDIS, "7"),
            remote.tags(CONTEXT, REDIS),
        ):
            with pytest.raises(Untrustworthy, match="only blobs"):
                await ask
    assert hub.requests == []
