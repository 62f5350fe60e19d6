"""An endpoint, and wherever it leads, asked by a proxy: who is shown what, what stays guarded, and
in which words a proxy's own refusals are told."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from mirror.asking.retry_policy import RetryPolicy
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, RegistryError, Untrustworthy
from mirror.secret_text import SecretStr
from mirror.threads import aside
from mirror.upstream.client.remote import Remote
from mirror.upstream.egress import Allowed, Reach
from mirror.upstream.endpoint import Connecting, Login
from mirror.upstream.failures import FailureKind, Unreachable, Unreached
from mirror.upstream.http import proxying
from mirror.upstream.http.proxying import ProxyLogins, Ways
from mirror.upstream.proxies import Exceptions, Proxy, Routes

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Hub, basic, status
from ..fakes.proxy import Behaviour, FakeProxy
from .authority import Authority, tls_server
from .conftest import QUICK, REDIS, Counts, MakeRemote
from .test_transport import LAYER, Names, failure_of, read_all

ONCE = RetryPolicy(tries=1)
HUB = "registry.example"


def by(proxy: FakeProxy | str, *excepted: str, **login: object) -> Connecting:
    """All URLs by this proxy, but for those."""
    url = proxy if isinstance(proxy, str) else proxy.url
    one = Proxy(url, **login)  # type: ignore[arg-type]
    return Connecting(Routes(one, one, Exceptions.parse(excepted)))


def named(hub: Hub, name: str = HUB) -> str:
    """The Hub's URL by a name that only the proxy knows."""
    return hub.url.replace("127.0.0.1", name)


class Nameless(Names):
    """A network without a name server."""

    async def resolve(self, host: str, port: int = 0, family: object = 0) -> list[object]:  # type: ignore[override]
        self.asked.append(host)
        raise OSError(-2, "Name or service not known")


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    async with FakeProxy(HUB, "cdn.example", "auth.example") as proxy:
        yield proxy


# The way


async def test_an_endpoint_is_asked_by_the_proxy_and_needs_no_name_here(
    hub: Hub, make_remote: MakeRemote, proxy: FakeProxy
) -> None:
    names = Nameless()
    hub.redirects, hub.challenge = False, "none"
    digest = hub.add_blob(LAYER)
    remote = make_remote(named(hub), connecting=by(proxy), resolver=names)
    assert await read_all(remote, digest) == LAYER
    assert proxy.targets("GET") == [f"{named(hub)}/v2/library/redis/blobs/{digest}"]
    assert names.asked == []


