"""What a whole image is, however its indexes are nested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy
from mirror.oci.manifests import OCI_INDEX, media_type_of
from mirror.pullthrough.images import Images, PlatformMissing

from ..fakes import REDIS, FakeRegistry, MemoryContent, manifest_of

AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}


class ImageTree:
    def __init__(self, folder: Path, store: MemoryContent) -> None:
        self.registry = FakeRegistry(folder)
        self.images = Images(self.registry, store)

    def image(self, *blobs: bytes) -> bytes:
        return self._added(manifest_of(*blobs))

    def index(self, *children: tuple[bytes, dict[str, str] | None], tag: str = "") -> bytes:
        entries = [
            {
                "mediaType": media_type_of(data),
                "digest": str(Digest.of(data)),
                "size": len(data),
                **({"platform": platform} if platform else {}),
            }
            for data, platform in children
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        return self._added(json.dumps(document).encode(), tag)

    def _added(self, data: bytes, tag: str = "") -> bytes:
        self.registry.add_manifest(data, *filter(None, [tag]), media_type=media_type_of(data))
        return data

    async def layers(self, platform: str, reference: str = "7") -> set[Digest]:
        pieces = self.images.pieces(REDIS, reference, platform)
        return {piece.descriptor.digest async for piece in pieces if piece.role == "layer"}


@pytest.fixture
def tree(tmp_path: Path, store: MemoryContent) -> ImageTree:
    folder = tmp_path / "registry"
    folder.mkdir()
    return ImageTree(folder, store)


def digests(*blobs: bytes) -> set[Digest]:
    return set(map(Digest.of, blobs))


@pytest.mark.parametrize("said", ["inside", "outside", "both", "deeper"])
async def test_an_index_in_an_index_is_descended(tree: ImageTree, said: str) -> None:
    amd, arm = tree.image(b"{}", b"amd"), tree.image(b"{}", b"arm")
    if said == "outside":
        inner = [(tree.index((amd, None)), AMD64), (tree.index((arm, None)), ARM64)]
    elif said == "both":
        inner = [(tree.index((amd, AMD64)), AMD64), (tree.index((arm, ARM64)), ARM64)]
    else:
        inner = [(tree.index((amd, AMD64), (arm, ARM64)), None)]
    if said == "deeper":
        inner = [(tree.index(*inner), None)]
    tree.index(*inner, tag="7")
    assert await tree.layers("linux/amd64") == digests(b"amd")
    assert await tree.layers("linux/arm64") == digests(b"arm")
    assert await tree.layers("all") == digests(b"amd", b"arm")
    with pytest.raises(PlatformMissing, match=r"linux/amd64, linux/arm64"):
        await tree.layers("linux/s390x")


async def test_what_is_below_an_index_in_an_index_is_missing_by_name(tree: ImageTree) -> None:
    amd = tree.image(b"{}", b"amd")
    tree.index((tree.index((amd, AMD64)), None), tag="7")
    missing = await tree.images.missing(REDIS, "7", "linux/amd64")
    assert missing == [f"config {Digest.of(b'{}')}", f"layer {Digest.of(b'amd')}"]


async def test_attestations_are_of_no_platform_at_any_depth(tree: ImageTree) -> None:
    amd, proof = tree.image(b"{}", b"amd"), tree.image(b"[]", b"proof")
    tree.index((tree.index((amd, AMD64), (proof, UNKNOWN)), None), tag="7")
    assert await tree.layers("linux/amd64") == digests(b"amd")
    assert await tree.layers("all") == digests(b"amd")


@pytest.mark.parametrize("depth", [0, 1])
async def test_an_index_with_no_image_in_it_is_not_whole(tree: ImageTree, depth: int) -> None:
    index = tree.index(tag="7")
    for _ in range(depth):
        index = tree.index((index, None), tag="7")
    with pytest.raises(PlatformMissing, match="none that is named"):
        await tree.layers("all")


async def test_indexes_in_each_other_are_descended_up_to_a_bound(tree: ImageTree) -> None:
    index = tree.image(b"{}", b"layer")
    for depth in range(1, 10):
        index = tree.index((index, AMD64 if depth == 1 else None), tag=str(depth))
    assert await tree.layers("linux/amd64", "8") == digests(b"layer")
    with pytest.raises(Untrustworthy, match="in each other"):
        await tree.layers("linux/amd64", "9")


async def test_an_image_of_very_many_manifests_is_refused(tree: ImageTree) -> None:
    """Each index names the same two: 2 ** 8 ways, and few manifests."""
    a, b = tree.image(b"{}", b"a"), tree.image(b"{}", b"b")
    for _ in range(8):
        a, b = tree.index((a, AMD64), (b, AMD64)), tree.index((b, AMD64), (a, AMD64), tag="7")
    assert await tree.layers("linux/amd64") == digests(b"a", b"b")
    assert tree.registry.asked.count(("resolve", REDIS, "7")) == 1
    assert len(tree.registry.asked) < 30
    entry = (tree.image(b"{}", b"a"), AMD64)
    many = json.loads(tree.index(entry))
    many["manifests"] = [
        {**many["manifests"][0], "digest": str(Digest.of(b"%d" % number))} for number in range(2001)
    ]
    tree._added(json.dumps(many).encode(), "8")
    asked = len(tree.registry.asked)
    with pytest.raises(Untrustworthy, match="more than 2000 manifests"):
        await tree.layers("linux/amd64", "8")
    assert len(tree.registry.asked) - asked <= 2
