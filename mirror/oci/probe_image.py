"""An image that only a mirror has: a client that gets it has asked one.

It is an index of the platforms that clients look for, one manifest each; all share one layer, with
a file in it that says what this is. Its bytes are the same in every mirror of this version.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import cache

from ..frozen import dataclass
from .descriptor import OCTET_STREAM, Descriptor
from .digest import Digest

REPOSITORY = "registry-mirror/check"
"""In each registry that a mirror serves. Docker Hub lets nobody take a name with a hyphen."""

_WORDS = b"This image comes from registry-mirror itself: whoever has pulled it asks the mirror.\n"
_PLATFORMS: Sequence[Mapping[str, str]] = (
    {"architecture": "amd64", "os": "linux"},
    {"architecture": "arm64", "os": "linux", "variant": "v8"},
    {"architecture": "arm", "os": "linux", "variant": "v7"},
    {"architecture": "386", "os": "linux"},
    {"architecture": "ppc64le", "os": "linux"},
    {"architecture": "riscv64", "os": "linux"},
    {"architecture": "s390x", "os": "linux"},
)
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some content, by the media type that it is referred to with."""

    descriptor: Descriptor
    data: bytes


@dataclass(frozen=True, slots=True)
class ProbeImage:
    index: Piece
    manifests: Mapping[Digest, Piece]
    """By digest, the index too."""
    blobs: Mapping[Digest, Piece]


@cache
def probe_image() -> ProbeImage:
    layer = _piece(_LAYER, _archive())
    index = []
    manifests, blobs = {}, {layer.descriptor.digest: layer}
    for platform in _PLATFORMS:
        config = _json(
            _CONFIG,
            {
                **platform,
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [str(layer.descriptor.digest)]},
            },
        )
        manifest = _json(
            _MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _referred(config),
                "layers": [_referred(layer)],
            },
        )
        blobs[config.descriptor.digest] = config
        manifests[manifest.descriptor.digest] = manifest
        index.append({**_referred(manifest), "platform": platform})
    whole = _json(_INDEX, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": index})
    manifests[whole.descriptor.digest] = whole
    return ProbeImage(
        whole,
        manifests,
        {
            digest: Piece(Descriptor(OCTET_STREAM, digest, len(blob.data)), blob.data)
            for digest, blob in blobs.items()
        },
    )


def _archive() -> bytes:
    """Uncompressed: what a compressor makes of it depends on its version."""
    import tarfile  # only here: with what it needs itself it takes half a megabyte

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("registry-mirror.txt")
        entry.size, entry.mode = len(_WORDS), 0o644
        archive.addfile(entry, io.BytesIO(_WORDS))
    return file.getvalue()


def _json(media_type: str, document: object) -> Piece:
    return _piece(media_type, json.dumps(document, separators=(",", ":")).encode())


def _piece(media_type: str, data: bytes) -> Piece:
    return Piece(Descriptor(media_type, Digest.of(data), len(data)), data)


def _referred(piece: Piece) -> Mapping[str, object]:
    found = piece.descriptor
    return {"mediaType": found.media_type, "digest": str(found.digest), "size": found.size}