async def test_https_goes_through_a_tunnel_in_which_the_registry_proves_itself(
    make_remote: MakeRemote, proxy: FakeProxy, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with tls_server(authority.server(HUB), status(404)) as port:
        url, trusted = f"https://{HUB}:{port}", authority.trusted()
        remote = make_remote(url, connecting=by(proxy), resolver=Nameless(), tls=trusted)
        with pytest.raises(RegistryError, match="does not have"):
            await remote.resolve(CONTEXT, REDIS, "7")
        assert set(proxy.targets("CONNECT")) == {f"{HUB}:{port}"}
    assert {one.method for one in proxy.seen} == {"CONNECT"}


async def test_redirects_and_realms_are_asked_by_the_proxy_too_but_for_exceptions(
    hub: Hub, make_remote: MakeRemote, proxy: FakeProxy
) -> None:
    digest = hub.add_blob(LAYER)
    port = int(hub.realm_url.split(":")[2].split("/")[0])
    hub.realm_url = f"http://auth.example:{port}/token"
    connecting = by(proxy, "127.0.0.1")  # where the blobs are
    remote = make_remote(
        named(hub),
        connecting=connecting,
        resolver=Nameless(),
        realm=hub.realm_url,
        allowed=Allowed.parse(["127.0.0.0/8"]),
    )
    assert await read_all(remote, digest) == LAYER
    hosts = {one.target.split("/")[2].split(":")[0] for one in proxy.seen}
    assert hosts == {HUB, "auth.example"}
    assert hub.count("blobs") == 1


# Logins


async def test_the_proxys_login_and_the_registrys_go_to_whom_they_are_for(
    hub: Hub, make_remote: MakeRemote, tmp_path: Path
) -> None:
    async with FakeProxy(HUB, login="me:at-the-proxy") as proxy:
        authority = Authority(tmp_path)
        heard: list[dict[str, str]] = []

        async def registry(request):  # type: ignore[no-untyped-def]
            heard.append(dict(request.headers))
            return await status(
                200 if "Authorization" in request.headers else 401,
                {
                    "WWW-Authenticate": "Basic realm=x",
                    "Docker-Content-Digest": "sha256:" + "0" * 64,
                },
            )(request)

        async with tls_server(authority.server(HUB), registry) as port:
            connecting = by(proxy, username="me", password=SecretStr("at-the-proxy"))
            remote = make_remote(
                f"https://{HUB}:{port}",
                connecting=connecting,
                tls=authority.trusted(),
                credentials=(Login("bob", SecretStr("at-the-registry")),),
            )
            await remote.ping()
            await (await remote.blob(CONTEXT, REDIS, Digest.of(b"x"))).close()
    assert basic("bob", "at-the-registry") in {one.get("Authorization") for one in heard}
    assert not any("Proxy-Authorization" in one for one in heard)
    assert proxy.seen
    for one in proxy.seen:
        assert "Authorization" not in one.headers
        assert one.headers["Proxy-Authorization"] == basic("me", "at-the-proxy")


@pytest.mark.parametrize("tunnel", [False, True], ids=["http", "https"])
async def test_a_changed_password_is_read_again_once_the_proxy_refuses_the_old_one(
    make_remote: MakeRemote, tmp_path: Path, hub: Hub, tunnel: bool
) -> None:
    authority, now = Authority(tmp_path), [SecretStr("old")]
    async with (
        FakeProxy(HUB, login="me:old") as proxy,
        tls_server(authority.server(HUB), status(404)) as port,
    ):
        remote = make_remote(
            f"https://{HUB}:{port}" if tunnel else named(hub),
            connecting=by(proxy, username="me", password=SecretStr("old"), again=lambda: now[0]),
            tls=authority.trusted(),
            policy=ONCE,
        )
        await remote.ping()
        proxy.login, now[0] = "me:new", SecretStr("new")
        proxy.seen.clear()
        async with asyncio.timeout(10):
            await make_remote(  # with no connection open
                f"https://{HUB}:{port}" if tunnel else named(hub),
                connecting=by(
                    proxy, username="me", password=SecretStr("old"), again=lambda: now[0]
                ),
                tls=authority.trusted(),
                policy=ONCE,
            ).ping()
    shown = [one.headers["Proxy-Authorization"] for one in proxy.seen]
    assert shown == [basic("me", "old"), basic("me", "new")]


async def test_a_refused_login_at_the_proxy_is_not_shown_again_and_again(
    make_remote: MakeRemote, hub: Hub, counts: Counts
) -> None:
    async with FakeProxy(HUB, login="me:right") as proxy:
        remote = make_remote(
            named(hub), connecting=by(proxy, username="me", password=SecretStr("hunter2"))
        )
        failure = await failure_of(remote)
    assert isinstance(failure, Unreachable)
    assert failure.kind is FailureKind.PROXY
    assert f"the proxy {proxy.url}: the proxy refuses the login 'me' (407)" in failure.message
    assert len(proxy.seen) == 1
    assert counts.requests == [("hub", "HEAD", "proxy")]
    encoded = base64.b64encode(b"me:hunter2").decode()
    error: BaseException | None = failure
    while error is not None:
        assert "hunter2" not in repr(error)
        assert encoded not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


async def test_a_refused_login_at_the_proxy_rests_for_all_endpoints_until_its_file_is_changed(
    make_remote: MakeRemote, hub: Hub, time: HandClock
) -> None:
    """As those at registries do: companies lock out accounts that try too often."""
    now, ways = [SecretStr("old")], Ways(Routes(), ProxyLogins(time.clock()))
    async with FakeProxy(HUB, login="me:new") as proxy:
        connecting = by(proxy, username="me", password=SecretStr("old"), again=lambda: now[0])
        remotes = [
            make_remote(named(hub), connecting=connecting, ways=ways, policy=ONCE) for _ in range(3)
        ]

        async def shown() -> int:
            before = len(proxy.seen)
            for remote in remotes:
                failure = await failure_of(remote)
                assert failure.kind is FailureKind.PROXY
                assert "refuses the login 'me' (407)" in failure.message
            return len(proxy.seen) - before

        assert await shown() == 1
        time.now += 61
        assert await shown() == 1
        time.now += 61
        assert await shown() == 0
        time.now += 60
        assert await shown() == 1
        now[0] = SecretStr("new")
        for remote in remotes:
            await remote.ping()
        assert proxy.seen[-1].headers["Proxy-Authorization"] == basic("me", "new")


async def test_a_password_on_a_share_that_is_gone_holds_no_other_work(
    make_remote: MakeRemote, hub: Hub, time: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxying, "SECRET", 0.2)
    back, ways = threading.Event(), Ways(Routes(), ProxyLogins(time.clock()))
    async with FakeProxy(HUB, login="me:new") as proxy:
        connecting = by(proxy, username="me", password=SecretStr("old"), again=back.wait)
        remotes = [
            make_remote(named(hub), connecting=connecting, ways=ways, policy=ONCE)
            for _ in range(20)
        ]
        try:
            async with asyncio.timeout(10):
                for failure in await asyncio.gather(*map(failure_of, remotes)):
                    assert "refuses the login 'me'" in failure.message
                assert await aside(len, "work") == 4
        finally:
            back.set()


# A proxy's own answers


async def test_a_proxy_that_lets_nobody_through_to_the_realm_is_asked_once(
    make_remote: MakeRemote, hub: Hub
) -> None:
    hub.realm_url = "http://auth.example/token"
    async with FakeProxy(status=403, headers="X-Squid-Error: ERR_ACCESS_DENIED 0\r\n") as proxy:
        remote = make_remote(
            hub.url, connecting=by(proxy, "127.0.0.1"), realm=hub.realm_url, resolver=Nameless()
        )
        failure = await failure_of(remote)
    assert "token realm 'http://auth.example/token' gives no token" in failure.message
    assert failure.kind is FailureKind.PROXY
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("code", [401, 403, 407, 502, 503, 504, 302, 500, 429, 404])
async def test_what_a_proxy_answers_to_connect_is_not_the_registrys_answer(
    make_remote: MakeRemote, code: int, counts: Counts
) -> None:
    async with FakeProxy(status=code) as proxy:
        failure = await failure_of(
            make_remote(f"https://{HUB}:1", connecting=by(proxy), policy=ONCE)
        )
    assert isinstance(failure, Unreachable)
    assert failure.kind is FailureKind.PROXY
    assert f"({code}" in failure.message
    assert proxy.url in failure.message
    assert counts.requests == [("hub", "HEAD", "proxy")]


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        (407, ""),
        (403, "X-Squid-Error: ERR_ACCESS_DENIED 0\r\n"),
        (503, "X-Squid-Error: ERR_CONNECT_FAIL 111\r\n"),
        (401, "Server: tinyproxy/1.11.1\r\n"),
        (403, "Server: tinyproxy/1.11.1\r\n"),
        (504, "Proxy-Status: proxy.corp; error=connection_timeout\r\n"),
    ],
)
async def test_a_proxys_own_answer_over_http_is_not_the_registrys(
    make_remote: MakeRemote, code: int, headers: str
) -> None:
    async with FakeProxy(status=code, headers=headers) as proxy:
        failure = await failure_of(
            make_remote(f"http://{HUB}:1", connecting=by(proxy), policy=ONCE)
        )
    assert failure.kind is FailureKind.PROXY
    assert proxy.url in failure.message


