"""Images without end for real clients, as cheap to make as blobs are: what layers have in common is
packed and hashed once, and each has an end of its own."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .corpus import MANIFEST_TYPE, TAIL, Blob, Manifest

_BLOCK = 8 << 20
_TAR = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Layer:
    """`inside`: the digest of what is unpacked."""

    blob: Blob
    inside: str
    media_type: str


def packed(file: Path, size: int) -> Iterator[Layer]:
    """Different ones, gzip of what does not become smaller; in memory while they are made."""
    content = _tar_header(file.name, size + TAIL) + os.urandom(size)
    common = gzip.compress(content, 0, mtime=0)
    file.write_bytes(common)
    outside, inside, length = hashlib.sha256(common), hashlib.sha256(content), len(common)
    del content, common
    while True:
        # A file of gzip may be of several parts; the last is this layer's own.
        rest = os.urandom(TAIL) + _tar_end(size)
        tail = gzip.compress(rest, mtime=0)
        blob = Blob(_digest(outside, tail), file, length + len(tail), tail)
        yield Layer(blob, _digest(inside, rest), f"{_TAR}+gzip")


def plain(file: Path, size: int) -> Iterator[Layer]:
    """Different ones, tar and no gzip, as models have them: of any size."""
    common, block = hashlib.sha256(), os.urandom(_BLOCK)
    with file.open("wb") as target:
        pieces = [_tar_header(file.name, size + TAIL)]
        for start in range(0, size, _BLOCK):
            pieces.append(block[: size - start])
            for piece in pieces:
                target.write(piece)
                common.update(piece)
            pieces.clear()
        length = target.tell()
    while True:
        tail = os.urandom(TAIL) + _tar_end(size)
        digest = _digest(common, tail)
        yield Layer(Blob(digest, file, length + len(tail), tail), digest, _TAR)


def image_of(layers: Sequence[Layer]) -> tuple[Manifest, list[Blob]]:
    """For one architecture: its manifest, and all else that it has."""
    rootfs = {"type": "layers", "diff_ids": [layer.inside for layer in layers]}
    platform = {"architecture": "amd64", "os": "linux"}
    config = Blob.of(json.dumps({**platform, "config": {}, "rootfs": rootfs}).encode())
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest,
            "size": config.size,
        },
        "layers": [
            {
                "mediaType": layer.media_type,
                "digest": layer.blob.digest,
                "size": layer.blob.size,
            }
            for layer in layers
        ],
    }
    manifest = Manifest(json.dumps(document).encode(), tag=None)
    return manifest, [config, *(layer.blob for layer in layers)]


def _digest(common: hashlib._Hash, end: bytes) -> str:
    whole = common.copy()
    whole.update(end)
    return f"sha256:{whole.hexdigest()}"


def _tar_header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def _tar_end(size: int) -> bytes:
    """After a file of so many bytes, and the layer's own."""
    return bytes(-(size + TAIL) % 512 + 1024)
