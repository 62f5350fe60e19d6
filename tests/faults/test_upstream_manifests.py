"""Manifests that are too large, forged, two things at once, or a login page: never kept."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

import pytest

from ..fakes.hub import OCI_INDEX, OCI_MANIFEST, Hub, page
from .bodies import MIB, sends, unmeasured
from .client import digest_of
from .house import House

SMALL = MIB // 8  # given out once it is proven


def name_of(hub: Hub) -> str:
    """What metrics and logs call the hub."""
    return hub.url.removeprefix("http://")


async def test_f06_a_manifest_that_is_encoded_is_decoded_to_its_digest(house: House) -> None:
    house.hub.challenge = "none"
    digest = house.hub.add_image("library/redis", "7", b"layer")
    data, media_type = house.hub.manifests[digest]
    headers = {"Content-Encoding": "gzip", "Content-Type": media_type}
    house.hub.fail("registry", sends(gzip.compress(data), headers), times=2)
    mirror = await house.mirror()
    answer = await mirror.manifest("7")
    assert answer.is_whole(digest)
    assert answer.body == data


async def test_f11_a_manifest_of_more_than_4_mib(house: House) -> None:
    house.hub.challenge = "none"
    digest = house.hub.add_manifest("library/redis", "7", b'{"a": "' + bytes(5 * MIB) + b'"}')
    mirror = await house.mirror()
    for reference in ("7", digest):
        answer = await mirror.manifest(reference)
        assert answer.status == 502
        assert "more than 4194304 bytes" in answer.message
    house.hub.fail("registry", unmeasured(b"[" * MIB, endless=True))
    assert (await mirror.manifest(digest_of(b"never"))).status == 502
    assert await mirror.metric("upstream_bytes_total") < 6 * MIB
    assert mirror.kept() == {}


MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest_of(b"{}"),
        "size": 2,
    },
    "layers": [],
}


async def test_f12_a_manifest_that_is_not_its_digests(house: House) -> None:
    good = await house.another_hub()
    for hub in (house.hub, good):
        hub.challenge = "none"
        digest = hub.add_manifest("library/redis", None, json.dumps(MANIFEST).encode())
        hub.add_manifest("library/redis", "7", json.dumps(MANIFEST, indent=1).encode())
    forged = sends(json.dumps(MANIFEST, indent=2).encode(), {"Content-Type": OCI_MANIFEST})
    mirror = await house.mirror()
    house.hub.fail("registry", forged)
    answer = await mirror.manifest(digest)
    assert answer.status == 502
    assert digest in answer.message
    assert mirror.kept() == {}
    assert await mirror.metric("upstream_rejected_total") == 1
    assert (await mirror.manifest(digest)).is_whole(digest)

    of_two = await house.mirror(house.hub, good)
    house.hub.fail("registry", forged)
    assert (await of_two.manifest(digest)).is_whole(digest)


async def test_f12_a_tag_whose_head_claims_what_its_bytes_are_not(house: House) -> None:
    house.hub.challenge = "none"
    right = house.hub.add_manifest("library/redis", "7", json.dumps(MANIFEST).encode())
    claim = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(b"another")}
    lie = sends(json.dumps(MANIFEST).encode(), claim)
    house.hub.fail("registry", lie, times=1000)
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).status == 502
    assert mirror.kept() == {}
    house.hub.mend()
    answer = await mirror.manifest("7")
    assert answer.is_whole(right)
    assert answer.headers["Docker-Content-Digest"] == right


@pytest.mark.parametrize(
    ("manifest", "media_type"),
    [
        (MANIFEST, OCI_INDEX),
        ({**MANIFEST, "mediaType": OCI_INDEX}, OCI_MANIFEST),
        ({**MANIFEST, "manifests": []}, OCI_MANIFEST),
        ({**MANIFEST, "Manifests": [], "mediaType": OCI_INDEX}, OCI_INDEX),
        ({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, OCI_MANIFEST),
        ({"schemaVersion": 2, "layers": []}, OCI_INDEX),
    ],
)
async def test_f13_a_manifest_that_is_two_things_is_refused(
    house: House, manifest: dict[str, Any], media_type: str
) -> None:
    house.hub.challenge = "none"
    data = json.dumps(manifest).encode()
    digest = house.hub.add_manifest("library/redis", "7", data, media_type)
    mirror = await house.mirror()
    for reference in ("7", digest):
        answer = await mirror.manifest(reference)
        assert (answer.status, answer.code) == (502, "MANIFEST_INVALID")
    assert mirror.kept() == {}
    assert await mirror.metric("responses_total", status="502") == 2
    # The bytes are what their digest says: whoever may push could accuse the registry.
    assert await mirror.metric("upstream_rejected_total") == 0


async def test_f14_a_login_page_is_no_manifest_and_no_blob(house: House) -> None:
    hub = house.hub
    hub.challenge = "none"
    hub.redirects = False
    digest = hub.add_image("library/redis", "7", os.urandom(SMALL))
    layer = next(iter(hub.blobs))
    hub.fail("registry", page(), times=1000)
    mirror = await house.mirror()
    for answer in (
        await mirror.manifest("7"),
        await mirror.manifest(digest),
        await mirror.blob(layer),
    ):
        assert (answer.status, "Retry-After" in answer.headers) == (502, True)
        assert name_of(hub) in answer.message
    assert (await mirror.manifest("7", "HEAD")).status == 502
    assert mirror.kept() == {}


async def test_f14_a_login_page_marks_its_endpoint(house: House) -> None:
    portal, good = house.hub, await house.another_hub()
    for hub in (portal, good):
        hub.challenge = "none"
        digest = hub.add_image("library/redis", "7", b"layer")
    portal.fail("registry", page(), times=1000)
    mirror = await house.mirror(portal, good)
    assert (await mirror.manifest("7")).is_whole(digest)
    asked = len(portal.requests)
    layer = digest_of(b"layer")
    assert (await mirror.blob(layer)).is_whole(layer)
    assert len(portal.requests) == asked
    assert await mirror.metric("upstream_rejected_total", endpoint=name_of(portal)) >= 1
