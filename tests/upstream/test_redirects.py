"""Redirects that stay at the registry's own host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.upstream.endpoint import Endpoint
from mirror.upstream.http.redirects import target_of
from mirror.upstream.http.transport import Transport

from ..fakes import CONTEXT
from ..fakes.hub import Hub, blob_answer
from ..fakes.proxy import FakeProxy
from .authority import Authority, tls_server
from .conftest import REDIS, MakeRemote
from .test_by_proxy import by
from .test_tokens import LOGIN
from .test_transport import LAYER, Names, read_all

PATH = "/artifactory/api/docker/hub"


@pytest.fixture
async def closed(hub: Hub) -> Hub:
    """A registry below a path, which gives nothing without a login."""
    hub.path, hub.login, hub.anonymous, hub.redirects = PATH, ("ann", "pass:wörd"), False, False
    hub.add_image("library/redis", "7", b"layer")
    return hub


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_the_token_is_shown_where_the_registry_leads_within_its_own_api(
    closed: Hub, make_remote: MakeRemote, method: str
) -> None:
    digest = closed.add_blob(LAYER)
    closed.path = "/artifactory/api/docker/real"

    async def moved(request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=307, headers={"Location": request.path.replace("/hub/", "/real/")}
        )

    closed.elsewhere = moved
    remote = make_remote(f"{closed.url}{PATH}/v2/", credentials=(LOGIN,), realm=closed.realm_url)
    if method == "GET":
        assert await read_all(remote, digest) == LAYER
    assert (await remote.stat(CONTEXT, REDIS, Digest.parse(digest))).size == len(LAYER)


@pytest.mark.parametrize("refusal", [400, 401, 403, 404])
async def test_a_store_at_the_registry_s_own_host_sees_no_token(
    closed: Hub, make_remote: MakeRemote, refusal: int
) -> None:
    """Signed URLs of S3 and its like take no other login beside the signature: docker shows its
    token below /v2/ alone."""
    digest = closed.add_blob(LAYER)

    async def store(request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers:
            return web.Response(status=refusal)
        return blob_answer(request, LAYER, digest)

    await _led(closed, digest, "/bucket/data?X-Amz-Signature=1")
    closed.elsewhere = store
    remote = make_remote(f"{closed.url}{PATH}/v2/", credentials=(LOGIN,), realm=closed.realm_url)
    assert await read_all(remote, digest) == LAYER


@pytest.mark.parametrize("refusal", [401, 403])
async def test_a_path_at_the_registry_s_own_host_that_wants_the_token_is_shown_it(
    closed: Hub, make_remote: MakeRemote, refusal: int
) -> None:
    """containerd and skopeo show it to the whole host."""
    digest = closed.add_blob(LAYER)

    async def store(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in closed.tokens:
            return web.Response(status=refusal)
        return blob_answer(request, LAYER, digest)

    await _led(closed, digest, "/artifactory/hub/library/redis/7/sha256__00")
    closed.elsewhere = store
    remote = make_remote(f"{closed.url}{PATH}/v2/", credentials=(LOGIN,), realm=closed.realm_url)
    assert await read_all(remote, digest) == LAYER


async def _led(hub: Hub, digest: str, location: str) -> None:
    """The registry redirects this blob there, to those who may read it."""

    async def lead(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest) or "Authorization" not in request.headers:
            return None
        return web.Response(status=307, headers={"Location": location})

    hub.fail("registry", lead, times=2)


@pytest.mark.parametrize("where", ["http://registry.test", "http://registry.test:{port}"])
@pytest.mark.parametrize("kind", ["manifests/7", "blobs"])
async def test_a_registry_that_does_not_know_of_its_tls_is_asked_over_tls(
    hub: Hub, make_remote: MakeRemote, tmp_path: Path, where: str, kind: str
) -> None:
    """Behind a proxy that ends TLS, a registry names itself with http."""
    digest = hub.add_image("library/redis", "7", b"layer")
    layer = hub.add_blob(LAYER)
    authority = Authority(tmp_path)
    asked: list[str] = []

    async def behind(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if "moved" not in request.path:
            host = where.format(port=request.url.port)
            location = f"{host}/moved{request.path}"
            return web.Response(status=307, headers={"Location": location})
        if request.path.endswith(layer):
            return blob_answer(request, LAYER, layer)
        data, media_type = hub.manifests[digest]
        return web.Response(body=data, headers={"Content-Type": media_type})

    async with tls_server(authority.server("registry.test"), behind) as port:
        remote = make_remote(
            f"https://registry.test:{port}", tls=authority.trusted(), resolver=Names("127.0.0.1")
        )
        if kind == "blobs":
            assert await read_all(remote, layer) == LAYER
        else:
            assert str((await remote.resolve(CONTEXT, REDIS, "7")).digest) == digest
        await remote.close()
    assert asked[0].replace("/v2/", "/moved/v2/") in asked


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://h/a/v2/x", "/b/y", "https://h/b/y"),
        ("https://h/a/v2/x", "y?z=%2F", "https://h/a/v2/y?z=%2F"),
        ("https://h/a", "http://h/b", "https://h/b"),
        ("https://h/a", "http://h:80/b", "https://h/b"),
        ("https://h/a", "http://H/b", "https://h/b"),
        ("https://h:8443/a", "http://h/b", "https://h:8443/b"),
        ("https://h:8443/a", "http://h:8443/b", "https://h:8443/b"),
        ("https://h/a", "http://h:443/b", "https://h/b"),
        # Another port is another server's, and another host too.
        ("https://h/a", "http://h:9000/b", "http://h:9000/b"),
        ("https://h/a", "http://h//i/b%2Fc", "https://h//i/b%2Fc"),
        ("https://h/a", "http://i/b", "http://i/b"),
        ("http://h/a", "http://h/b", "http://h/b"),
        ("http://h/a", "https://h/b", "https://h/b"),
        ("https://h/a", "https://h:8443/b", "https://h:8443/b"),
        ("https://h/a", "https://me:pw@i/b#c", "https://i/b"),
    ],
)
def test_where_a_redirect_leads(url: str, location: str, target: str) -> None:
    assert str(target_of("it", URL(url), location)) == target


@pytest.mark.parametrize("asked_by", ["http://registry.example", "http://registry.example:80"])
@pytest.mark.parametrize("port", ["", ":80"])
async def test_a_port_that_is_written_out_makes_no_other_origin(asked_by: str, port: str) -> None:
    async def moves(reader: object, writer: asyncio.StreamWriter) -> None:
        place = f"http://registry.example{port}/v2/b/tags/list"
        words = "307 Moved" if len(proxy.seen) == 1 else "200 OK"
        writer.write(f"HTTP/1.1 {words}\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())

    async with FakeProxy(behaviour=moves) as proxy:
        transport = Transport(Endpoint("it", asked_by, connecting=by(proxy)), Events())
        try:
            url = URL(f"{asked_by}/v2/a/tags/list")
            response = await transport.fetch("GET", url, {}, "Bearer it")
            assert response.status == 200
            posted = await transport.post(url, {"grant_type": "refresh_token"}, 5)
            assert posted.status == 200
        finally:
            await transport.close()
    assert [one.headers.get("Authorization") for one in proxy.seen[:2]] == ["Bearer it"] * 2
