"""Secrets that others would like to have, and words that are meant to be taken for others."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ..fakes.hub import OCI_MANIFEST, Hub, cut, status
from .bodies import MIB, breaks, mend, sends
from .client import digest_of
from .house import House, Mirror

PASSWORD = "correct-horse-battery"
TOKEN = "given-token-staple"


def login(house: House) -> dict[str, Any]:
    """The mirror's own, which the hub knows."""
    house.hub.login = ("me", PASSWORD)
    file = house.folder / "password"
    file.write_text(f"{PASSWORD}\n")
    return {"credentials": {"username": "me", "password_file": str(file)}}


def shown(hub: Hub, server: str) -> list[str | None]:
    """The Authorization of each request to this server of the hub."""
    return [seen.headers.get("Authorization") for seen in hub.seen(server)]


def encoded(*pair: str) -> str:
    return base64.b64encode(":".join(pair).encode()).decode()


def traces(mirror: Mirror, metrics: str, *secrets: str) -> list[tuple[str, str]]:
    """Where these are to be found in all that the mirror wrote and shows of itself."""
    places = {
        "metrics": metrics.encode(),
        "arguments": Path(f"/proc/{mirror.pid}/cmdline").read_bytes(),
    }
    for path in mirror.folder.rglob("*"):
        if path.is_file() and path != mirror.config:
            places[str(path.relative_to(mirror.folder))] = path.read_bytes()
    assert len(places) > 3
    return [
        (secret, place)
        for secret in secrets
        for place, data in places.items()
        if secret.encode() in data
    ]


async def test_f60_what_a_client_shows_of_itself_goes_nowhere(house: House) -> None:
    digest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror()
    secret = encoded("somebody", "hub-password")
    headers = {
        "Authorization": f"Basic {secret}",
        "Proxy-Authorization": f"Basic {secret}",
        "Cookie": f"session={secret}",
        "User-Agent": f"docker/28.5.0 ({secret})",
        "Referer": f"http://x/{secret}",
        "X-Registry-Auth": secret,
    }
    layer = digest_of(b"layer")
    for path in (
        "/v2/", f"/v2/library/redis/manifests/7?account=somebody&token={secret}",
        f"/v2/library/redis/blobs/{layer}", "/v2/library/redis/manifests/8", "/v2/x/", "/login",
        f"/v2/library/redis/tags/list?last={secret}",
    ):  # fmt: skip
        answer = await mirror.ask(path, headers=headers)
        assert answer.status in (200, 404)
        assert "WWW-Authenticate" not in answer.headers
        assert "Set-Cookie" not in answer.headers
    assert (await mirror.manifest("7", headers=headers)).is_whole(digest)
    assert await mirror.metric("credentials_dropped_total") == 8
    for seen in house.hub.requests:
        if "/tags/list" not in seen.path:  # whose marker is for the upstream
            assert secret not in f"{seen.path}{seen.query}{seen.headers}"
        assert "Basic" not in seen.headers.get("Authorization", "")
    assert traces(mirror, await mirror.metrics(), secret, "hub-password") == []


async def test_f61_a_realm_on_another_host_is_not_shown_the_login(house: House) -> None:
    keys = login(house)
    digest = house.hub.add_image("library/redis", "7", b"layer")
    own = house.hub.realm_url
    house.hub.realm_url = own.replace("127.0.0.1", "localhost")  # another name: another host
    mirror = await house.mirror(docker_io=keys)
    assert (await mirror.manifest("7")).is_whole(digest)
    assert shown(house.hub, "realm") == [None]
    assert not any("Basic" in (words or "") for words in shown(house.hub, "registry"))
    (told,) = mirror.events("login_withheld")
    assert told["realm"] == house.hub.realm_url.removesuffix("/token")

    house.hub.anonymous = False
    house.hub.revoke_tokens()
    answer = await mirror.manifest("8")
    assert (answer.status, answer.code) == (403, "DENIED")
    assert PASSWORD not in answer.message