async def test_a_page_in_a_proxys_answer_to_a_head_is_its_refusal_all_the_same(
    make_remote: MakeRemote,
) -> None:
    """So it comes from tinyproxy."""
    server = "Server: tinyproxy/1.11.1\r\n"
    async with FakeProxy(status=403, headers=server, page="<html>Filtered</html>") as proxy:
        remote = make_remote(f"http://{HUB}:1", connecting=by(proxy), policy=ONCE)
        failure = await failure_of(remote)
    assert isinstance(failure, Unreachable)
    assert f"lets nobody, or not us, through to {HUB}:1 (403)" in failure.message
    assert [one.method for one in proxy.seen] == ["HEAD", "GET"]


async def test_a_registrys_own_refusal_over_http_is_its_own(
    hub: Hub, make_remote: MakeRemote, proxy: FakeProxy
) -> None:
    hub.fail("registry", status(403), times=2)
    with pytest.raises(Denied):
        await make_remote(named(hub), connecting=by(proxy)).resolve(CONTEXT, REDIS, "7")


async def test_a_proxy_that_wants_another_kind_of_login_is_told_so(make_remote: MakeRemote) -> None:
    wanted = "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n"
    async with FakeProxy(status=407, headers=wanted) as proxy:
        failure = await failure_of(make_remote(f"https://{HUB}", connecting=by(proxy)))
    assert "not spoken here (407, 'Negotiate, NTLM')" in failure.message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1", "the proxy cannot be connected"),
        (
            "http://no.such.host.invalid:1",
            "the proxy's name no.such.host.invalid cannot be resolved",
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_the_endpoint_unreachable(
    make_remote: MakeRemote, url: str, says: str, scheme: str
) -> None:
    failure = await failure_of(make_remote(f"{scheme}://{HUB}:1", connecting=by(url), policy=ONCE))
    assert isinstance(failure, Unreachable)
    assert failure.kind is FailureKind.PROXY
    assert says in failure.message


# Hostile proxies


def says(data: bytes) -> Behaviour:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return behaviour


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-A: " + b"a" * 60000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("behaviour", "kinds"),
    [
        (silent, {FailureKind.TIMEOUT}),
        (says(b"\x00\x01 what is this\r\n\r\n"), {FailureKind.PROXY}),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n"), {FailureKind.PROXY}),
        (endless, {FailureKind.PROXY}),
        (says(b"HTTP/1.1 200 OK\r\n\r\n"), {FailureKind.PROXY, FailureKind.TLS}),
        (says(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), set(FailureKind)),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), set(FailureKind)),
        (
            says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"),
            set(FailureKind),
        ),
        (says(b"HTTP/1.1 100 Continue\r\n\r\n"), set(FailureKind)),
        (says(b""), {FailureKind.PROXY, FailureKind.CUT}),
    ],
    ids=[
        *("silent", "garbage", "long-head", "endless-head", "closes", "answers-twice"),
        *("has-body", "is-chunked", "goes-on", "says-nothing"),
    ],
)
async def test_a_hostile_proxy_is_one_more_way_to_be_unreached(
    make_remote: MakeRemote, behaviour: Behaviour, kinds: set[FailureKind]
) -> None:
    async with FakeProxy(behaviour=behaviour) as proxy:
        async with asyncio.timeout(20):
            failure = await failure_of(
                make_remote(f"https://{HUB}", connecting=by(proxy), policy=ONCE)
            )
        assert failure.kind in kinds, failure.message
        assert proxy.url in failure.message


