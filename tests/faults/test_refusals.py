"""Every way in which an upstream refuses: who is told what, and where. One row for each.

The log, the client's answer and `check --online` name who refused, what, and what to do; `/readyz`
leads there. The assertions are of the nouns that an operator needs, not of sentences.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from ..e2e.programs import REPOSITORY
from ..fakes.hub import Fault, Hub, page, status
from ..fakes.proxy import FakeProxy
from ..test_cli import free_port
from ..upstream.authority import Authority
from ..upstream.test_certificates import refusing
from ..waiting import eventually
from .client import fetch
from .house import House, Mirror
from .servers import babbles, bare, certificate, https, resets

SECRET = "right-and-secret"


@dataclass(frozen=True)
class Upstream:
    """What mirror.yaml says of it, and what the mirror's environment says."""

    url: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


Serve = Callable[[House], AbstractAsyncContextManager[Upstream]]


@dataclass(frozen=True)
class Row:
    """`status` is the client's. `step` is where `check --online` finds it; "" where a HEAD of a
    manifest cannot. `words` are what everybody is told."""

    name: str
    serve: Serve
    status: int
    step: str
    words: tuple[str, ...]
    is_endpoints: bool = True  # the log says it of the endpoint, not of the request alone


def url(address: str) -> Serve:
    @contextlib.asynccontextmanager
    async def serve(house: House) -> AsyncIterator[Upstream]:
        yield Upstream(address)

    return serve


@contextlib.asynccontextmanager
async def nobody(house: House) -> AsyncIterator[Upstream]:
    yield Upstream(f"http://127.0.0.1:{free_port()}")


@contextlib.asynccontextmanager
async def mail(house: House) -> AsyncIterator[Upstream]:
    async with bare(babbles) as address:
        yield Upstream(address)


@contextlib.asynccontextmanager
async def resetting(house: House) -> AsyncIterator[Upstream]:
    async with bare(resets) as address:
        yield Upstream(address)


async def empty(request: web.Request) -> web.Response:
    return web.json_response({})


def tls(trusted: bool, **options: Any) -> Serve:
    @contextlib.asynccontextmanager
    async def serve(house: House) -> AsyncIterator[Upstream]:
        made = certificate(house.folder, **options)
        async with https(made, empty) as address:
            yield Upstream(address, env=made.environment() if trusted else {})

    return serve


@contextlib.asynccontextmanager
async def plain(house: House) -> AsyncIterator[Upstream]:
    yield Upstream(house.hub.url.replace("http", "https"))


def proxy(status: int = 200, login: str = "", at: str = "") -> Serve:
    """The way leads by a proxy, which answers like this; or it is said to be at `at`."""

    @contextlib.asynccontextmanager
    async def serve(house: House) -> AsyncIterator[Upstream]:
        async with FakeProxy(status=status, login=login) as passing:
            named = at.format(port=free_port()) or passing.url
            yield Upstream("https://registry.invalid", {"proxy": named})

    return serve


def mutual(shown: bool) -> Serve:
    """The registry wants a client certificate; with `shown` it gets another authority's."""

    @contextlib.asynccontextmanager
    async def serve(house: House) -> AsyncIterator[Upstream]:
        ours, theirs = house.folder / "ours", house.folder / "theirs"
        ours.mkdir()
        theirs.mkdir()
        authority, other = Authority(theirs), Authority(ours, "another")
        keys: dict[str, Any] = {"ca_file": str(authority.path)}
        if shown:
            pem = str(other.issued("mirror"))
            keys["client"] = {"cert": pem, "key": pem}
        with refusing(authority.server("localhost", clients=True)) as port:
            yield Upstream(f"https://localhost:{port}", keys)

    return serve


def hub(
    change: Callable[[Hub], None] = lambda hub: None,
    fault: Fault | None = None,
    at: str = "registry",
    login: bool = False,
    realm: bool = True,
) -> Serve:
    """`login`: the mirror has one, of ann; `realm`: it may be shown to the hub's realm."""

    @contextlib.asynccontextmanager
    async def serve(house: House) -> AsyncIterator[Upstream]:
        change(house.hub)
        if fault is not None:
            house.hub.fail(at, fault, times=10_000)
        keys: dict[str, Any] = {}
        if login:
            path = house.folder / "password"
            path.write_text(f"{SECRET}\n")
            keys["credentials"] = {"username": "ann", "password_file": str(path)}
            if realm:
                keys["realm"] = house.hub.realm_url
        yield Upstream(house.hub.url, keys)

    return serve


