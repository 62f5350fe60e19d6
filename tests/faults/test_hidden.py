"""Repositories that a registry hides from those who show no login, pulled through a mirror."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ..fakes.hub import Hub
from .house import House, digest_of

MIB = 1 << 20
NAME = "acme/private"


def hidden(hub: Hub, code: int) -> dict[str, Any]:
    """The hub, which answers like that to strangers; what to write for it."""
    hub.hidden, hub.login, hub.anonymous = code, ("ann", "secret"), False
    credentials = {"username": "ann", "password_env": "PASSWORD"}
    return {"credentials": credentials, "realm": hub.realm_url}


@pytest.mark.parametrize("code", [401, 403, 404])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_hidden_image_is_pulled_with_the_login(
    house: House, code: int, workers: int
) -> None:
    hub = house.hub
    layers = [os.urandom(MIB // 2), os.urandom(20 * MIB), os.urandom(70 * MIB)]
    image = hub.add_image(NAME, "7", *layers)
    mirror = await house.mirror(
        docker_io=hidden(hub, code),
        workers=workers,
        limits={"parted_over": "8MiB"},
        env={"PASSWORD": "secret"},
    )
    for layer in layers:  # first of all, so that the blob is what is refused
        assert (await mirror.blob(digest_of(layer), name=NAME)).is_whole(digest_of(layer))
    head = await mirror.manifest("7", "HEAD", name=NAME)
    assert (head.status, head.headers["Docker-Content-Digest"]) == (200, image)
    assert (await mirror.manifest("7", name=NAME)).is_whole(image)
    assert (await mirror.ask(f"/v2/{NAME}/tags/list")).status == 200
    for number in range(20):
        assert (await mirror.manifest(f"none{number}", name=NAME)).status == 404
        await mirror.ask(f"/v2/{NAME}/referrers/{image}")
    assert sum(one.path == "/v2/" for one in hub.seen("registry")) <= workers
    assert not any("Authorization" in one.headers for one in hub.seen("blobs"))


async def test_what_is_hidden_is_shown_through_no_other_repository(house: House) -> None:
    hub = house.hub
    layer = os.urandom(1000)
    hub.add_image(NAME, "7", layer)
    hub.add_image("library/redis", "7", b"other")
    hub.lacking.add(("library/redis", digest_of(layer)))
    mirror = await house.mirror(docker_io=hidden(hub, 404), env={"PASSWORD": "secret"})
    assert (await mirror.blob(digest_of(layer), name=NAME)).is_whole(digest_of(layer))
    assert (await mirror.blob(digest_of(layer))).status == 404


async def test_a_scope_of_the_registrys_own_serves_small_and_large(house: House) -> None:
    hub = house.hub
    layers = [os.urandom(MIB // 2), os.urandom(70 * MIB)]
    image = hub.add_image(NAME, "7", *layers)
    hub.scope_of = lambda name, kind: (
        f"repository:remote/{name}:{'metadata_read' if kind == 'tags' else 'pull'}"
    )
    keys = {**hidden(hub, 404)}
    hub.hidden = None
    mirror = await house.mirror(
        docker_io=keys, limits={"parted_over": "8MiB"}, env={"PASSWORD": "secret"}
    )
    assert (await mirror.manifest("7", name=NAME)).is_whole(image)
    for layer in layers:
        assert (await mirror.blob(digest_of(layer), name=NAME)).is_whole(digest_of(layer))
    assert (await mirror.ask(f"/v2/{NAME}/tags/list")).status == 200
    refused = [one for one in hub.seen("registry") if "Authorization" not in one.headers]
    assert len(refused) <= 3