@pytest.mark.parametrize("configured", [False, True], ids=["own-host", "configured"])
async def test_f61_a_realm_that_may_see_the_login(house: House, configured: bool) -> None:
    keys = login(house)
    house.hub.anonymous = False
    digest = house.hub.add_image("library/redis", "7", b"layer")
    if configured:
        house.hub.realm_url = house.hub.realm_url.replace("127.0.0.1", "localhost")
        keys["realm"] = house.hub.realm_url
    mirror = await house.mirror(docker_io=keys)
    assert (await mirror.manifest("7")).is_whole(digest)
    assert shown(house.hub, "realm") == [f"Basic {encoded('me', PASSWORD)}"]
    assert not any("Basic" in (words or "") for words in shown(house.hub, "registry"))


async def test_f61_a_realm_that_redirects_takes_no_login_along(house: House) -> None:
    keys = login(house)
    thief = await house.another_hub()
    house.hub.add_image("library/redis", "7", b"layer")
    elsewhere = thief.realm_url.replace("127.0.0.1", "localhost")
    house.hub.fail("realm", status(307, {"Location": elsewhere}), times=10)
    mirror = await house.mirror(docker_io=keys)
    await mirror.manifest("7")
    assert thief.count("realm") > 0
    assert set(shown(thief, "realm")) == {None}


