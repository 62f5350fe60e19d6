"""What an upstream says that a tag is, and cannot give: another endpoint's word, or a later one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from aiohttp import web

from ..fakes.hub import OCI_INDEX, OCI_MANIFEST, Fault, Hub, page
from ..waiting import eventually
from .bodies import MIB, breaks, sends, wrong
from .client import SKOPEO, digest_of
from .house import House, Mirror

MANY = 10_000
RECHECKED = {"freshness": {"ttl": "1ms", "stale": "24h"}}


def by_digest(request: web.Request) -> bool:
    return "/sha256:" in request.path


def is_manifest(request: web.Request) -> bool:
    return "/manifests/" in request.path


def names(data: bytes, fault: Fault | None = None, media_type: str = OCI_MANIFEST) -> Fault:
    """A HEAD of the tag says that it is these bytes, a GET does not find it; and who asks for them
    by their digest gets the fault, or what the hub has."""

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if by_digest(request):
            return await fault(request) if fault and is_manifest(request) else None
        if request.method == "GET":
            return web.Response(status=404)
        headers = {"Docker-Content-Digest": digest_of(data), "Content-Type": media_type}
        return web.Response(headers={**headers, "Content-Length": str(min(len(data), MIB))})

    return answer


def shows(data: bytes, headers: dict[str, str]) -> Fault:
    """No HEAD is taken, and a GET brings these bytes."""

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if not is_manifest(request):
            return None
        if request.method == "HEAD":
            return web.Response(status=405)
        return web.Response(body=data, headers={"Content-Type": OCI_MANIFEST, **headers})

    return answer


OTHER = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
NO_MANIFEST = json.dumps({"schemaVersion": 2, "layers": [], "manifests": []}).encode()
LARGE = b'{"a": "' + bytes(5 * MIB) + b'"}'
WRONG_WORDS = {
    "what nobody has": names(OTHER),
    "wrong bytes": names(OTHER, sends(wrong(OTHER), {"Content-Type": OCI_MANIFEST})),
    "what is too large": names(LARGE, sends(LARGE, {"Content-Type": OCI_MANIFEST})),
    "what is no manifest": names(NO_MANIFEST, sends(NO_MANIFEST, {"Content-Type": OCI_MANIFEST})),
    "a page": names(OTHER, page()),
    "wrong bytes by GET": shows(OTHER, {"Docker-Content-Digest": digest_of(b"another")}),
    "what is too large by GET": shows(LARGE, {}),
    "what is no manifest by GET": shows(NO_MANIFEST, {}),
}


async def open_hub(house: House, *layers: bytes) -> tuple[Hub, str]:
    """One more hub, with an image that everybody may read; the image's digest."""
    hub = await house.another_hub()
    hub.challenge = "none"
    return hub, hub.add_image("library/redis", "7", *layers)


@pytest.mark.parametrize("what", WRONG_WORDS)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_of_an_endpoint_that_names_nonsense_the_others_word_is_taken(
    house: House, what: str, method: str
) -> None:
    house.hub.challenge = "none"
    house.hub.fail("registry", WRONG_WORDS[what], MANY)
    right, digest = await open_hub(house, b"layer")
    mirror = await house.mirror(house.hub, right)
    answer = await mirror.manifest("7", method)
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, digest)
    assert (await mirror.manifest(digest)).is_whole(digest)
    assert (await mirror.blob(digest_of(b"layer"))).is_whole(digest_of(b"layer"))


async def test_of_three_endpoints_the_one_that_is_right_is_found(house: House) -> None:
    other, _ = await open_hub(house)
    right, digest = await open_hub(house, b"layer")
    house.hub.challenge = "none"
    house.hub.fail("registry", names(OTHER), MANY)
    other.fail("registry", names(OTHER + b" ", sends(b"{}")), MANY)
    mirror = await house.mirror(house.hub, other, right)
    assert (await mirror.manifest("7")).is_whole(digest)


@pytest.mark.parametrize("what", WRONG_WORDS)
async def test_a_known_tag_follows_the_endpoint_that_is_right(house: House, what: str) -> None:
    house.hub.challenge = "none"
    old = house.hub.add_image("library/redis", "7", b"old")
    right, _ = await open_hub(house, b"old")
    mirror = await house.mirror(house.hub, right, docker_io=RECHECKED)
    assert (await mirror.manifest("7")).is_whole(old)
    new = right.add_image("library/redis", "7", b"new")
    house.hub.fail("registry", WRONG_WORDS[what], MANY)

    async def has_moved() -> bool:
        answer = await mirror.manifest("7")
        assert answer.is_whole(old) or answer.is_whole(new)
        return answer.is_whole(new)

    await eventually(has_moved, 10)


async def test_a_tag_that_points_nowhere_is_refused_while_the_client_waits(house: House) -> None:
    """And the endpoint, to which anybody may push such a tag, is not blamed for it."""
    house.hub.challenge = "none"
    good = house.hub.add_image("library/good", "1", b"layer")

    async def dangling(request: web.Request) -> web.StreamResponse | None:
        return await names(OTHER)(request) if "/redis/" in request.path else None

    house.hub.fail("registry", dangling, MANY)
    mirror = await house.mirror()
    answer = await mirror.manifest("7")
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert "no such manifest" in answer.message
    assert (await mirror.manifest("1", name="library/good")).is_whole(good)
    assert await mirror.metric("upstream_breaker_open") == 0


