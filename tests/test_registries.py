"""Many registries on one port, whole: by every way to name one, and none lets another's out."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiohttp
import aiohttp.web
import pytest

from mirror import app as assembly
from mirror import config
from mirror.app import policy as assembled
from mirror.policy.visibility import Proofs, RepositoryVisibility
from mirror.upstream.endpoint import Endpoint

from .fakes.hub import Hub

LAYER = b"layer" * 1000


class ThreeRegistries:
    """Three registries behind one mirror, in this process."""

    def __init__(self, folder: Path, docker: Hub, ghcr: Hub, corp: Hub) -> None:
        self.docker, self.ghcr, self.corp = docker, ghcr, corp
        self.client: aiohttp.ClientSession
        self._folder = folder
        self._running = AsyncExitStack()

    async def start(self, more: str = "", *, restarted: bool = False) -> None:
        if restarted:
            await self.stop()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = self._folder / "secret"
        secret.write_text("hunter2")
        text = (
            f"listen: {self.port}\nadmin: 0\nstorage: {{path: '{self._folder / 'store'}'}}\n"
            f"registries:\n"
            f"  docker.io: {{endpoints: [{{url: '{self.docker.url}'}}]}}\n"
            f"  ghcr.io:\n"
            f"    endpoints: [{{url: '{self.ghcr.url}'}}]\n"
            f"    hosts: [ghcr.mirror.lan]\n"
            f"  registry.corp:5000:\n"
            f"    endpoints: [{{url: '{self.corp.url}'}}]\n"
            f"    credentials: {{username: me, password_file: '{secret}'}}\n"
        )
        await self._running.enter_async_context(
            assembly.running(config.parse(text + more, "mirror.yaml"))
        )
        self.client = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}")
        self._running.push_async_callback(self.client.close)

    async def stop(self) -> None:
        await self._running.aclose()
        self._running = AsyncExitStack()

    async def get(self, path: str, host: str = "mirror.lan") -> tuple[int, bytes]:
        async with self.client.get(path, headers={"Host": host}) as answer:
            return answer.status, await answer.read()

    async def pull(
        self, prefix: str, tag: str = "1", query: str = "", host: str = "m", base: str = "/v2"
    ) -> bytes:
        """A whole image; gives back its layer."""
        status, data = await self.get(f"{base}/{prefix}/manifests/{tag}{query}", host)
        assert status == 200, data
        manifest = json.loads(data)
        for blob in (manifest["config"], *manifest["layers"]):
            status, data = await self.get(f"{base}/{prefix}/blobs/{blob['digest']}{query}", host)
            assert status == 200, data
        return data

    async def denied(self, path: str) -> str:
        status, body = await self.get(path)
        (error,) = json.loads(body)["errors"]
        assert (status, error["code"]) == (403, "DENIED")
        message = error["message"]
        assert isinstance(message, str)
        return message


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[ThreeRegistries]:
    async with Hub() as docker, Hub() as ghcr, Hub() as corp:
        corp.anonymous, corp.login = False, ("me", "hunter2")
        mirror = ThreeRegistries(tmp_path, docker, ghcr, corp)
        yield mirror
        await mirror.stop()


async def test_each_way_to_name_a_registry_leads_there(mirror: ThreeRegistries) -> None:
    mirror.docker.add_image("library/redis", "1", b"docker" * 100)
    mirror.ghcr.add_image("acme/app", "1", b"ghcr" * 100)
    mirror.corp.add_image("app", "1", b"corp" * 100)
    await mirror.start()
    for prefix in ("library/redis", "redis", "docker.io/redis", "docker.io/library/redis"):
        assert await mirror.pull(prefix) == b"docker" * 100
    assert await mirror.pull("acme/app", query="?ns=ghcr.io") == b"ghcr" * 100
    assert await mirror.pull("ghcr.io/acme/app") == b"ghcr" * 100
    assert await mirror.pull("ghcr.io/acme/app", query="?ns=ghcr.io") == b"ghcr" * 100
    assert await mirror.pull("acme/app", host="GHCR.mirror.lan:5000") == b"ghcr" * 100
    assert await mirror.pull("app", query="?ns=registry.corp:5000") == b"corp" * 100
    assert await mirror.pull("registry.corp:5000/app") == b"corp" * 100
    assert await mirror.pull("app", base="/registry.corp:5000/v2") == b"corp" * 100
    for hub in ("docker.io:443", "Index.docker.io", "registry-1.docker.io", "hub.docker.com"):
        for name in ("redis", "library/redis"):
            assert await mirror.pull(name, query=f"?ns={hub}") == b"docker" * 100
            assert await mirror.pull(f"{hub}/{name}") == b"docker" * 100
            assert await mirror.pull(name, base=f"/{hub}/v2") == b"docker" * 100
    assert (
        await mirror.pull("acme/app", query="?ns=ghcr.io:443", base="/GHCR.io/v2") == b"ghcr" * 100
    )
    # All of that was one pull each.
    assert [hub.count("blobs", "GET") for hub in (mirror.docker, mirror.ghcr, mirror.corp)] == [
        2
    ] * 3


async def test_f64_what_is_not_configured_or_contradicts_itself_is_denied(
    mirror: ThreeRegistries,
) -> None:
    await mirror.start()
    for path in ("/v2/evil.example/x/manifests/1", "/v2/x/y/manifests/1?ns=evil.example"):
        assert "'evil.example' is not served here" in await mirror.denied(path)
    for path in ("/v2/ghcr.io/x/y", "/ghcr.io/v2/x/y"):
        assert "two registries" in await mirror.denied(f"{path}/manifests/1?ns=docker.io")
    for path in ("/v2/_catalog", "/evil.example/v2/", "/evil.example/v2/x/y/manifests/1"):
        status, _ = await mirror.get(path)
        assert status == 404


async def test_a_tag_list_goes_on_under_the_prefix_it_was_asked_with(
    mirror: ThreeRegistries,
) -> None:
    for tag in ("1", "2", "3"):
        mirror.ghcr.add_image("acme/app", tag, LAYER)
    await mirror.start()
    async with mirror.client.get("/v2/ghcr.io/acme/app/tags/list?n=2") as first:
        following = first.links["next"]["url"]
    assert following.path == "/v2/ghcr.io/acme/app/tags/list"
    _, body = await mirror.get(following.path_qs)
    assert json.loads(body) == {"name": "ghcr.io/acme/app", "tags": ["3"]}


async def test_f65_a_login_is_for_its_registry_alone(mirror: ThreeRegistries) -> None:
    mirror.docker.anonymous, mirror.docker.login = False, ("me", "hunter2")
    mirror.docker.add_image("library/redis", "1", LAYER)
    mirror.corp.add_image("app", "1", LAYER)
    await mirror.start()
    await mirror.pull("registry.corp:5000/app")
    await mirror.get("/v2/library/redis/manifests/1")
    realm = mirror.docker.seen("realm")
    assert realm
    assert not any("Authorization" in one.headers for one in realm)


@pytest.mark.parametrize("restarted", [False, True])
async def test_f66_a_private_digest_opens_only_where_it_is_shown(
    mirror: ThreeRegistries, restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubts = partial(RepositoryVisibility, proofs=Proofs(lagging=0.3))  # of a 404, for so long
    monkeypatch.setattr(assembled, "RepositoryVisibility", doubts)
    private = mirror.corp.add_image("team/secret", "1", LAYER)
    await mirror.start()
    await mirror.pull("registry.corp:5000/team/secret")
    layer = mirror.corp.add_blob(LAYER)
    if restarted:
        await mirror.start(restarted=True)
    for path in (f"manifests/{private}", f"blobs/{layer}"):
        status, _ = await mirror.get(f"/v2/library/redis/{path}")
        assert status == 404, path
    # As soon as that repository shows it, it is given without a download.
    mirror.docker.add_blob(LAYER)
    status, body = await mirror.get(f"/v2/library/other/blobs/{layer}")
    assert (status, body) == (200, LAYER)
    assert mirror.docker.count("blobs", "GET") == 0
    # And with all of them down, those who have shown it go on.
    for hub in (mirror.docker, mirror.corp):
        hub.fail("registry", _down, 1000)
        hub.fail("realm", _down, 1000)
    assert (await mirror.get(f"/v2/library/other/blobs/{layer}"))[0] == 200
    await mirror.pull("registry.corp:5000/team/secret", private)
    await mirror.pull("registry.corp:5000/team/secret")


async def _down(request: object) -> aiohttp.web.StreamResponse:
    return aiohttp.web.Response(status=503)


async def test_rules_of_access_hold_for_tags_digests_and_lists(mirror: ThreeRegistries) -> None:
    digest = mirror.ghcr.add_image("acme/secret", "1", LAYER)
    mirror.ghcr.add_image("acme/app", "1", LAYER)
    await mirror.start()
    await mirror.pull("ghcr.io/acme/secret")
    rules = "access: [{name: hush, deny: ghcr.io/*/secret}, {name: ours, allow: 'ghcr.io/acme/*'}]"
    await mirror.start(rules, restarted=True)
    blob = mirror.ghcr.add_blob(LAYER)
    for path in ("manifests/1", f"manifests/{digest}", f"blobs/{blob}", "tags/list"):
        assert "'hush'" in await mirror.denied(f"/v2/ghcr.io/acme/secret/{path}")
    assert "'hush'" in await mirror.denied(f"/v2/acme/secret/referrers/{digest}?ns=ghcr.io")
    assert await mirror.pull("ghcr.io/acme/app") == LAYER


async def test_a_young_image_is_held_back(mirror: ThreeRegistries) -> None:
    mirror.docker.add_image("library/redis", "1", LAYER)  # which does not say when it was built
    await mirror.start("access: [{name: cool-down, allow: '*', min_age: 3d}]")
    message = await mirror.denied("/v2/library/redis/manifests/1")
    assert "'cool-down'" in message
    assert "less than 3 days ago" in message


async def test_any_registry_is_served_on_demand_and_opens_nothing(
    mirror: ThreeRegistries, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.corp.add_image("team/secret", "1", LAYER)
    async with Hub() as elsewhere:
        endpoint = Endpoint(name="unconfigured", url=elsewhere.url)
        monkeypatch.setattr(assembled, "unconfigured_endpoint", lambda name, workers: endpoint)
        await mirror.start("allow_any_registry: true")
        elsewhere.add_image("owner/app", "1", b"elsewhere")
        for _ in range(2):
            assert await mirror.pull("quay.example/owner/app") == b"elsewhere"
        assert await mirror.pull("owner/app", query="?ns=quay.example") == b"elsewhere"
        assert elsewhere.count("blobs", "GET") == 2
        await mirror.pull("registry.corp:5000/team/secret")
        layer = elsewhere.add_blob(LAYER)
        elsewhere.blobs[layer] = b"LAYER" * 1000  # it says so, and does not have it
        status, body = await mirror.get(f"/v2/owner/app/blobs/{layer}?ns=quay.example")
        assert status == 502, body
        await mirror.stop()


async def test_f63_any_registry_is_none_in_here(mirror: ThreeRegistries) -> None:
    await mirror.start("allow_any_registry: true")
    for name in ("127.0.0.1:80", "localhost:80", "metadata.google.internal"):
        assert "public names only" in await mirror.denied(f"/v2/a/b/manifests/1?ns={name}")
        if ":" in name or "." in name:
            assert "public names only" in await mirror.denied(f"/v2/{name}/a/b/manifests/1")
    for name in ("127.1", "0x7f.1", "2130706433", "quay.io:99999"):
        for path in (f"/v2/a/b/manifests/1?ns={name}", f"/v2/{name}:443/a/b/manifests/1"):
            status, body = await mirror.get(path)
            assert status == 400
            assert "is no registry" in json.loads(body)["errors"][0]["message"]