async def test_f62_a_redirect_takes_no_authorization_along(house: House) -> None:
    other = await house.another_hub()
    keys = login(house)
    hub = house.hub
    data = os.urandom(MIB // 8)
    digest = hub.add_blob(data)
    other.challenge = "none"
    manifest = hub.add_image("library/redis", "7", b"layer")
    other.add_image("library/redis", "7", b"layer")
    cookie = {"Set-Cookie": "session=kept; Path=/"}

    async def send_away(request: web.Request) -> web.StreamResponse | None:
        if "Authorization" not in request.headers:
            return None
        location = f"{other.url}{request.path_qs}"
        return web.Response(status=307, headers={"Location": location, **cookie})

    hub.fail("realm", sends(b'{"token": "t"}', cookie))
    hub.fail("registry", send_away, times=4)
    mirror = await house.mirror(docker_io=keys)
    assert (await mirror.manifest("7")).is_whole(manifest)
    assert other.count("registry") > 0
    mend(hub)
    assert (await mirror.blob(digest)).is_whole(digest)
    for server in ("registry", "blobs"):
        assert set(shown(other, server)) <= {None}
    assert hub.count("blobs") > 0
    assert set(shown(hub, "blobs")) == {None}
    for seen in (*hub.requests, *other.requests):
        assert "Cookie" not in seen.headers
        assert "Referer" not in seen.headers


@pytest.mark.parametrize(
    "ns",
    [
        "ghcr.io", "docker.io.example.org", "127.0.0.1", "169.254.169.254", "localhost:5000",
    ],
)  # fmt: skip
async def test_f64_a_registry_that_is_not_configured_is_denied(house: House, ns: str) -> None:
    await refuses(house, ns, 403, "DENIED")


@pytest.mark.parametrize(
    "ns",
    [
        "docker.io@example.org", "docker.io/../x", "%00", "http%3A%2F%2Fx", "[::1]", "a" * 5000,
        "docker.io:99999",
    ],
)  # fmt: skip
async def test_f64_what_is_no_registry_s_name_is_refused(house: House, ns: str) -> None:
    await refuses(house, ns, 400, "NAME_INVALID")


async def refuses(house: House, ns: str, status: int, code: str) -> None:
    mirror = await house.mirror()
    for path in ("manifests/7", f"blobs/{digest_of(b'')}", "tags/list"):
        for method in ("GET", "HEAD"):
            answer = await mirror.ask(f"/v2/library/redis/{path}?ns={ns}", method)
            assert answer.status == status
            assert method == "HEAD" or answer.code == code
    assert house.hub.requests == []
    assert (await mirror.ask("/v2/library/redis/manifests/8?ns=docker.io")).status == 404


HOSTILE = {
    "Docker-Distribution-Api-Version": "evil/1",
    "Warning": '299 evil "evil"',
    "Set-Cookie": "evil=1",
    "Link": '<http://evil.example.org/>; rel="next"',
    "Location": "http://evil.example.org/",
    "Server": "evil",
    "WWW-Authenticate": 'Basic realm="evil"',
    "Content-Disposition": "attachment; filename=evil.exe",
    "Cache-Status": "evil; hit",
    "Age": "999999",
    "Access-Control-Allow-Origin": "evil",
    "Retry-After": "999999",
    "ETag": '"evil"',
    "Content-Range": "bytes 0-1/2",
    "X-Request-Id": "evil",
    "X-Evil": "evil",
}
OURS = {
    "Content-Type", "Content-Length", "Content-Range", "Transfer-Encoding", "Date", "Server",
    "Docker-Distribution-Api-Version", "Docker-Content-Digest", "X-Content-Type-Options", "Etag",
    "Accept-Ranges", "Cache-Status", "Age", "Connection", "Link", "Retry-After", "X-Request-Id",
}  # fmt: skip


async def test_f69_the_upstreams_headers_are_not_passed_on(house: House) -> None:
    hub = house.hub
    hub.challenge = "none"
    hub.redirects = False
    digest = hub.add_image("library/redis", "7", b"layer")
    layer, large = digest_of(b"layer"), os.urandom(2 * MIB)
    large_digest = hub.add_blob(large)
    manifest, _ = hub.manifests[digest]
    typed = {**HOSTILE, "Content-Type": f'{OCI_MANIFEST}; evil="1"'}
    tags = json.dumps({"name": "evil", "tags": ["6", "7", "evil tag", 8]}).encode()
    link = '<http://evil.example.org/v2/x?last=%0d%0aX-Evil:1&n=1>; rel="next"'
    mirror = await house.mirror()
    asks = [
        ("manifests/7", sends(manifest, {**typed, "Docker-Content-Digest": digest}), 2),
        (f"manifests/{digest_of(b'missing')}", status(404, HOSTILE, b"evil"), 1),
        (f"blobs/{layer}", sends(b"layer", {**HOSTILE, "Content-Type": "evil/script"}), 1),
        (f"blobs/{large_digest}", sends(large, {**HOSTILE, "Content-Type": "evil/script"}), 1),
        ("tags/list?n=2", sends(tags, {**HOSTILE, "Link": link}), 1),
        ("manifests/evil", status(401, HOSTILE, b"evil"), 2),
        ("manifests/gone", status(410, HOSTILE, b'{"errors": [{"code": "evil"}]}'), 2),
    ]
    bodies = {}
    for path, fault, times in asks:
        mend(hub)
        hub.fail("registry", fault, times)
        answer = await mirror.ask(f"/v2/library/redis/{path}")
        bodies[path] = answer
        assert {name.title() for name in answer.headers} <= OURS, path
        assert "evil" not in str(answer.headers).replace("manifests/evil", ""), path
        assert "999999" not in str(answer.headers), path
        assert path == "manifests/evil" or b"evil" not in answer.body.replace(large, b""), path
    assert bodies["manifests/7"].headers["Content-Type"] == OCI_MANIFEST
    assert bodies["manifests/7"].headers["Docker-Content-Digest"] == digest
    assert bodies["tags/list?n=2"].headers["Link"] == (
        '</v2/library/redis/tags/list?n=2&last=7>; rel="next"'
    )
    assert json.loads(bodies["tags/list?n=2"].body) == {"name": "library/redis", "tags": ["6", "7"]}
    assert bodies[f"blobs/{layer}"].is_whole(layer)
    assert bodies[f"blobs/{large_digest}"].headers["Content-Type"] == "application/octet-stream"
    assert bodies["manifests/evil"].status == 403


async def test_f71_no_secret_is_written_down_or_shown(house: House) -> None:
    hub, private = house.hub, await house.another_hub()
    keys = login(house)
    file = house.folder / "token"
    file.write_text(TOKEN)
    private.tokens[TOKEN] = "repository:app:pull"
    digest = hub.add_image("library/redis", "7", b"layer")
    private_digest = private.add_image("app", "1", b"private layer")
    registries = {
        "registry.example.org": {
            "endpoints": [{"url": private.url}],
            "credentials": {"token_file": str(file)},
        }
    }
    mirror = await house.mirror(docker_io=keys, registries=registries, quick=True)
    ns = "?ns=registry.example.org"
    assert (await mirror.manifest("7")).is_whole(digest)
    assert (await mirror.blob(digest_of(b"layer"))).status == 200
    assert (await mirror.ask(f"/v2/app/manifests/1{ns}")).is_whole(private_digest)
    assert (await mirror.ask(f"/v2/app/blobs/{digest_of(b'private layer')}{ns}")).status == 200
    # Every kind of failure, with the secrets in the hands of who fails.
    data = os.urandom(2 * MIB)
    large = hub.add_blob(data)
    hub.fail("blobs", breaks(data, MIB), 3)
    await mirror.blob(large)
    refused = hub.add_blob(os.urandom(10))
    hub.fail("blobs", status(403), 100)
    await mirror.blob(refused)
    mend(hub)
    for number, fault in enumerate([cut(), status(500, body=PASSWORD), status(401, body=PASSWORD)]):
        for server in ("registry", "realm"):
            hub.revoke_tokens()
            hub.fail(server, fault, 5)
            answer = await mirror.manifest(f"missing{number}{server}")
            assert PASSWORD.encode() not in answer.body
            mend(hub)
    private.tokens.clear()
    answer = await mirror.ask(f"/v2/app/manifests/2{ns}")
    assert (answer.status, TOKEN.encode() in answer.body) == (403, False)

    signatures = [seen.query["signature"] for seen in hub.seen("blobs")]
    issued = [words.removeprefix("Bearer ") for words in shown(hub, "registry") if words]
    assert signatures
    assert issued
    secrets = [PASSWORD, TOKEN, encoded("me", PASSWORD), *signatures, *issued]
    assert traces(mirror, await mirror.metrics(), *secrets) == []


BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "words",
    [
        "listen: !!python/object/apply:os.system ['touch {marker}']\n",
        "listen: !!python/name:os.system\n",
        BOMB,
        "listen: " + "[" * 50_000 + "\n",
        "storage: &s\n  path: x\n  self: *s\n",
        "\x00\x01\x02",
        "listen: 127.0.0.1:5000\nlisten: 0.0.0.0:5000\n",
    ],
    ids=["call", "name", "bomb", "deep", "endless", "binary", "twice"],
)
async def test_f72_a_hostile_configuration(house: House, words: str) -> None:
    mirror = house.prepare()
    marker = house.folder / "marker"
    mirror.config.write_text(words.replace("{marker}", str(marker)))
    mirror.launch()
    assert await mirror.ended() == 2
    assert str(mirror.config) in mirror.words().replace("\n", "")
    assert "Traceback" not in mirror.words()
    assert not marker.exists()


@pytest.mark.parametrize(
    "deep",
    [b'{"a":' * 100_000, b"[" * 1_000_000, b'{"layers":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
    ids=["objects", "lists", "closed"],
)
async def test_f72_deep_json(house: House, deep: bytes) -> None:
    hub = house.hub
    digest = hub.add_manifest("library/redis", "7", deep)
    mirror = await house.mirror()
    for path in ("manifests/7", f"manifests/{digest}"):
        answer = await mirror.ask(f"/v2/library/redis/{path}")
        assert (answer.status, answer.code) == (502, "MANIFEST_INVALID")
    hub.challenge = "none"
    hub.fail("registry", sends(deep))
    assert (await mirror.ask("/v2/library/redis/tags/list")).status == 502
    hub.fail("registry", status(404, body=deep), 2)
    assert (await mirror.manifest("8")).status == 404
    mend(hub)
    hub.challenge = "bearer"
    hub.revoke_tokens()
    hub.fail("realm", sends(deep))
    assert (await mirror.manifest("9")).status == 502
    assert mirror.kept() == {}
