"""What a stand-in for a registry holds: blobs, manifests and tags."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict

from aiohttp import web

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


class Shelf:
    """Content by its digest, whatever the repository, and each repository's tags."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.tags: dict[str, dict[str, str]] = defaultdict(dict)

    def add_blob(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def add_manifest(
        self, name: str, tag: str | None, data: bytes, media_type: str = OCI_MANIFEST
    ) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.manifests[digest] = data, media_type
        if tag is not None:
            self.tags[name][tag] = digest
        return digest

    def add_image(self, name: str, tag: str, *layers: bytes) -> str:
        """An image of one platform; gives back its manifest's digest."""
        described = [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": self.add_blob(layer),
                "size": len(layer),
            }
            for layer in layers
        ]
        config = json.dumps({"architecture": "amd64", "os": "linux", "of": name, "at": tag})
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.add_blob(config.encode()),
                "size": len(config),
            },
            "layers": described,
        }
        return self.add_manifest(name, tag, json.dumps(manifest, indent=2).encode())


def blob_answer(request: web.Request, data: bytes, digest: str) -> web.Response:
    """The bytes, or the range of them that is asked for."""
    headers = {"Content-Type": "application/octet-stream", "ETag": f'"{digest[-8:]}"'}
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if match is None:
        return web.Response(body=data, headers=headers)
    start, stop = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
    if start >= len(data):
        headers["Content-Range"] = f"bytes */{len(data)}"
        return web.Response(status=416, headers=headers)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return web.Response(status=206, body=data[start:stop], headers=headers)