# A registry of several replicas, one of which lags.


def lags(times: int, what: Callable[[web.Request], bool]) -> Fault:
    """So many of these requests find nothing."""
    left = iter(range(times))

    async def answer(request: web.Request) -> web.StreamResponse | None:
        missed = what(request) and next(left, None) is not None
        return web.Response(status=404) if missed else None

    return answer


class MissingOnce:
    """A Fault: whatever is asked for by its digest, or by the GET of a tag, is not there the first
    time."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()  # method, digest or tag

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        what = request.method, request.path.rpartition("/")[2]
        is_tag = request.method == "GET" and is_manifest(request)
        if what in self.seen or not (by_digest(request) or is_tag):
            return None
        self.seen.add(what)
        return web.Response(status=404)


def add_index(hub: Hub, *layers: bytes) -> tuple[str, str]:
    """An index of one image, as library/redis:7; its digest and the image's."""
    image = hub.add_image("library/redis", "any", *layers)
    child = {
        "mediaType": OCI_MANIFEST,
        "digest": image,
        "size": len(hub.manifests[image][0]),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
    data = json.dumps(index).encode()
    return hub.add_manifest("library/redis", "7", data, OCI_INDEX), image


async def pull(mirror: Mirror, index: str, image: str, layer: str) -> None:
    assert (await mirror.manifest("7", headers=SKOPEO)).is_whole(index)
    assert (await mirror.manifest(image, headers=SKOPEO)).is_whole(image)
    assert (await mirror.blob(layer, headers=SKOPEO)).is_whole(layer)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [1000, 4 * MIB, 20 * MIB])
async def test_what_a_replica_has_not_yet_is_waited_for(
    house: House, size: int, workers: int
) -> None:
    """Each piece of the image is missing once at first; skopeo has no second chance."""
    house.hub.challenge = "none"
    data = os.urandom(size)
    index, image = add_index(house.hub, data)
    missing = MissingOnce()
    house.hub.fail("registry", missing, MANY)
    mirror = await house.mirror(workers=workers)
    await pull(mirror, index, image, digest_of(data))
    assert missing.seen == {("GET", one) for one in ("7", index, image, digest_of(data))}


@pytest.mark.parametrize("size", [2 * MIB, 20 * MIB])
async def test_a_replica_that_lags_cuts_no_download_that_another_has_begun(
    house: House, size: int
) -> None:
    house.hub.challenge = "none"
    house.hub.redirects = False
    data = os.urandom(size)
    layer = house.hub.add_blob(data)
    house.hub.fail("registry", breaks(data, size // 2))
    house.hub.fail("registry", lags(2, by_digest), 2)
    mirror = await house.mirror()
    assert (await mirror.blob(layer)).is_whole(layer)
    assert house.hub.count("registry", path=layer) >= 4


async def test_nor_does_a_lagging_word_count_where_an_accelerator_delivers(house: House) -> None:
    """What the accelerator has is given only once the registry says that it is there."""
    index, image = add_index(house.hub, b"layer")
    near = await house.another_hub()
    near.blobs, near.manifests = house.hub.blobs, house.hub.manifests
    for hub in (house.hub, near):
        hub.challenge = "none"
    missing = MissingOnce()
    house.hub.fail("registry", missing, MANY)
    mirror = await house.mirror({"url": near.url, "trust": "content"}, house.hub)
    await pull(mirror, index, image, digest_of(b"layer"))
    assert ("HEAD", image) in missing.seen


async def test_nor_where_another_repository_has_brought_it(house: House) -> None:
    house.hub.challenge = "none"
    index, image = add_index(house.hub, b"layer")
    house.hub.tags["library/other"]["7"] = index
    mirror = await house.mirror()
    for reference in ("7", image):
        assert (await mirror.manifest(reference, name="library/other")).status == 200
    missing = MissingOnce()
    house.hub.fail("registry", missing, MANY)
    await pull(mirror, index, image, digest_of(b"layer"))
    assert ("HEAD", image) in missing.seen


async def test_a_known_tag_goes_to_its_new_image_as_soon_as_that_is_there(house: House) -> None:
    house.hub.challenge = "none"
    old = house.hub.add_image("library/redis", "7", b"old")
    mirror = await house.mirror(docker_io=RECHECKED)
    assert (await mirror.manifest("7")).is_whole(old)
    new = house.hub.add_image("library/redis", "7", b"new")
    house.hub.fail("registry", lags(2, by_digest), MANY)

    async def has_moved() -> bool:
        return (await mirror.manifest("7")).is_whole(new)

    await eventually(has_moved, 5)


async def test_what_was_asked_for_just_before_it_was_pushed_is_there_soon(house: House) -> None:
    elsewhere, image = await open_hub(house, b"layer")
    layer = digest_of(b"layer")
    house.hub.challenge = "none"
    mirror = await house.mirror()
    for _ in range(3):
        assert (await mirror.manifest(image)).status == 404
        assert (await mirror.blob(layer)).status == 404
    assert house.hub.count("registry", path=image) == 1
    house.hub.blobs, house.hub.manifests = elsewhere.blobs, elsewhere.manifests

    async def is_there() -> bool:
        answers = await mirror.manifest(image), await mirror.blob(layer)
        return answers[0].is_whole(image) and answers[1].is_whole(layer)

    await eventually(is_there, 6)
