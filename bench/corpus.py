"""What is pulled: one big file of random bytes that many blobs share, and a small image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "bench/app"
TAG = "latest"
TAIL = 32
"""Bytes at a blob's end that are its own: what is before them all blobs have in common."""

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_LAYERS = 20
_MIB = 1 << 20


@dataclass(frozen=True)
class Blob:
    """The first bytes of `file`, then `tail`: `size` bytes in all."""

    digest: str
    file: Path
    size: int
    tail: bytes = b""

    @property
    def path(self) -> str:
        return f"/v2/{REPOSITORY}/blobs/{self.digest}"

    def write(self, target: Path) -> None:
        """The whole of it, as a file of its own."""
        shutil.copyfile(self.file, target)
        os.truncate(target, self.size - len(self.tail))
        with target.open("ab") as end:
            end.write(self.tail)

    def offer(self) -> dict[str, dict[str, object]]:
        """As the upstream wants to be told of it."""
        return {self.digest: {"file": str(self.file), "size": self.size, "tail": self.tail.hex()}}


@dataclass(frozen=True)
class Manifest:
    """A manifest of 20 layers: about what a well-grown image has."""

    digest: str
    data: bytes

    @property
    def path(self) -> str:
        return f"/v2/{REPOSITORY}/manifests/{self.digest}"

    @property
    def tag_path(self) -> str:
        return f"/v2/{REPOSITORY}/manifests/{TAG}"


class Corpus:
    """Content made for one figure, under one folder. `size`: of the largest blob, in bytes."""

    def __init__(self, folder: Path, size: int) -> None:
        self._base = folder / "base"
        block = os.urandom(8 * _MIB)
        with self._base.open("wb") as file:
            for _ in range(-(-size // len(block))):
                file.write(block)
        self._config = folder / "config"
        self._config.write_bytes(json.dumps({"rootfs": os.urandom(2048).hex()}).encode())
        self.config = Blob(
            _digest(self._config.read_bytes()), self._config, self._config.stat().st_size
        )
        self.manifest = _manifest(self.config)

    def blobs(self, size: int) -> Iterator[Blob]:
        """Different blobs without end. Each costs nothing but its last bytes: the hash of what
        they have in common is taken once."""
        common = hashlib.sha256()
        with self._base.open("rb") as file:
            left = size - TAIL
            while left:
                piece = file.read(min(left, _MIB))
                common.update(piece)
                left -= len(piece)
        while True:
            tail, whole = os.urandom(TAIL), common.copy()
            whole.update(tail)
            yield Blob(f"sha256:{whole.hexdigest()}", self._base, size, tail)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _manifest(config: Blob) -> Manifest:
    layers = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": _digest(os.urandom(8)),
            "size": 1_000_000 + number,
        }
        for number in range(_LAYERS)
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest,
            "size": config.size,
        },
        "layers": layers,
    }
    data = json.dumps(document, indent=2).encode()
    return Manifest(_digest(data), data)
