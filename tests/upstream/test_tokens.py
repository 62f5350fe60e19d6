"""Tokens: asked for once, kept as long as they are good, and shown to nobody else."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from yarl import URL

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, RateLimited, Unavailable, Untrustworthy
from mirror.oci.reference import Repository
from mirror.secret_text import SecretStr
from mirror.upstream.client.tokens import Tokens
from mirror.upstream.client.wanted import Bearer
from mirror.upstream.endpoint import MIB, Endpoint, GivenToken, Login, Logins
from mirror.upstream.http.transport import Transport

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import OCI_MANIFEST, Fault, Hub, cut, hang, page, status
from .conftest import QUICK, REDIS, MakeRemote

LOGIN = Login("ann", SecretStr("pass:wörd"))


async def test_an_anonymous_token_is_negotiated_once_and_used_again(
    hub: Hub, make_remote: MakeRemote
) -> None:
    digest = hub.add_image("library/redis", "7", b"layer")
    remote = make_remote(hub.url)
    descriptor = await remote.resolve(CONTEXT, REDIS, "7")
    await remote.manifest(CONTEXT, REDIS, descriptor.digest)
    assert str(descriptor.digest) == digest
    assert hub.count("realm") == 1
    asked = hub.seen("realm")[0]
    assert dict(asked.query) == {"service": "hub", "scope": "repository:library/redis:pull"}
    assert "Authorization" not in asked.headers
    # One 401 teaches the challenge; after that no request is wasted, in other repositories either.
    hub.add_image("library/nginx", "1", b"other")
    await remote.resolve(CONTEXT, Repository("docker.io", "library/nginx"), "1")
    assert hub.count("registry") == 4
    assert hub.count("realm") == 2


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (lambda token: {"token": token}, 60),  # the token specification's default
        (lambda token: {"access_token": token, "expires_in": 300}, 300),
        (lambda token: {"token": token, "access_token": "no", "expires_in": 120.5}, 120.5),
        (lambda token: {"token": token, "expires_in": "soon"}, 60),
        (lambda token: {"token": token, "expires_in": True}, 60),
        (lambda token: {"token": token, "expires_in": 10**400}, 12 * 3600),
    ],
)
async def test_f29_a_token_is_renewed_before_it_ends_by_monotonic_time(
    hub: Hub,
    make_remote: MakeRemote,
    time: HandClock,
    answer: Callable[[str], dict[str, Any]],
    seconds: float,
) -> None:
    hub.token_answer = answer
    hub.add_image("library/redis", "7")
    remote = make_remote(hub.url)
    await remote.resolve(CONTEXT, REDIS, "7")
    time.ahead += 1_000_000
    time.now += seconds / 2
    await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 1
    time.now += seconds / 2 - 1
    await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 2
    assert hub.count("registry") == 1 + 3, "no request was refused for a token that had ended"


async def test_f26_a_token_is_renewed_once_for_all_who_wait(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.add_image("library/redis", "7")
    remote = make_remote(hub.url)
    await remote.resolve(CONTEXT, REDIS, "7")
    hub.revoke_tokens()
    await asyncio.gather(*(remote.resolve(CONTEXT, REDIS, "7") for _ in range(20)))
    assert hub.count("realm") == 2


async def test_a_waiter_that_leaves_does_not_take_the_token_from_the_others(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.add_image("library/redis", "7")
    remote = make_remote(hub.url)
    await remote.resolve(CONTEXT, REDIS, "7")
    hub.revoke_tokens()
    go_on = asyncio.Event()

    async def wait(request: object) -> None:
        await go_on.wait()

    hub.fail("realm", wait)
    first = asyncio.create_task(remote.resolve(CONTEXT, REDIS, "7"))
    second = asyncio.create_task(remote.resolve(CONTEXT, REDIS, "7"))
    async with asyncio.timeout(5):
        while hub.count("realm") < 2 or hub.count("registry") < 4:
            await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    await second
    assert hub.count("realm") == 2


async def test_the_old_token_serves_on_while_the_realm_is_down(
    hub: Hub, make_remote: MakeRemote, time: HandClock
) -> None:
    hub.add_image("library/redis", "7")
    remote = make_remote(hub.url)
    await remote.resolve(CONTEXT, REDIS, "7")
    time.now += 285  # of 300
    hub.fail("realm", status(500), times=99)
    await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 2


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (status(500), Unavailable, r"500"),
        (cut(), Unavailable, r"connection broke"),
        (page(), Untrustworthy, r"no JSON"),
        (status(200, body=b"{}"), Untrustworthy, r"no token"),
        (status(200, body=b'{"token": 7}'), Untrustworthy, r"no token"),
        (status(200, body=b'["token"]'), Untrustworthy, r"no token"),
        (status(200, body=b'{"token": "a\\r\\nX-Evil: 1"}'), Untrustworthy, r"no header can carry"),
        (status(200, body='{"token": "%s"}' % ("x" * 33000)), Untrustworthy, r"no header can"),
        (status(200, body=b"x" * 200_000), Untrustworthy, r"more than a token"),
        (status(404), Denied, r"404"),
        (status(400), Denied, r"400"),
        (status(403), Denied, r"anonymous askers"),
        (status(429, {"Retry-After": "77"}), RateLimited, r"limits"),
    ],
)
async def test_f25_a_broken_realm_is_named_and_asked_a_bounded_number_of_times(
    hub: Hub, make_remote: MakeRemote, fault: Fault, error: type[Exception], says: str
) -> None:
    hub.fail("realm", fault, times=99)
    with pytest.raises(error, match=says) as caught:
        await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert hub.realm_url in str(caught.value)
    assert hub.count("realm") <= 6  # 3 attempts; the client repeats one on a closed connection


def packed(body: bytes, encoding: str = "gzip") -> Fault:
    """A token realm behind a proxy that compresses what nobody asked it to."""
    return status(200, {"Content-Encoding": encoding}, body)


async def test_a_token_in_gzip_is_read(hub: Hub, make_remote: MakeRemote) -> None:
    hub.add_image("library/redis", "7")
    hub.tokens["packed"] = "repository:library/redis:pull"
    hub.fail("realm", packed(gzip.compress(b'{"token": "packed"}')))
    await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 1


async def test_a_long_token_that_is_given_twice_is_taken(hub: Hub, make_remote: MakeRemote) -> None:
    """As long as those of users who are in many groups, and longer; a registry in Go takes it."""
    long, digest = "t" * 30_000, Digest.of(b"x")
    hub.fail("realm", status(200, body=json.dumps({"token": long, "access_token": long})))
    wanted = f'WWW-Authenticate: Bearer realm="{hub.realm_url}",service="hub"'
    refusal = f"HTTP/1.1 401 Unauthorized\r\n{wanted}\r\nContent-Length: 0\r\n\r\n"
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: 9\r\n"
        f"Docker-Content-Digest: {digest}\r\n\r\n"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while asked := await reader.readuntil(b"\r\n\r\n"):
                is_shown = f"Authorization: Bearer {long}\r\n".encode() in asked
                writer.write((answer if is_shown else refusal).encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    remote = make_remote(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert (await remote.resolve(CONTEXT, REDIS, "7")).digest == digest
    assert hub.count("realm") == 1
    await remote.close()
    server.close()


@pytest.mark.parametrize(
    "answer",
    [
        packed(gzip.compress(b'{"token": "' + b"t" * 100_000 + b'"}')),
        packed(b"\x1f\x8bnot really"),
        packed(b"{}", "br"),
    ],
    ids=["too long", "broken", "another"],
)
async def test_what_is_no_token_in_gzip_is_named(
    answer: Fault, hub: Hub, make_remote: MakeRemote
) -> None:
    hub.fail("realm", answer, times=9)
    with pytest.raises(Untrustworthy, match=r"/token.* sent (a Content-Encoding|no token)"):
        await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")


async def test_f25_a_realm_that_hangs_is_given_up(hub: Hub, make_remote: MakeRemote) -> None:
    over = asyncio.Event()
    hub.fail("realm", hang(over), times=9)
    remote = make_remote(hub.url, limits=replace(QUICK, waits=replace(QUICK.waits, realm=0.2)))
    with pytest.raises(Unavailable, match=r"no answer within 0\.2 s") as caught:
        await remote.resolve(CONTEXT, REDIS, "7")
    over.set()
    assert hub.realm_url in str(caught.value)


async def test_f25_a_realm_that_is_down_is_named(
    hub: Hub, make_remote: MakeRemote, unused_tcp_port: int
) -> None:
    hub.realm_url = f"http://127.0.0.1:{unused_tcp_port}/token"
    with pytest.raises(Unavailable, match="cannot be connected") as caught:
        await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert hub.realm_url in str(caught.value)


async def test_f25_tokens_that_are_refused_as_soon_as_they_are_given_do_not_loop(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.token_answer = lambda token: {"token": "never-" + token, "expires_in": 0}
    with pytest.raises(Denied, match="does not exist there, or it is private"):
        await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") <= 3
    assert [one.method for one in hub.seen("registry")] == ["HEAD", "HEAD", "GET"]


async def test_the_registry_is_asked_for_its_challenge_again_when_its_realm_fails(
    hub: Hub, make_remote: MakeRemote, unused_tcp_port: int
) -> None:
    hub.add_image("library/redis", "7")
    good, hub.realm_url = hub.realm_url, f"http://127.0.0.1:{unused_tcp_port}/token"
    remote = make_remote(hub.url)
    with pytest.raises(Unavailable):
        await remote.resolve(CONTEXT, REDIS, "7")
    hub.realm_url = good
    await remote.resolve(CONTEXT, REDIS, "7")


async def test_the_login_goes_to_a_realm_on_the_endpoints_own_host(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.login, hub.anonymous = ("ann", "pass:wörd"), False
    hub.add_image("library/redis", "7")
    await make_remote(hub.url, credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
    asked = hub.seen("realm")[0]
    assert asked.headers["Authorization"].startswith("Basic ")
    assert asked.query["account"] == "ann"
    assert all(
        one.headers.get("Authorization", "Bearer ").startswith("Bearer ")
        for one in hub.seen("registry")
    )


async def test_a_refused_login_is_named_without_its_password(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.login, hub.anonymous = ("ann", "another"), False
    with pytest.raises(Denied, match="'ann'") as caught:
        await make_remote(hub.url, credentials=(LOGIN,)).resolve(CONTEXT, REDIS, "7")
    assert "wörd" not in str(caught.value)


async def test_f61_a_realm_on_another_host_gets_no_login_and_that_is_said_once(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.add_image("library/redis", "7")
    hub.realm_url = hub.realm_url.replace("127.0.0.1", "localhost")
    remote = make_remote(hub.url, credentials=(LOGIN,))
    with capture_logs() as logs:
        await remote.resolve(CONTEXT, REDIS, "7")
        hub.revoke_tokens()
        await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 2
    assert not any("Authorization" in one.headers for one in hub.seen("realm"))
    assert [log["event"] for log in logs] == ["login_withheld"]
    assert "wörd" not in str(logs)


async def test_f61_a_configured_realm_gets_the_login(hub: Hub, make_remote: MakeRemote) -> None:
    hub.login = ("ann", "pass:wörd")
    hub.add_image("library/redis", "7")
    hub.realm_url = hub.realm_url.replace("127.0.0.1", "localhost")
    remote = make_remote(hub.url, credentials=(LOGIN,), realm=hub.realm_url)
    await remote.resolve(CONTEXT, REDIS, "7")
    assert "Authorization" in hub.seen("realm")[0].headers


async def test_f61_a_redirect_of_the_realm_leaves_the_login_behind(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.add_image("library/redis", "7")
    elsewhere = hub.realm_url.replace("127.0.0.1", "localhost")
    hub.fail("realm", status(307, {"Location": elsewhere}))
    remote = make_remote(hub.url, credentials=(LOGIN,))
    with pytest.raises(Denied):  # an anonymous token without the scope
        await remote.resolve(CONTEXT, REDIS, "7")
    first, second = hub.seen("realm")[:2]
    assert "Authorization" in first.headers
    assert "Authorization" not in second.headers


async def test_f65_a_token_of_one_repository_is_not_shown_for_another(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.add_image("library/redis", "7")
    hub.add_image("library/nginx", "1")
    remote = make_remote(hub.url)
    await remote.resolve(CONTEXT, REDIS, "7")
    await remote.resolve(CONTEXT, Repository("docker.io", "library/nginx"), "1")
    shown = {
        one.headers["Authorization"]
        for one in hub.seen("registry")
        if "Authorization" in one.headers
    }
    assert len(shown) == 2


async def test_a_basic_registry_gets_the_login_itself(hub: Hub, make_remote: MakeRemote) -> None:
    hub.challenge, hub.login = "basic", ("ann", "pass:wörd")
    digest = hub.add_blob(b"layer")
    hub.add_image("library/redis", "7")
    remote = make_remote(hub.url, credentials=(LOGIN,))
    await remote.resolve(CONTEXT, REDIS, "7")
    await (await remote.blob(CONTEXT, REDIS, Digest.parse(digest))).close()
    assert hub.count("registry", path="/library/") == 3, "the login comes along once it is wanted"
    assert hub.count("registry", path="/v2/") == 3 + 1, "and was tried by itself before"
    assert hub.count("realm") == 0
    assert not any("Authorization" in one.headers for one in hub.seen("blobs"))


async def test_a_basic_registry_without_a_login_is_denied(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.challenge = "basic"
    with pytest.raises(Denied, match="library/redis"):
        await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert hub.count("registry") == 2


async def test_a_given_token_is_shown_as_it_is(hub: Hub, make_remote: MakeRemote) -> None:
    hub.add_image("library/redis", "7")
    hub.tokens["given"] = "repository:library/redis:pull"
    remote = make_remote(hub.url, credentials=(GivenToken(SecretStr("given")),))
    await remote.resolve(CONTEXT, REDIS, "7")
    hub.revoke_tokens()
    with pytest.raises(Denied):
        await remote.resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 0


def test_f71_secrets_are_not_in_any_representation() -> None:
    for credentials in (LOGIN, GivenToken(SecretStr("pass:wörd"))):
        endpoint = Endpoint("it", "https://ghcr.io", logins=Logins((credentials,)))
        assert "wörd" not in f"{endpoint!r} {endpoint} {credentials!r}"


async def test_tokens_of_many_repositories_take_no_more_memory_than_they_may(
    hub: Hub, time: HandClock
) -> None:
    """Clients name repositories, and the realm says how long a token is."""
    many = 400
    hub.token_answer = lambda token: {"token": token.ljust(30_000, "x"), "expires_in": 3600}
    endpoint = Endpoint("hub", hub.url, logins=Logins(realm=hub.realm_url))
    transport = Transport(endpoint, Events())
    tokens, wanted = Tokens(endpoint, None, transport, time.clock()), Bearer(URL(hub.realm_url))
    tracemalloc.start()
    try:
        for number in range(many):
            scope = f"repository:evil/{number}:pull"
            await tokens.authorization(CONTEXT, tokens.key(URL(hub.url), wanted, scope))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await tokens.close()
        await transport.close()
    assert hub.count("realm") == many
    assert held < 8 * MIB


async def test_a_challenge_with_an_endless_service_is_not_answered(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.lines = lambda scope: [f'Bearer realm="{hub.realm_url}",service="{"s" * 2000}"']
    with pytest.raises(Denied):
        await make_remote(hub.url).resolve(CONTEXT, REDIS, "7")
    assert hub.count("realm") == 0
