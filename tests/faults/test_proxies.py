"""A whole mirror whose only way out is a proxy, and whose certificates and proxies change."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ..fakes.hub import Hub, basic, status
from ..fakes.proxy import FakeProxy
from ..waiting import eventually
from .bodies import MIB, waits
from .house import House, Mirror
from .servers import certificate, https
from .test_reload import reload, reloaded

NAMES = ("registry.example", "auth.example", "cdn.example")


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    """It alone knows where these names lead."""
    async with FakeProxy(*NAMES) as proxy:
        yield proxy


def outside(hub: Hub) -> str:
    """Has the hub call itself by those names; its registry's URL."""
    hub.realm_url = hub.realm_url.replace("127.0.0.1", "auth.example")
    hub.blobs_url = hub.blobs_url.replace("127.0.0.1", "cdn.example")
    return hub.url.replace("127.0.0.1", "registry.example")


def by_environment(proxy: FakeProxy, **more: str) -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    return dict.fromkeys(names, "") | {"HTTP_PROXY": proxy.url} | more


def keys_of(hub: Hub) -> dict[str, object]:
    return {"realm": hub.realm_url, "allow_private": ["cdn.example"]}


async def all_of(mirror: Mirror, hub: Hub, sizes: tuple[int, ...]) -> None:
    """A tag, and blobs of these sizes in MiB, whole and a range of each."""
    hub.add_image("library/redis", "7", os.urandom(1000))
    answer = await mirror.manifest("7")
    assert answer.status == 200
    for size in sizes:
        data = os.urandom(size * MIB + 2017)
        digest = hub.add_blob(data)
        start = len(data) - 1000
        part = await mirror.blob(digest, {"Range": f"bytes={start}-{start + 99}"})
        assert (part.status, part.body) == (206, data[start : start + 100])
        answer = await mirror.blob(digest)
        assert answer.is_whole(digest)


@pytest.mark.parametrize("workers", [1, 2])
async def test_all_goes_by_the_environments_proxy(
    house: House, proxy: FakeProxy, workers: int
) -> None:
    hub = house.hub
    hub.login, hub.anonymous = ("ann", "hunter2"), False
    url = outside(hub)
    password = house.folder / "password"
    password.write_text("hunter2")
    login = {"username": "ann", "password_file": str(password)}
    mirror = await house.mirror(
        url,
        docker_io={**keys_of(hub), "credentials": login},
        env=by_environment(proxy),
        workers=workers,
    )
    await all_of(mirror, hub, (0, 4, 20, 90))
    hosts = {urlsplit(one.target).hostname for one in proxy.seen}
    assert hosts == set(NAMES)
    assert len(proxy.seen) == len(hub.requests)
    assert basic("ann", "hunter2") in {
        one.headers.get("Authorization") for one in proxy.seen if "auth." in one.target
    }


async def test_no_proxy_is_asked_directly(house: House, proxy: FakeProxy) -> None:
    """And this machine always."""
    hub = house.hub
    env = by_environment(proxy, NO_PROXY="registry.example,.example:5000")
    mirror = await house.mirror(hub, env=env)
    await all_of(mirror, hub, (4,))
    assert proxy.seen == []


async def test_none_goes_before_the_environment_and_a_proxy_too(
    house: House, proxy: FakeProxy
) -> None:
    hub = house.hub
    hub.redirects = False
    digest = hub.add_blob(b"layer")
    async with FakeProxy(status=403) as wrong:
        mirror = await house.mirror(hub, docker_io={"proxy": "none"}, env=by_environment(wrong))
        assert (await mirror.blob(digest)).is_whole(digest)
        env = by_environment(wrong, NO_PROXY="*")
        url, keys = outside(hub), {"proxy": proxy.url, **keys_of(hub)}
        mirror = await house.mirror(url, docker_io=keys, env=env)
        assert (await mirror.blob(digest)).is_whole(digest)
        assert wrong.seen == []
    assert proxy.seen


async def test_a_blob_goes_on_when_the_proxy_cuts_it(house: House, proxy: FakeProxy) -> None:
    hub = house.hub
    data = os.urandom(30 * MIB)
    digest = hub.add_blob(data)
    hub.fail("blobs", waits(data, 4 * MIB, asyncio.Event()))
    mirror = await house.mirror(
        outside(hub), docker_io=keys_of(hub), env=by_environment(proxy), limits={"parts": 1}
    )
    pulled = asyncio.create_task(mirror.blob(digest))
    await eventually(mirror.partials)
    await eventually(lambda: hub.count("blobs") > 0)
    proxy.cut()
    assert (await pulled).is_whole(digest)


