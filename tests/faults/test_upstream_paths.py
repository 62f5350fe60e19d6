"""Upstreams whose URL has a path, asked by mirrors that serve: endpoints, workers, reloads."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from aiohttp import web

from ..fakes.hub import Fault, Hub, basic, cut, page, status
from ..waiting import eventually
from .house import House, digest_of
from .test_reload import one_and_two, registry, reloaded, statuses

LAYER = b"layer" * 1000


def asked(hub: Hub) -> list[str]:
    """The paths that hub was asked for, but for those that say whether a registry is there."""
    return [one.path for one in hub.seen("registry") if not one.path.endswith("/v2/")]


@one_and_two
async def test_what_one_endpoint_calls_otherwise_is_the_same_content(
    house: House, workers: int
) -> None:
    """A project that caches Docker Hub, and the Hub itself."""
    project = await house.another_hub()
    digest = house.hub.add_image("library/redis", "7", LAYER)
    project.blobs, project.manifests = house.hub.blobs, house.hub.manifests
    project.tags["hub/library/redis"] = house.hub.tags["library/redis"]
    layer = digest_of(LAYER)
    mirror = await house.mirror(
        {"url": project.url, "prefix": "hub", "trust": "content"}, house.hub, workers=workers
    )
    assert (await mirror.manifest("7")).is_whole(digest)
    assert (await mirror.blob(layer)).is_whole(layer)
    assert f"/v2/hub/library/redis/blobs/{layer}" in asked(project)
    assert not [path for path in asked(house.hub) if "/hub/" in path]
    before = len(asked(project)), len(asked(house.hub))
    for _ in range(4):
        assert (await mirror.blob(layer)).is_whole(layer)
        assert (await mirror.manifest(digest)).is_whole(digest)
    assert (len(asked(project)), len(asked(house.hub))) == before
    name = f"{project.url.removeprefix('http://')}/v2/hub"
    assert await mirror.metric("upstream_requests_total", endpoint=name) > 0


@one_and_two
async def test_another_prefix_counts_from_the_reload_on(house: House, workers: int) -> None:
    hub = house.hub
    old, new = (hub.add_image(f"{name}/acme/app", "7", name.encode()) for name in ("old", "new"))
    fresh = {"freshness": {"ttl": "0s", "stale": "0s"}}
    mirror = await house.mirror(f"{hub.url}/v2/old", workers=workers, docker_io=fresh)
    assert (await mirror.manifest("7", name="acme/app")).is_whole(old)
    for endpoint in (
        {"url": hub.url, "prefix": "new"},
        {"url": f"{hub.url}/v2/old"},
        {"url": f"{hub.url}/new"},
    ):
        await reloaded(mirror, registries={"docker.io": {"endpoints": [endpoint], **fresh}})
        expected = old if "old" in endpoint["url"] else new
        for _ in range(6):
            assert (await mirror.manifest("7", name="acme/app")).is_whole(expected)


@one_and_two
async def test_a_mirror_that_starts_before_its_registry_finds_it_later(
    house: House, workers: int
) -> None:
    """While the host is down, or answers for a registry that is not up yet, nothing is decided."""
    hub = house.hub
    hub.path = "/artifactory/api/docker/x"
    digest = hub.add_image("library/redis", "7", LAYER)
    hub.fail("registry", status(503), times=1000)
    mirror = await house.mirror(hub.url + hub.path, workers=workers)
    assert await statuses(mirror, "7", name="library/redis", times=4) == {503}
    hub.mend()

    async def found() -> bool:
        return (await mirror.manifest("7")).is_whole(digest)

    await eventually(found, 40)
    assert all(path.startswith(hub.path) for path in asked(hub))
    assert (await mirror.manifest(digest)).is_whole(digest)


@pytest.mark.parametrize("trouble", [status(503), cut()], ids=["503", "cut"])
async def test_clients_do_not_multiply_the_questions_to_a_host_in_trouble(
    house: House, trouble: Fault
) -> None:
    house.hub.fail("registry", trouble, times=100_000)
    mirror = await house.mirror(f"{house.hub.url}/hub")
    for _ in range(4):
        asks = [mirror.manifest(f"{number}", name=f"a/b{number}") for number in range(25)]
        assert {answer.status for answer in await asyncio.gather(*asks)} == {503}
    assert house.hub.count("registry") <= 200  # three tries of two questions each would be 600
    assert asked(house.hub) == []


async def test_clients_do_not_multiply_the_questions_where_no_registry_is(house: House) -> None:
    hub = house.hub
    hub.path, hub.elsewhere = "/quite/another", page()
    mirror = await house.mirror(f"{hub.url}/hub")
    for _ in range(4):
        asks = [mirror.manifest(f"{number}", name=f"a/b{number}") for number in range(25)]
        assert {answer.status for answer in await asyncio.gather(*asks)} == {503}
    answer = await mirror.manifest("7")
    assert "no registry is there" in answer.message
    assert "as in http" in answer.message
    assert hub.count("registry") <= 20
    assert asked(hub) == []


async def test_a_login_is_known_by_its_endpoint_s_prefix(house: House) -> None:
    """Two projects of one host, each with a robot of its own, of which one is refused."""
    hub = house.hub
    hub.challenge, hub.login = "basic", ("good", "right")
    digest = hub.add_image("b/library/redis", "7", LAYER)
    endpoints: list[dict[str, Any]] = []
    for prefix, user, password in (("a", "bad", "wrong"), ("b", "good", "right")):
        secret = house.folder / user
        secret.write_text(password)
        login = {"username": user, "password_file": str(secret)}
        endpoints.append({"url": f"{hub.url}/v2/{prefix}", "credentials": login})
    mirror = await house.mirror(registries={"docker.io": {"endpoints": endpoints}})
    for _ in range(3):
        assert (await mirror.manifest("7")).is_whole(digest)
    host = hub.url.removeprefix("http://")
    assert await mirror.metric("upstream_login_refused", endpoint=f"{host}/v2/a") == 1
    assert await mirror.metric("upstream_login_refused", endpoint=f"{host}/v2/b") == 0
    shown = [one.headers.get("Authorization") for one in hub.seen("registry", path="/v2/b/")]
    assert set(shown) <= {None, basic("good", "right")}


async def test_lists_of_tags_are_called_as_clients_call_the_repository(house: House) -> None:
    for tag in ("1", "2", "3"):
        house.hub.add_image("hub/library/redis", tag, LAYER)
    mirror = await house.mirror(f"{house.hub.url}/v2/hub")
    answer = await mirror.ask("/v2/library/redis/tags/list?n=2")
    assert json.loads(answer.body) == {"name": "library/redis", "tags": ["1", "2"]}
    link = answer.headers["Link"]
    assert "/v2/library/redis/tags/list?" in link
    assert "hub/" not in link


async def test_a_name_that_is_too_long_with_the_prefix_is_the_registry_s_to_refuse(
    house: House,
) -> None:
    """No fault of the endpoint's, whatever a client asks for."""
    hub = house.hub
    digest = hub.add_image("hub/library/redis", "7", LAYER)

    async def strict(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=400) if len(request.path) > 255 else None

    hub.fail("registry", strict, times=1000)
    mirror = await house.mirror(f"{hub.url}/v2/hub")
    name = "a/" + "b" * 250
    for _ in range(12):
        assert (await mirror.manifest("7", name=name)).status == 403
    assert (await mirror.manifest("7")).is_whole(digest)


