"""The image that only a mirror has: whoever gets it has asked the mirror."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.probe_image import REPOSITORY, probe_image

from ..running import RunningMirror

PINNED = "sha256:def6db97c525537ee5988938bf9629430fcd8aea23a453b5a5d73ead28f7f584"


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[RunningMirror]:
    async with RunningMirror.built(tmp_path) as mirror:
        await mirror.start('access: [{name: nothing, deny: "*"}]\n')
        yield mirror


async def test_it_is_answered_whole_by_any_tag_whatever_is_denied_and_nobody_is_asked(
    mirror: RunningMirror,
) -> None:
    answer = await mirror.get(f"/v2/{REPOSITORY}/manifests/never-asked-for?ns=docker.io")
    assert answer.status == 200
    index = json.loads(answer.body)
    assert answer.headers["Docker-Content-Digest"] == str(Digest.of(answer.body))
    assert {"amd64", "arm64"} <= {each["platform"]["architecture"] for each in index["manifests"]}
    for entry in index["manifests"]:
        manifest = await mirror.get(f"/v2/{REPOSITORY}/manifests/{entry['digest']}")
        assert manifest.headers["Content-Type"] == entry["mediaType"]
        pieces = json.loads(manifest.body)
        for piece in (pieces["config"], *pieces["layers"]):
            blob = await mirror.get(f"/v2/{REPOSITORY}/blobs/{piece['digest']}")
            assert str(Digest.of(blob.body)) == piece["digest"]
            assert len(blob.body) == piece["size"]
    assert mirror.hub.requests == []


async def test_it_opens_nothing_else(mirror: RunningMirror) -> None:
    digest = next(iter(probe_image().blobs))
    other = Digest.of(b"other")
    assert (await mirror.get(f"/v2/library/redis/blobs/{digest}")).status == 403
    assert (await mirror.get(f"/v2/{REPOSITORY}/blobs/{other}")).status == 404
    assert (await mirror.get(f"/v2/{REPOSITORY}/manifests/{other}")).status == 404
    assert (await mirror.get(f"/v2/{REPOSITORY}/manifests/1?ns=quay.io")).status == 403
    tags = await mirror.get(f"/v2/{REPOSITORY}/tags/list")
    assert json.loads(tags.body)["tags"] == []
    referrers = await mirror.get(f"/v2/{REPOSITORY}/referrers/{other}")
    assert json.loads(referrers.body)["manifests"] == []
    assert mirror.hub.requests == []


def test_its_bytes_do_not_change_from_host_to_host() -> None:
    """Nodes behind one address answer parts of one pull."""
    assert str(probe_image().index.descriptor.digest) == PINNED