# What only an upstream names stays guarded


@pytest.mark.parametrize("address", ["10.0.0.5", "127.0.0.1", "169.254.169.254"])
async def test_a_referral_is_resolved_and_checked_here_before_the_proxy_is_asked(
    hub: Hub, make_remote: MakeRemote, proxy: FakeProxy, address: str
) -> None:
    digest = hub.add_blob(LAYER)
    hub.challenge = "none"
    hub.blobs_url = hub.blobs_url.replace("127.0.0.1", "cdn.example")
    remote = make_remote(named(hub), connecting=by(proxy), resolver=Names("8.8.8.8", address))
    with pytest.raises(Untrustworthy, match="allow_private"):
        await read_all(remote, digest)
    assert not any("cdn.example" in one.target for one in proxy.seen)


@pytest.mark.parametrize(
    "address", ["10.0.0.5", "127.0.0.1", "[::ffff:127.0.0.1]", "169.254.169.254"]
)
async def test_a_referral_to_an_address_is_checked(
    hub: Hub, make_remote: MakeRemote, proxy: FakeProxy, address: str
) -> None:
    digest = hub.add_blob(LAYER)
    hub.challenge = "none"
    hub.blobs_url = hub.blobs_url.replace("127.0.0.1", address)
    remote = make_remote(named(hub), connecting=by(proxy))
    with pytest.raises(Untrustworthy, match="allow_private"):
        await read_all(remote, digest)
    assert len(proxy.seen) == 1