async def test_registries_below_different_paths_of_a_host_have_users_of_their_own(
    house: House,
) -> None:
    """One nginx before several registries, of which one knows the login and another does not."""
    one, other = house.hub, await house.another_hub()
    one.path, other.path = "/one", "/other"
    one.elsewhere = other._registry
    for hub, password in ((one, "another"), (other, "right")):
        hub.challenge, hub.login = "basic", ("ann", password)
        hub.add_image("library/redis", "7", LAYER)
    secret = house.folder / "secret"
    secret.write_text("right")
    login = {"credentials": {"username": "ann", "password_file": str(secret)}}
    mirror = await house.mirror(
        registries={
            "docker.io": registry(f"{one.url}/one/v2/", **login),
            "other.example": registry(f"{one.url}/other/v2/", **login),
        }
    )
    assert (await mirror.manifest("7")).status == 403
    assert (await mirror.manifest("7?ns=other.example")).status == 200


@pytest.mark.parametrize("redirects", [True, False], ids=["redirected", "sent"])
async def test_blobs_of_all_sizes_and_ranges_come_from_below_a_path(
    house: House, redirects: bool
) -> None:
    hub = house.hub
    hub.path, hub.elsewhere, hub.redirects = "/some/path", page(), redirects
    mirror = await house.mirror(f"{hub.url}/some/path", limits={"parted_over": "8MiB"})
    for mebibytes in (1, 4, 20):
        data = os.urandom(mebibytes << 20)
        digest, end = hub.add_blob(data), len(data) - 1
        part = await mirror.blob(digest, {"Range": f"bytes={end - 1000}-"})
        assert (part.status, part.body) == (206, data[end - 1000 :])
        assert (await mirror.blob(digest)).is_whole(digest)
        paths = {one.path for one in hub.seen("registry", path=digest)}
        assert paths == {f"/some/path/v2/library/redis/blobs/{digest}"}
