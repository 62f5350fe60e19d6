"""What is waited out, and what is refused quickly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.manifests import OCI_INDEX, OCI_MANIFEST
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.policy import CachePolicy, TroublePatience
from mirror.pullthrough.shared import Shared

from ..fakes import CONTEXT, FakeTags, FakeUpstream, MemoryContent, manifest_of
from .test_fills import BIG, REDIS, read_all

CONFIG, MANIFEST = b"{}", manifest_of(b"{}", BIG)
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": str(Digest.of(MANIFEST)),
                "size": len(MANIFEST),
                "platform": {"os": "linux", "architecture": "amd64"},
            }
        ],
    }
).encode()


@pytest.fixture
async def cache(
    upstream: FakeUpstream, store: MemoryContent, fills: Fills
) -> AsyncIterator[PullThrough]:
    """What was promised is waited for, what was not is given up at once."""
    upstream.push("7", INDEX, CONFIG, BIG)
    upstream.manifests[Digest.of(MANIFEST)] = MANIFEST
    hold = TroublePatience(promised=60, other=0, pause=0.01)
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), fills), CachePolicy(trouble=hold))
    yield cache
    await cache.close()


def comes_back(upstream: FakeUpstream, kind: str, after: int) -> None:
    """The upstream is down for so many asks of this kind."""
    asked = getattr(upstream, kind)
    failures = iter(range(after))

    async def ask(*arguments: object, **more: object) -> object:
        if next(failures, None) is not None:
            upstream.asked["refused"] += 1
            raise Unavailable("down")
        return await asked(*arguments, **more)

    setattr(upstream, kind, ask)


async def test_f57_what_an_answered_manifest_names_is_waited_for(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    await cache.manifest(
        CONTEXT, REDIS, (await cache.resolve(CONTEXT, REDIS, "7")).descriptor.digest
    )
    comes_back(upstream, "manifest", after=5)
    assert (await cache.manifest(CONTEXT, REDIS, Digest.of(MANIFEST))).data == MANIFEST
    comes_back(upstream, "blob", after=5)
    assert await read_all(await cache.blob(CONTEXT, REDIS, Digest.of(BIG))) == BIG
    assert upstream.asked["refused"] == 10


async def test_what_nobody_was_told_of_is_refused_at_once(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    for kind, digest in (("manifest", Digest.of(MANIFEST)), ("blob", Digest.of(BIG))):
        comes_back(upstream, kind, after=1)
        with pytest.raises(Unavailable, match="down"):
            await getattr(cache, kind)(CONTEXT, REDIS, digest)
    assert upstream.asked["refused"] == 2
