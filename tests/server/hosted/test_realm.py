"""The token realm over HTTP, as clients speak to it and as attackers do."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import bcrypt
import pytest
from yarl import URL

from mirror.clock import Clock
from mirror.contracts.hosted import Visibility
from mirror.contracts.identity import Organisation, Role, User
from mirror.hosted.registry import HostedRegistry, Shelves
from mirror.identity.identity import Identity
from mirror.oci.challenges import parse_challenges
from mirror.server.hosted.challenge import bearer
from mirror.server.hosted.handler import HostedNames
from mirror.server.hosted.realm import Realm
from mirror.server.hosted.search import Search
from mirror.server.hosted.serving import HostedServing
from mirror.server.http.listening import Listener
from mirror.server.http.response_cache import ResponseCache
from mirror.server.http.sending import Sender
from mirror.server.v2.access_log import AccessLog

from ...fakes import Answers, MemoryHeld, MemoryIdentity, MemoryRecords
from ...fakes.uploads import MemoryShelf, MemoryUploads
from ..conftest import ports
from .conftest import MemoryMarks

SERVICE = "registry.corp.lan"
PASSWORD = "correct horse"
MISSING = "sha256:" + "0" * 64


def basic(name: str, password: str = PASSWORD) -> Mapping[str, str]:
    login = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {login}"}


def with_token(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Site:
    """ada writes in team, bob in nothing; team/app is private, team/shown public."""

    url: str
    records: MemoryIdentity
    hosted: MemoryRecords
    client: aiohttp.ClientSession

    async def ask(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        data: Any = None,
    ) -> tuple[int, Mapping[str, str], Any]:
        url = URL(self.url + path, encoded=True)
        async with self.client.request(method, url, headers=headers, data=data) as answer:
            body = await answer.read()
            is_json = answer.content_type == "application/json" and body
            return answer.status, answer.headers, json.loads(body) if is_json else body

    async def token(self, *scopes: str, headers: Mapping[str, str] | None = None) -> str:
        query = urlencode([("service", SERVICE), *(("scope", each) for each in scopes)])
        status, _, body = await self.ask(f"/token?{query}", headers)
        assert status == 200, body
        return str(body["token"])


@asynccontextmanager
async def opened(sender: Sender) -> AsyncIterator[Site]:
    clock, told, records, hosted = Clock(), Answers(), MemoryIdentity(), MemoryRecords()
    held, marks = MemoryHeld(clock.wall), MemoryMarks()
    identity = Identity(records, hosted, SERVICE, clock, marks.still)
    shelves = Shelves(MemoryShelf(held), held, MemoryUploads(held))  # type: ignore[arg-type]
    inner = HostedRegistry("hosted", hosted, shelves, identity.rights, told, clock)
    hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    for name in ("ada", "bob"):
        await records.add_user(User(name, False, 0.0), hash)
    await records.add_organisation(Organisation("team", 0.0))
    await records.set_member("team", "ada", Role.WRITER)
    await hosted.create("team/app", Visibility.PRIVATE, 0.0, "ada")
    await hosted.create("team/shown", Visibility.PUBLIC, 0.0, "ada")
    log = AccessLog(lambda _: None, told)
    cache = ResponseCache(log)
    serving = HostedServing(
        "hosted",
        identity.guard(inner),
        identity.authenticator,
        bearer(SERVICE),
        marks,
        sites={"token": Realm(identity.realm), "v1": Search(hosted, identity.rights)},
    )
    handler = HostedNames(serving, sender, log=log, response_cache=cache, clock=clock)
    listener = Listener(handler, await ports(), response_cache=cache, events=told)
    listener.start()
    host, port = listener.addresses[0]
    async with identity.running(), aiohttp.ClientSession() as client:
        yield Site(f"http://{host}:{port}", records, hosted, client)
    await listener.stop(0)


@pytest.fixture
async def site(sender: Sender) -> AsyncIterator[Site]:
    async with opened(sender) as site:
        yield site


async def test_a_login_as_docker_does_it(site: Site) -> None:
    status, headers, _ = await site.ask("/v2/")
    assert status == 401
    (challenge,) = parse_challenges([headers["WWW-Authenticate"]])
    assert challenge.scheme == "bearer"
    assert challenge.parameters == {"realm": f"{site.url}/token", "service": SERVICE}
    query = f"account=ada&client_id=docker&offline_token=true&service={SERVICE}"
    status, headers, body = await site.ask(f"/token?{query}", basic("ada"))
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert body["token"] == body["access_token"]
    assert body["expires_in"] == 300
    assert "refresh_token" not in body
    assert (await site.ask("/v2/", with_token(body["token"])))[0] == 200
    status, headers, body = await site.ask(f"/token?{query}", basic("ada", "wrong"))
    assert status == 401
    assert body["errors"][0]["code"] == "UNAUTHORIZED"


async def test_a_token_by_a_form(site: Site) -> None:
    form = {
        "grant_type": "password",
        "username": "ada",
        "password": PASSWORD,
        "service": SERVICE,
        "client_id": "containerd-client",
        "scope": "repository:team/app:pull repository:team/app:pull,push",
        "access_type": "offline",
    }
    status, _, body = await site.ask("/token", method="POST", data=form)
    assert status == 200
    assert "refresh_token" not in body
    token = with_token(body["access_token"])
    assert (await site.ask("/v2/team/app/blobs/uploads/", token, "POST"))[0] == 202
    for wrong, expected in [
        ({"password": "wrong"}, 401),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400),
        ({"grant_type": ""}, 400),
        ({"service": "another"}, 400),
    ]:
        assert (await site.ask("/token", method="POST", data={**form, **wrong}))[0] == expected
    assert (await site.ask("/token", method="POST", data=b"x" * (1 << 20)))[0] in (400, 413)
    assert (await site.ask("/token", method="PUT"))[0] == 405
    assert (await site.ask("/token/more"))[0] == 404


async def test_a_token_for_too_little_is_told_for_what_it_should_be(site: Site) -> None:
    pull = with_token(await site.token("repository:team/app:pull", headers=basic("ada")))
    status, headers, _ = await site.ask("/v2/team/app/blobs/uploads/", pull, "POST")
    assert status == 401
    (challenge,) = parse_challenges([headers["WWW-Authenticate"]])
    assert challenge.parameters["error"] == "insufficient_scope"
    assert challenge.parameters["scope"] == "repository:team/app:pull,push"
    status, headers, _ = await site.ask("/v2/", with_token("a.b.c"))
    assert status == 401
    (challenge,) = parse_challenges([headers["WWW-Authenticate"]])
    assert challenge.parameters["error"] == "invalid_token"


async def test_what_is_public_is_pulled_by_anybody(site: Site) -> None:
    token = await site.token("repository:team/shown:pull,push")
    for headers in (None, with_token(token), basic("bob")):
        assert (await site.ask("/v2/team/shown/tags/list", headers))[0] == 200
        assert (await site.ask("/v2/team/app/tags/list", headers))[0] in (401, 403)
    assert (await site.ask("/v2/team/shown/blobs/uploads/", with_token(token), "POST"))[0] == 401


@pytest.mark.parametrize("login", [{}, basic("bob"), None])
async def test_what_is_private_and_what_is_not_there_are_told_apart_by_nothing(
    site: Site, login: Mapping[str, str] | None
) -> None:
    """With no login, with one, and with a token for each name."""
    asked = [
        ("GET", "/v2/{}/tags/list"),
        ("GET", "/v2/{}/manifests/v1"),
        ("HEAD", "/v2/{}/manifests/v1"),
        ("GET", f"/v2/{{}}/manifests/{MISSING}"),
        ("GET", f"/v2/{{}}/blobs/{MISSING}"),
        ("GET", f"/v2/{{}}/referrers/{MISSING}"),
        ("POST", "/v2/{}/blobs/uploads/"),
        ("GET", "/v2/{}/blobs/uploads/abcdef"),
        ("PUT", "/v2/{}/manifests/v1"),
        ("DELETE", "/v2/{}/manifests/v1"),
        ("DELETE", f"/v2/{{}}/blobs/{MISSING}"),
    ]
    for method, path in asked:
        told = []
        for name in ("team/app", "team/no1"):
            headers = login
            if login is None:
                scope = f"repository:{name}:pull,push,delete"
                headers = with_token(await site.token(scope, headers=basic("bob")))
            status, answered, body = await site.ask(path.format(name), headers, method)
            assert status == (403 if login else 401), (method, path)
            words = f"{answered.get('WWW-Authenticate')} {len(body)} {body}"
            told.append(words.replace(name, "NAME").partition("'detail'")[0])
        assert told[0] == told[1], (method, path)


async def test_a_mount_tells_nothing_of_its_source(site: Site) -> None:
    for source in ("team/app", "team/no1"):
        path = f"/v2/bob/own/blobs/uploads/?mount={MISSING}&from={source}"
        status, headers, _ = await site.ask(path, basic("bob"), "POST")
        assert status == 202
        assert headers["Location"].startswith("/v2/bob/own/blobs/uploads/")


async def test_listings_tell_nothing_of_what_is_private(site: Site) -> None:
    listing = with_token(await site.token("registry:catalog:*", headers=basic("bob")))
    for headers in (None, basic("bob"), listing):
        _, _, body = await site.ask("/v2/_catalog", headers)
        assert body == {"repositories": ["team/shown"]}
        _, _, body = await site.ask("/v1/search?q=app", headers)
        assert "team/app" not in json.dumps(body)
    _, _, body = await site.ask("/v2/_catalog", basic("ada"))
    assert body == {"repositories": ["team/app", "team/shown"]}


@pytest.mark.parametrize(
    "scope",
    [
        "repository:team/app:pull:x",
        "repository:*:pull",
        "repository:team/*:pull",
        "repository:team/app :pull",
        "repository:team/app%20:pull",
        "repository:TEAM/APP:pull",
        "registry:team/app:pull",
        "repository:team/shown:pull,repository:team/app:pull",
        "repository:team/shown:pull\nrepository:team/app:pull",
        "*",
        ":",
        " ",
        "repository:team/app:*" * 50,
        " ".join(f"repository:team/r{number}:pull" for number in range(150)),
    ],
)
async def test_no_trick_with_scopes_opens_what_is_closed(site: Site, scope: str) -> None:
    for login in (None, basic("bob")):
        token = await site.token(scope, headers=login)
        assert (await site.ask("/v2/team/app/tags/list", with_token(token)))[0] == 401


@pytest.mark.parametrize(
    "host",
    ['x",realm="http://evil/token', "evil\\", "a b", "x/y", "x@y", "", "[::1", "é", "x" * 300],
)
async def test_no_host_gets_into_a_challenge_beyond_its_place(site: Site, host: str) -> None:
    url = URL(f"{site.url}/v2/")
    async with site.client.get(url, headers={"Host": host}) as answer:
        if answer.status == 401:
            (challenge,) = parse_challenges([answer.headers["WWW-Authenticate"]])
            assert challenge.parameters == {"realm": "http://127.0.0.1/token", "service": SERVICE}
        else:
            assert answer.status == 400


async def test_nothing_that_is_sent_is_too_much(site: Site) -> None:
    many = "&".join(f"scope=repository:a/b{number}:pull" for number in range(200))
    assert (await site.ask(f"/token?{many}"))[0] in (200, 414)
    assert (await site.ask("/token?" + "&".join("scope=" for _ in range(1000))))[0] in (400, 414)
    for header in ("Basic " + "A" * 100_000, "Bearer " + "A" * 100_000):
        async with site.client.get(f"{site.url}/v2/", headers={"Authorization": header}) as answer:
            assert 400 <= answer.status < 500


async def test_who_guesses_is_told_to_wait(site: Site) -> None:
    for _ in range(5):
        assert (await site.ask("/token", basic("ada", "wrong")))[0] == 401
    for path in ("/token", "/v2/", "/v2/team/app/tags/list"):
        status, headers, body = await site.ask(path, basic("ada"))
        assert status == 429
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert body["errors"][0]["code"] == "TOOMANYREQUESTS"
        assert "WWW-Authenticate" not in headers
