"""What one client can cause at an upstream, by what it asks for, costs the others nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiohttp import web

from tests.upstream.hub import Fault, status

from .client import DOCKERD
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