async def test_what_is_cached_is_served_while_the_proxy_is_down(house: House) -> None:
    hub = house.hub
    hub.add_image("library/redis", "7", b"layer")
    async with FakeProxy(*NAMES) as proxy:
        mirror = await house.mirror(
            outside(hub),
            docker_io={**keys_of(hub), "freshness": {"ttl": "1ms", "stale": "1h"}},
            env=by_environment(proxy),
        )
        assert (await mirror.manifest("7")).status == 200
    stale = await mirror.manifest("7")
    assert stale.status == 200
    answer = await mirror.manifest("7", name="library/other")
    assert answer.status == 503
    assert f"the proxy {proxy.url}" in f"{answer.message} {mirror.words()}"
    assert await mirror.metric("upstream_requests_total", status="proxy") > 0


async def test_what_a_proxy_forbids_of_a_registry_takes_nobody_the_rest(house: House) -> None:
    """Companies' proxies filter by URL, and clients choose the URL."""
    hub = house.hub
    hub.add_image("library/redis", "7", b"layer")
    async with FakeProxy(*NAMES, forbidden="/evil/") as proxy:
        mirror = await house.mirror(outside(hub), docker_io=keys_of(hub), env=by_environment(proxy))
        for number in range(12):
            answer = await mirror.manifest("1", name=f"evil/image{number}")
            assert answer.status >= 400
        assert (await mirror.manifest("7")).status == 200
        assert len([target for target in proxy.targets("GET") if "/evil/" in target]) >= 12


async def test_a_proxys_password_is_nowhere_in_what_the_mirror_says(house: House) -> None:
    async with FakeProxy(*NAMES, login="me:right") as proxy:
        url = proxy.url.replace("http://", "http://me:hunter2-s3cr3t@")
        env = by_environment(proxy, HTTP_PROXY=url)
        mirror = await house.mirror(outside(house.hub), docker_io=keys_of(house.hub), env=env)
        answer = await mirror.manifest("7")
        assert answer.status == 503
        assert "refuses the login 'me' (407)" in answer.message
        for words in (answer.message, mirror.words(), await mirror.metrics()):
            assert "hunter2" not in words
            assert "aHVudGVyMi" not in words


async def test_a_socks_proxy_of_the_environment_is_told_at_the_start(house: House) -> None:
    mirror = house.prepare(env={"HTTPS_PROXY": "socks5://me:hunter2@127.0.0.1:1080"})
    mirror.launch()
    assert await mirror.ended() == 2
    assert "HTTPS_PROXY: found 'socks5'" in mirror.words()
    assert "hunter2" not in mirror.words()


# Reload


async def test_a_proxy_follows_a_reload(house: House, proxy: FakeProxy) -> None:
    hub = house.hub
    hub.redirects = False
    digests = [hub.add_blob(os.urandom(100)) for _ in range(3)]
    url = outside(hub)
    async with FakeProxy(*NAMES) as other:
        registry = {"endpoints": [{"url": url}], "realm": hub.realm_url}
        mirror = await house.mirror(url, docker_io={"realm": hub.realm_url, "proxy": proxy.url})
        assert (await mirror.blob(digests[0])).is_whole(digests[0])
        await reloaded(mirror, registries={"docker.io": {**registry, "proxy": other.url}})
        proxy.seen.clear()
        assert (await mirror.blob(digests[1])).is_whole(digests[1])
        assert other.seen
        assert proxy.seen == []


async def test_a_ca_file_that_was_written_anew_counts_after_a_reload(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = certificate(tmp_path / "old"), certificate(tmp_path / "new")
    ca_file = tmp_path / "ca.pem"
    shutil.copy(old.trusted, ca_file)
    async with https(new, status(404)) as url:
        mirror = await house.mirror(url, docker_io={"ca_file": str(ca_file)})
        answer = await mirror.manifest("7")
        assert answer.status == 503
        assert "its TLS certificate is refused" in answer.message
        assert "ca_file" in answer.message
        shutil.copy(new.trusted, ca_file)
        assert (await reload(mirror)).status == 0
        assert (await mirror.manifest("7")).status == 404
