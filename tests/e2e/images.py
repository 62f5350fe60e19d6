"""Images made here: multi-layer, multi-architecture, runnable, and the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# This machine's architecture, as images call it.
HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
ELSEWHERE = "arm64" if HERE == "amd64" else "amd64"

OCI = {
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
}
DOCKER = {
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
}

_File = tuple[str, int, bytes]  # path, mode, content


@dataclass(frozen=True)
class Image:
    """An index with a manifest for each architecture.

    `blobs` and `manifests` hold bytes by digest; the index is the last of the manifests.
    """

    digest: str
    media_types: dict[str, str]
    blobs: dict[str, bytes] = field(repr=False)
    manifests: dict[str, bytes] = field(repr=False)
    manifest_of: dict[str, str]  # architecture -> digest of its manifest

    def blobs_of(self, architecture: str) -> set[str]:
        """The digests of one architecture's config and layers."""
        manifest = json.loads(self.manifests[self.manifest_of[architecture]])
        return {part["digest"] for part in (manifest["config"], *manifest["layers"])}

    def config_of(self, architecture: str) -> str:
        """The digest of one architecture's config."""
        manifest = json.loads(self.manifests[self.manifest_of[architecture]])
        return str(manifest["config"]["digest"])


def build(name: str, media_types: dict[str, str], layers: Sequence[int]) -> Image:
    """An image whose command prints "hello from <name>".

    Its first layer has busybox; of the others, each holds one file of the given number of bytes,
    which do not compress. No two names and no two architectures share a blob, so that each download
    has one reason only. Needs a static /bin/busybox on this machine.
    """
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    return _build(name, media_types, layers, [("bin/sh", 0o755, busybox)])


def build_thin(name: str, media_types: dict[str, str]) -> Image:
    """An image of two small layers, which runs nothing."""
    return _build(name, media_types, [20_000], [])


def _build(
    name: str, media_types: dict[str, str], layers: Sequence[int], programs: list[_File]
) -> Image:
    image = Image("", media_types, {}, {}, {})
    platforms = []
    for architecture in (HERE, ELSEWHERE):
        digest = _add_manifest(image, name, architecture, layers, programs)
        image.manifest_of[architecture] = digest
        platforms.append(
            _descriptor(media_types["manifest"], digest, image.manifests[digest])
            | {"platform": {"architecture": architecture, "os": "linux"}}
        )
    index = _json({"schemaVersion": 2, "mediaType": media_types["index"], "manifests": platforms})
    digest = _put(image.manifests, index)
    return Image(digest, media_types, image.blobs, image.manifests, image.manifest_of)


def write_archive(image: Image, path: Path) -> None:
    """An OCI image layout in a tar, with this image alone."""
    index = _descriptor(image.media_types["index"], image.digest, image.manifests[image.digest])
    index["annotations"] = {"io.containerd.image.name": "local.test/image:latest"}
    files = [
        ("oci-layout", 0o644, _json({"imageLayoutVersion": "1.0.0"})),
        ("index.json", 0o644, _json({"schemaVersion": 2, "manifests": [index]})),
    ]
    for digest, data in (image.blobs | image.manifests).items():
        files.append((f"blobs/{digest.replace(':', '/')}", 0o644, data))
    path.write_bytes(_tar(files))


def push(image: Image, registry: str, repository: str, tag: str = "latest") -> None:
    """Pushes to a registry that asks for no login, by the OCI distribution-spec ("Pushing")."""
    base = f"{registry}/v2/{repository}"
    for digest, data in image.blobs.items():
        begun = _send("POST", f"{base}/blobs/uploads/", b"", "application/octet-stream")
        place = urllib.parse.urljoin(base, begun["Location"])
        query = "&" if "?" in place else "?"
        query += urllib.parse.urlencode({"digest": digest})
        _send("PUT", place + query, data, "application/octet-stream")
    for digest, data in image.manifests.items():
        media_type = json.loads(data)["mediaType"]
        _send("PUT", f"{base}/manifests/{digest}", data, media_type)
    index = image.manifests[image.digest]
    _send("PUT", f"{base}/manifests/{tag}", index, image.media_types["index"])


def _add_manifest(
    image: Image, name: str, architecture: str, layers: Sequence[int], programs: list[_File]
) -> str:
    types = image.media_types
    # The name in every layer keeps the layers of two images apart.
    files = [[*programs, ("etc/name", 0o644, f"{name} {architecture}".encode())]]
    for number, size in enumerate(layers):
        noise = hashlib.shake_128(f"{name} {architecture} {number}".encode()).digest(size)
        files.append([(f"layer-{number}", 0o644, noise)])
    archives = [_tar(each) for each in files]
    packed = [gzip.compress(archive, 1, mtime=0) for archive in archives]
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/sh", "-c", f"echo hello from {name}"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [_digest(archive) for archive in archives],
            },
            "history": [{"created_by": f"layer {number}"} for number in range(len(archives))],
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": types["manifest"],
        "config": _descriptor(types["config"], _put(image.blobs, config), config),
        "layers": [
            _descriptor(types["layer"], _put(image.blobs, layer), layer) for layer in packed
        ],
    }
    return _put(image.manifests, _json(manifest))


def _tar(files: list[_File]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, mode, data in files:
            entry = tarfile.TarInfo(path)
            entry.mode, entry.size = mode, len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _put(shelf: dict[str, bytes], data: bytes) -> str:
    digest = _digest(data)
    shelf[digest] = data
    return digest


def _descriptor(media_type: str, digest: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _send(method: str, url: str, data: bytes, media_type: str) -> dict[str, str]:
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": media_type}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(answer.headers)
