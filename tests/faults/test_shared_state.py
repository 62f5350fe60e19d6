"""What one client can cause at an upstream, by what it asks for, costs the others nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from aiohttp import web

from ..fakes.hub import OCI_MANIFEST, Fault, cut, page, status
from .client import DOCKERD, digest_of
from .house import House

MANY = 10_000
OTHERS = [f"acme/app{number}" for number in range(6)]


def where(matches: Callable[[web.Request], bool], fault: Fault) -> Fault:
    """This fault for the requests that match; the others are answered as ever."""

    async def some(request: web.Request) -> web.StreamResponse | None:
        return await fault(request) if matches(request) else None

    return some


@pytest.mark.parametrize("code", [400, 405, 422])
async def test_a_tag_list_that_the_registry_refuses_keeps_nobody_from_pulling(
    house: House, code: int
) -> None:
    house.hub.challenge = "none"
    digests = {name: house.hub.add_image(name, "7", name.encode()) for name in OTHERS}
    house.hub.fail("registry", where(lambda ask: "n" in ask.query, status(code)), MANY)
    mirror = await house.mirror()
    for name, digest in digests.items():
        for _ in range(3):
            listed = await mirror.ask("/v2/library/redis/tags/list?n=10000", headers=DOCKERD)
            assert (listed.status, listed.code) == (400, "UNSUPPORTED")
            assert str(code) in listed.message
        assert (await mirror.manifest("7", name=name)).is_whole(digest)


def redis(request: web.Request) -> bool:
    return "/library/redis/" in request.path


def blob_of_redis(request: web.Request) -> bool:
    return redis(request) and "/blobs/" in request.path


def list_of_redis(request: web.Request) -> bool:
    return redis(request) and request.path.endswith("/tags/list")


async def wrong_bytes(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"not what was asked for", headers={"Content-Type": OCI_MANIFEST})


FAULTS = {
    "500": status(500),
    "503 with Retry-After": status(503, {"Retry-After": "600"}),
    "429 with Retry-After": status(429, {"Retry-After": "600"}),
    "cut": cut(),
    "cut in the body": cut(b"some", announced=100_000),
    "wrong bytes": wrong_bytes,
    "a page": page(),
    "a redirect to nowhere": status(307, {"Location": "http://127.0.0.1:1/"}),
    "a redirect without an end": status(307, {"Location": "/v2/library/redis/blobs/x"}),
    "401": status(401, {"WWW-Authenticate": "Basic"}),
    "403": status(403),
    "416": status(416),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("where_it_fails", [redis, blob_of_redis, list_of_redis])
async def test_a_repository_that_fails_at_the_registry_keeps_nobody_from_the_others(
    house: House, fault: Fault, where_it_fails: Callable[[web.Request], bool]
) -> None:
    """With an accelerator, too, the registry's own endpoint goes on being asked as before."""
    hub, house.partials = house.hub, True
    hub.challenge, hub.redirects = "none", False
    broken = hub.add_image("library/redis", "7", b"redis")
    digests = {name: hub.add_image(name, "7", name.encode()) for name in OTHERS}
    hub.fail("registry", where(where_it_fails, fault), MANY)
    mirror = await house.mirror(quick=True)

    async def abuse() -> None:
        while True:
            await asyncio.gather(
                mirror.ask("/v2/library/redis/tags/list?n=100"),
                mirror.manifest("7", "HEAD"),
                mirror.manifest(broken),
                mirror.blob(digest_of(b"redis")),
                mirror.blob(digest_of(os.urandom(8))),
                mirror.manifest(os.urandom(8).hex()),
                return_exceptions=True,
            )

    abusing = asyncio.create_task(abuse())
    try:
        await asyncio.sleep(0.5)
        for name, digest in digests.items():
            assert (await mirror.manifest("7", name=name)).is_whole(digest)
            layer = digest_of(name.encode())
            assert (await mirror.blob(layer, name=name)).is_whole(layer)
    finally:
        abusing.cancel()
        await asyncio.gather(abusing, return_exceptions=True)
    assert await mirror.metric("upstream_breaker_open") == 0
