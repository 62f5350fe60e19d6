"""Nobody but the registry opens its content to a repository: not an accelerator that says it has
everything, and not whoever else may write to the Redis that the mirror's nodes share."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from redis import Redis

from mirror.contracts.tags import TagRecord
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifests import MAX_DESCRIPTORS
from mirror.oci.reference import Repository
from mirror.storage.tags.encoding import encode, tag_key

from ..fakes.hub import OCI_MANIFEST, Fault, Hub
from ..redis_server import RedisServer
from .bodies import MIB
from .client import digest_of
from .house import House, Mirror

SECRET, PUBLIC = "team/secret", "library/public"


def private_image(hub: Hub, layer: bytes) -> str:
    """Only `team/secret` shows it; everybody may know its digests."""
    manifest = hub.add_image(SECRET, "1", layer)
    hub.lacking |= {(PUBLIC, digest) for digest in (*hub.blobs, manifest)}
    return manifest


async def is_open(mirror: Mirror, name: str, *, manifest: str, layer: bytes) -> bool:
    """Whether anything of the image is given through this repository."""
    paths = (f"manifests/{manifest}", f"blobs/{digest_of(layer)}")
    answers = [
        await mirror.ask(f"/v2/{name}/{path}", method)
        for path in paths
        for method in ("HEAD", "GET")
    ]
    assert {answer.status for answer in answers} in ({200}, {404}), answers
    return answers[0].status == 200


def junk(size: int, path: str) -> Fault:
    """Says of whatever is asked for below `path` that it is there, and sends anything, slowly."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if path not in request.path or request.method != "GET":
            return None
        response = web.StreamResponse()
        response.content_length = size
        await response.prepare(request)
        for _ in range(size // (MIB // 4)):
            await response.write(bytes(MIB // 4))
            await asyncio.sleep(0.2)  # it is slow on purpose
        return response

    return fault


@pytest.mark.parametrize(("size", "workers"), [(MIB // 8, 1), (4 * MIB, 2), (20 * MIB, 1)])
async def test_an_accelerators_word_opens_no_private_image(
    house: House, size: int, workers: int
) -> None:
    layer = os.urandom(size)
    manifest = private_image(house.hub, layer)
    accelerator = await house.another_hub()
    accelerator.challenge, accelerator.redirects = "none", False
    accelerator.add_image(SECRET, "1", layer)
    accelerator.fail("registry", junk(size, f"/v2/{PUBLIC}/"), 1000)
    mirror = await house.mirror(
        {"url": accelerator.url, "trust": "content"}, house.hub.url, quick=True, workers=workers
    )
    # Before its owner, whose pull is not to meet what the stranger has begun.
    answer = await mirror.blob(digest_of(layer), name=PUBLIC)
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    assert (await mirror.manifest("1", name=SECRET)).is_whole(manifest)
    assert (await mirror.blob(digest_of(layer), name=SECRET)).is_whole(digest_of(layer))
    assert await is_open(mirror, SECRET, manifest=manifest, layer=layer)
    assert not await is_open(mirror, PUBLIC, manifest=manifest, layer=layer)
    mirror.kill()
    await mirror.start()
    assert not await is_open(mirror, PUBLIC, manifest=manifest, layer=layer)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server.start()


@pytest.mark.parametrize("said", ["record", "pin", "history"])
async def test_what_stands_in_a_shared_redis_opens_no_private_image(
    house: House, redis: RedisServer, said: str
) -> None:
    layer = b"private layer"
    manifest = private_image(house.hub, layer)
    house.hub.add_image(PUBLIC, "7", b"public layer")
    mirror = await house.mirror(
        tags={"store": redis.url},
        access=[{"name": "cool-down", "allow": "*", "min_age": "1h"}] if said == "history" else [],
    )
    assert (await mirror.manifest(manifest, name=SECRET)).is_whole(manifest)
    assert (await mirror.blob(digest_of(layer), name=SECRET)).is_whole(digest_of(layer))
    with Redis.from_url(redis.url) as tenant:
        write(tenant, said, manifest)
    for method in ("HEAD", "GET"):
        answer = await mirror.manifest("1", method, name=PUBLIC)
        assert answer.status in (403, 404)
        assert b"private" not in answer.body
    assert not await is_open(mirror, PUBLIC, manifest=manifest, layer=layer)
    assert await is_open(mirror, SECRET, manifest=manifest, layer=layer)
    await mirror.stop()  # with what it keeps open towards Redis


def write(tenant: Redis, said: str, manifest: str) -> None:
    """That the public repository's tag is the private image."""
    digest, key = Digest.parse(manifest), tag_key(Repository("docker.io", PUBLIC), "1")
    record = TagRecord(Descriptor(OCI_MANIFEST, digest, 500), time.time())
    if said == "pin":
        tenant.hset("registry-mirror:1:frozen", key, manifest)
    else:
        tenant.set(f"registry-mirror:1:tag:{key}", encode(key, record), ex=3600)
    if said == "history":
        long_ago = time.time() - 86400
        tenant.lpush(f"registry-mirror:1:history:{key}", f"{manifest} {long_ago} {long_ago}")


async def test_a_tag_that_another_node_has_checked_is_not_asked_for_again(
    house: House, redis: RedisServer
) -> None:
    digest = house.hub.add_image(PUBLIC, "7", b"public layer")
    nodes = [await house.mirror(tags={"store": redis.url}) for _ in range(2)]
    for node in nodes:
        assert (await node.manifest("7", name=PUBLIC)).is_whole(digest)
    tags = [seen for seen in house.hub.seen("registry") if seen.path.endswith("/7")]
    assert [seen.method for seen in tags if "Authorization" in seen.headers] == ["GET"]
    # With the registry gone, each gives what was shown to it, and nothing else.
    await house.hub.__aexit__(None, None, None)
    third = await house.mirror(tags={"store": redis.url})
    for node in nodes:
        assert (await node.manifest("7", name=PUBLIC)).is_whole(digest)
    assert (await third.manifest("7", name=PUBLIC)).status == 503
    for node in (*nodes, third):
        await node.stop()


async def test_a_manifest_of_too_many_layers_is_refused_and_those_of_many_cost_others_nothing(
    house: House,
) -> None:
    hub = house.hub
    image = hub.add_image("library/redis", "7", b"layer")
    huge = [hub.add_manifest("evil/x", str(n), layers(MAX_DESCRIPTORS, n)) for n in range(8)]
    hub.add_manifest("evil/x", "too-many", layers(MAX_DESCRIPTORS + 1, 0))
    mirror = await house.mirror()
    layer = digest_of(b"layer")
    assert (await mirror.manifest("7")).is_whole(image)
    assert (await mirror.blob(layer)).is_whole(layer)
    for number, digest in enumerate(huge):
        assert (await mirror.manifest(str(number), name="evil/x")).is_whole(digest)
    answer = await mirror.manifest("too-many", name="evil/x")
    assert (answer.status, answer.code) == (502, "MANIFEST_INVALID")
    assert str(MAX_DESCRIPTORS) in answer.message
    await mirror.stop()
    await hub.__aexit__(None, None, None)
    await mirror.start()
    assert (await mirror.manifest("7")).is_whole(image)
    assert (await mirror.blob(layer)).is_whole(layer)


def layers(count: int, first: int) -> bytes:
    """A manifest of so many layers, which nobody has."""
    entries = [{"digest": f"sha256:{first + n:064x}", "size": 1} for n in range(count)]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": entries}).encode()