async def test_a_referral_that_cannot_be_resolved_here_is_refused_with_what_to_write(
    hub: Hub, make_remote: MakeRemote, proxy: FakeProxy
) -> None:
    digest = hub.add_blob(LAYER)
    hub.challenge = "none"
    hub.blobs_url = hub.blobs_url.replace("127.0.0.1", "cdn.example")
    remote = make_remote(named(hub), connecting=by(proxy), resolver=Nameless())
    with pytest.raises(Unreached, match=r"cannot be resolved here.*allow_private"):
        await read_all(remote, digest)
    for listed in (["cdn.example"], ["*.example"]):
        allowed = Allowed.parse(listed)
        remote = make_remote(named(hub), connecting=by(proxy), resolver=Nameless(), allowed=allowed)
        assert await read_all(remote, digest) == LAYER


async def test_an_http_referral_goes_by_the_address_that_was_checked(
    hub: Hub, make_remote: MakeRemote
) -> None:
    digest = hub.add_blob(LAYER)
    hub.challenge = "none"
    port = hub.blobs_url.rsplit(":", 1)[1]
    hub.blobs_url = f"http://cdn.example:{port}"
    async with FakeProxy(HUB, "8.8.8.8") as proxy:
        remote = make_remote(named(hub), connecting=by(proxy), resolver=Names("8.8.8.8"))
        assert await read_all(remote, digest) == LAYER
    asked = proxy.seen[-1]
    assert asked.target.startswith(f"http://8.8.8.8:{port}/")
    assert asked.headers["Host"] == f"cdn.example:{port}"


async def test_a_registry_that_a_client_named_is_resolved_and_checked(
    make_remote: MakeRemote, proxy: FakeProxy
) -> None:
    for resolver in (Names("10.0.0.5"), Names("8.8.8.8", "127.0.0.1")):
        remote = make_remote(
            f"https://{HUB}", connecting=by(proxy), resolver=resolver, configured=False
        )
        with pytest.raises(Denied, match="not public"):
            await remote.resolve(CONTEXT, REDIS, "7")
    with pytest.raises(Unreached, match=r"cannot be resolved here.*list it under registries"):
        await make_remote(
            f"https://{HUB}", connecting=by(proxy), resolver=Nameless(), configured=False
        ).resolve(CONTEXT, REDIS, "7")
    assert proxy.seen == []


async def test_an_endpoint_behind_a_proxy_on_loopback_opens_nothing_near(
    hub: Hub, make_remote: MakeRemote, proxy: FakeProxy
) -> None:
    """The proxy's address says nothing of how near the endpoint is."""
    digest = hub.add_blob(LAYER)
    hub.challenge = "none"
    remote: Remote = make_remote(named(hub), connecting=by(proxy, "127.0.0.1"))
    with pytest.raises(Untrustworthy, match="allow_private"):
        await read_all(remote, digest)
    assert hub.count("blobs") == 0
    assert remote._transport._guard._endpoint in (None, Reach.PUBLIC)


# A proxy over TLS