def wrong_login(hub: Hub) -> None:
    hub.login, hub.anonymous = ("ann", "another"), False


def wrong_basic_login(hub: Hub) -> None:
    hub.login, hub.challenge = ("ann", "another"), "basic"


def no_right(hub: Hub) -> None:
    hub.login = ("ann", SECRET)
    hub.closed = {("ann", "library/redis"), ("", "library/redis")}


def no_right_403(hub: Hub) -> None:
    no_right(hub)
    hub.closed_by = 403


def private(hub: Hub) -> None:
    hub.closed = {("", "library/redis")}


def realm_elsewhere(hub: Hub) -> None:
    hub.login, hub.anonymous = ("ann", SECRET), False
    hub.realm_url = hub.realm_url.replace("127.0.0.1", "localhost")


def realm_gone(hub: Hub) -> None:
    hub.realm_url = f"http://127.0.0.1:{free_port()}/token"


def no_pulls_left(hub: Hub) -> None:
    hub.add_image("library/redis", "7", b"layer")
    hub.limit = 0


def other_bytes(hub: Hub) -> None:
    digest = hub.add_image("library/redis", "7", b"layer")
    hub.manifests[digest] = (b'{"schemaVersion":2}', hub.manifests[digest][1])


ROWS = [
    Row("no such name", url("http://registry.invalid"), 503, "name", ("resolve", "DNS")),
    Row("nobody listens", nobody, 503, "connection", ("refused", "url")),
    Row("no HTTP", mail, 503, "registry", ("HTTP",)),
    Row("the connection is reset", resetting, 503, "registry", ("connection", "broke")),
    Row("unknown authority", tls(False), 503, "TLS", ("certificate", "ca_file")),
    Row("ended", tls(True, ended=True), 503, "TLS", ("certificate", "expired", "renewed")),
    Row("another name", tls(True, name="other.example"), 503, "TLS", ("'localhost'", "url")),
    Row("no client certificate", mutual(False), 503, "TLS", ("client certificate", "client: {")),
    Row(
        "another client certificate", mutual(True), 503, "TLS", ("refuses our client certificate",)
    ),
    Row("no proxy", proxy(at="http://127.0.0.1:{port}"), 503, "connection", ("proxy", "refused")),
    Row("the proxy wants a login", proxy(login="a:b"), 503, "connection", ("407", "password_file")),
    Row("the proxy says no", proxy(403), 503, "connection", ("proxy", "registry.invalid", "403")),
    Row(
        "the proxy finds nobody", proxy(502), 503, "connection", ("proxy", "does not reach", "502")
    ),
    Row("no TLS", plain, 503, "TLS", ("TLS", "http://")),
    Row("a web page", hub(fault=page()), 502, "registry", ("web page", "url")),
    Row(
        "a redirect to a page to sign in at",
        hub(fault=status(302, {"Location": "https://login.invalid/sso"})),
        503,
        "registry",
        ("https://login.invalid (where it leads)",),
    ),
    Row("503", hub(fault=status(503)), 503, "registry", ("503", "whoever runs it")),
    Row("403", hub(fault=status(403)), 403, "registry", ("403",), is_endpoints=False),
    Row("404", hub(), 404, "image", ("library/redis",), is_endpoints=False),
    Row("429", hub(fault=status(429, {"Retry-After": "90"})), 503, "image", ("429", "UTC")),
    Row("no pulls left", hub(no_pulls_left), 503, "", ("429", "login"), is_endpoints=False),
    Row("other bytes", hub(other_bytes), 502, "", ("other bytes", "sha256:")),
    Row("the realm is down", hub(realm_gone), 503, "token", ("token realm", "connect")),
    Row(
        "the realm has trouble", hub(fault=status(503), at="realm"), 503, "token", ("realm", "503")
    ),
    Row("the realm is a web page", hub(fault=page(), at="realm"), 503, "token", ("realm", "page")),
    Row("wrong login", hub(wrong_login, login=True), 403, "login", ("ann", "realm", "401")),
    Row("wrong Basic login", hub(wrong_basic_login, login=True), 403, "login", ("ann", "401")),
    Row(
        "login withheld",
        hub(realm_elsewhere, login=True, realm=False),
        403,
        "login",
        ("'ann'", "realm: "),
        is_endpoints=False,
    ),
    Row(
        "no right",
        hub(no_right, login=True),
        403,
        "image",
        ("'ann'", "library/redis", "401"),
        False,
    ),
    Row("no right, 403", hub(no_right_403, login=True), 403, "image", ("'ann'", "403"), False),
    Row("private", hub(private), 403, "image", ("private", "credentials"), False),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_refusal_says_who_refuses_what_and_what_to_do(house: House, row: Row) -> None:
    async with row.serve(house) as upstream:
        mirror = await house.mirror(upstream.url, docker_io=upstream.keys, env=upstream.env)
        name = upstream.url.partition("://")[2]
        for _ in range(3):
            answer = await mirror.manifest("7")
        first = await mirror.manifest("7")
        assert answer.status == row.status
        told = [answer.message]
        if row.status != 404:  # which is answered from memory the second time
            assert name in first.message
        log = await logged(mirror, name)
        if row.is_endpoints:
            assert len(log) == len({(line.get("repository"), line["reason"]) for line in log}), log
            told.append(" ".join(str(value) for line in log for value in line.values()))
        checked = await check(mirror, upstream.env, "redis:7")
        failed = [line for line in checked.stdout.splitlines() if line.startswith("  FAIL")]
        assert checked.returncode == (1 if row.step else 0), checked.stdout
        if row.step:
            assert failed[0].split()[1] == row.step, failed
            told.append(" ".join(failed))
        for words in told:
            for word in row.words:
                assert word in words, words
        ready = (await fetch(f"{mirror.admin}/readyz?image=redis:7")).body.decode()
        assert "check --online docker.io/library/redis:7" in ready
        assert_discreet(mirror, answer.message, checked.stdout + checked.stderr + ready)


async def test_trouble_is_logged_once_and_that_it_is_over(house: House) -> None:
    digests = [house.hub.add_image(f"library/app{number}", "7", b"x") for number in range(5)]
    mirror = await house.mirror()
    house.hub.fail("registry", status(503), times=10_000)
    for _ in range(3):
        for number in range(5):
            await mirror.manifest("7", name=f"library/app{number}")
    house.hub.mend()

    async def are_back() -> bool:
        asks = [mirror.manifest("7", name=f"library/app{number}") for number in range(5)]
        answers = await asyncio.gather(*asks)
        return all(one.is_whole(digest) for one, digest in zip(answers, digests, strict=True))

    await eventually(are_back)
    await eventually(lambda: bool(mirror.events("endpoint_is_back")))
    said = [line.get("repository") for line in mirror.events("endpoint_steps_back")]
    assert len(said) == len(set(said)) <= 6  # each repository, and the whole endpoint
    assert all("whoever runs it" in one["reason"] for one in mirror.events("endpoint_steps_back"))


async def logged(mirror: Mirror, endpoint: str) -> list[dict[str, Any]]:
    """What the log says of the endpoint, once the requests are in it."""

    async def is_whole() -> bool:
        return sum(line["kind"] == "tag" for line in mirror.events("request")) == 4

    await eventually(is_whole)
    lines = (json.loads(line) for line in mirror.words().splitlines())
    return [
        line
        for line in lines
        if line["level"] in ("warning", "error") and line.get("endpoint") == endpoint
    ]


async def check(
    mirror: Mirror, env: Mapping[str, str], image: str
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mirror", "check", "--online", "--config", mirror.config, image],
        cwd=REPOSITORY,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_discreet(mirror: Mirror, message: str, operators: str) -> None:
    """A client is told of no file of this host, and of one line's length; nobody of a secret."""
    assert str(mirror.folder.parent) not in message
    assert "Traceback" not in operators
    assert len(message) <= 1001
    for words in (message, operators, mirror.words()):
        assert SECRET not in words
