"""What is pulled: one big file of random bytes that many blobs share, and images."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = "bench/app"
TAG = "latest"
TAIL = 32
"""Bytes at a blob's end that are its own: what is before them all blobs have in common."""

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
Pull = list[tuple[str, str]]
"""What a client asks for, in its order: paths, and the digests of what is to come."""

_LAYERS = 20
_MIB = 1 << 20


@dataclass(frozen=True)
class Blob:
    """The first bytes of `file`, then `tail`: `size` bytes in all."""

    digest: str
    file: Path
    size: int
    tail: bytes = b""
    repository: str = REPOSITORY

    @classmethod
    def of(cls, data: bytes, repository: str = REPOSITORY) -> Blob:
        """A small one, which needs no file."""
        return cls(_digest(data), Path(os.devnull), len(data), data, repository)

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.digest}"

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
    """A manifest or an index. `tag`: what points to it, if anything."""

    data: bytes
    media_type: str = MANIFEST_TYPE
    tag: str | None = TAG
    repository: str = REPOSITORY
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self.data))

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.digest}"

    @property
    def tag_path(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.tag}"

    def offer(self) -> dict[str, dict[str, object]]:
        """As the upstream wants to be told of it: tags are to be unique among all repositories."""
        entry: dict[str, object] = {
            "type": self.media_type,
            "digest": self.digest,
            "data": self.data.decode(),
        }
        return {name: entry for name in (self.digest, self.tag) if name}


@dataclass(frozen=True)
class SmallImage:
    """Of one small layer, in a repository of its own. Its tag points to an index."""

    index: Manifest
    manifest: Manifest
    config: Blob
    layer: Blob

    @property
    def pull(self) -> Pull:
        return [
            (self.index.tag_path, self.index.digest),
            (self.manifest.path, self.manifest.digest),
            (self.config.path, self.config.digest),
            (self.layer.path, self.layer.digest),
        ]


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
        self.manifests = [self.manifest]

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
    """Of 20 layers: about what a well-grown image has."""
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
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    }
    data = json.dumps(document, indent=2).encode()
    return Manifest(data)


def small_images(count: int) -> list[SmallImage]:
    """New ones each time: nobody has asked for any of them before."""
    return [_small_image(f"bench/{os.urandom(6).hex()}") for _ in range(count)]


def _small_image(repository: str) -> SmallImage:
    config = Blob.of(json.dumps({"rootfs": os.urandom(1024).hex()}).encode(), repository)
    layer = Blob.of(os.urandom(4096), repository)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
    }
    manifest = Manifest(json.dumps(document).encode(), tag=None, repository=repository)
    part = {"mediaType": MANIFEST_TYPE, "digest": manifest.digest, "size": len(manifest.data)}
    platform = {"platform": {"architecture": "amd64", "os": "linux"}}
    listed = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [part | platform]}
    tag = f"v{repository.rpartition('/')[2]}"
    index = Manifest(json.dumps(listed).encode(), INDEX_TYPE, tag, repository)
    return SmallImage(index, manifest, config, layer)


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}