async def test_a_proxy_may_be_spoken_to_in_tls_and_is_not_shown_our_certificate(
    make_remote: MakeRemote, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    ours = SecretStr(authority.issued("mirror").read_text())
    tls = authority.server("localhost")
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(authority.path)
    async with (
        FakeProxy(HUB, tls=tls) as proxy,
        tls_server(authority.server(HUB, clients=True), status(404)) as port,
    ):
        url = proxy.url.replace("127.0.0.1", "localhost")
        routes = Routes(Proxy(url), Proxy(url))
        connecting = Connecting(routes, authority.path.read_text(), ours)
        remote = make_remote(
            f"https://{HUB}:{port}", connecting=connecting, tls=authority.trusted(), limits=QUICK
        )
        with pytest.raises(RegistryError, match="does not have"):
            await remote.resolve(CONTEXT, REDIS, "7")
    assert not any(proxy.certificates)
    assert set(proxy.targets("CONNECT")) == {f"{HUB}:{port}"}


async def test_a_large_blob_comes_whole_through_tls_in_a_proxys_tls(
    make_remote: MakeRemote, tmp_path: Path
) -> None:
    authority, blob = Authority(tmp_path), bytes(range(256)) * 4096

    async def registry(request: web.BaseRequest) -> web.Response:
        return web.Response(body=blob)

    async with (
        FakeProxy(HUB, tls=authority.server("localhost")) as proxy,
        tls_server(authority.server(HUB), registry) as port,
    ):
        url = proxy.url.replace("127.0.0.1", "localhost")
        connecting = Connecting(Routes(Proxy(url), Proxy(url)), authority.path.read_text())
        tls = authority.trusted()
        remote = make_remote(f"https://{HUB}:{port}", connecting=connecting, tls=tls)
        async with asyncio.timeout(10):
            assert await read_all(remote, str(Digest.of(blob))) == blob


async def test_an_unverified_proxy_is_told_apart_from_an_unverified_registry(
    make_remote: MakeRemote, tmp_path: Path, proxy: FakeProxy
) -> None:
    authority = Authority(tmp_path)
    async with FakeProxy(HUB, tls=authority.server("localhost")) as strange:
        url = strange.url.replace("127.0.0.1", "localhost")
        failure = await failure_of(make_remote(f"https://{HUB}", connecting=by(url)))
        assert failure.kind is FailureKind.PROXY
        assert "of the proxy, its TLS certificate is refused" in failure.message
    async with tls_server(authority.server(HUB), status(404)) as port:
        failure = await failure_of(make_remote(f"https://{HUB}:{port}", connecting=by(proxy)))
    assert isinstance(failure, Unreached)
    assert failure.kind is FailureKind.TLS
    assert "write ca_file" in failure.message


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.0 200 Connection established",
        "HTTP/1.1 200 OK\r\nContent-Length: 0",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nProxy-Connection: Keep-Alive\r\nConnection: close\r\nVia: 1.1 x",
    ],
)
async def test_a_tunnel_is_one_whatever_stands_beside_it(
    make_remote: MakeRemote, tmp_path: Path, head: str
) -> None:
    """RFC 9110, 9.3.6: neither length nor coding of that answer count."""
    authority = Authority(tmp_path)
    async with (
        FakeProxy(HUB, connected=head) as proxy,
        tls_server(authority.server(HUB), status(404)) as port,
    ):
        url, trusted = f"https://{HUB}:{port}", authority.trusted()
        remote = make_remote(url, connecting=by(proxy), tls=trusted, policy=ONCE)
        with pytest.raises(RegistryError, match="does not have"):
            await remote.resolve(CONTEXT, REDIS, "7")


async def test_an_ipv6_address_is_asked_for_in_brackets(make_remote: MakeRemote) -> None:
    async with FakeProxy(status=403) as proxy:
        failure = await failure_of(make_remote("https://[2001:db8::1]:5000", connecting=by(proxy)))
    assert proxy.targets("CONNECT") == ["[2001:db8::1]:5000"]
    assert "through to [2001:db8::1]:5000 (403)" in failure.message
