"""The OCI image layout (image-spec, image-layout.md), as far as it is read and made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..frozen import dataclass
from .descriptor import Descriptor
from .digest import Digest
from .documents import read_object
from .errors import DigestInvalid, Untrustworthy, quoted
from .manifests import OCI_INDEX, Child, Platform, read_manifest

LAYOUT, INDEX, DOCKER_ARCHIVE = "oci-layout", "index.json", "manifest.json"

LAYOUT_FILE = json.dumps({"imageLayoutVersion": "1.0.0"}).encode()

# The whole name: containerd and `docker load` take the first, skopeo and podman the second.
_CONTAINERD = "io.containerd.image.name"
_NAME = "org.opencontainers.image.ref.name"

_STANDS_FOR = "registry-mirror.stands-for"

_BLOB = re.compile(r"blobs/([a-z0-9]+)/([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Top:
    """An entry of index.json. `name` as it is given there, "" where it is not. `stands_for`: the
    image for which this one is there, as some clients do not take that (see stand_in)."""

    descriptor: Descriptor
    name: str
    stands_for: Digest | None = None


def blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def blob_of(path: str) -> Digest | None:
    """The digest of which the blob is at this path; None: of none."""
    found = _BLOB.fullmatch(path)
    if found is None:
        return None
    try:
        return Digest.parse(f"{found[1]}:{found[2]}")
    except DigestInvalid:
        return None


def index_of(tops: Sequence[Top]) -> bytes:
    """index.json. The names are whole ones."""
    return _index(
        [
            {
                **_described(top.descriptor),
                "annotations": _noted(top),
            }
            for top in tops
        ]
    )


def _noted(top: Top) -> Mapping[str, str]:
    if top.stands_for is None:
        return {_CONTAINERD: top.name, _NAME: top.name}
    # containerd takes both, and would have two images of one name.
    repository = top.name.partition("@")[0].rpartition("/")
    by_digest = f"{repository[0]}/{repository[2].partition(':')[0]}@{top.descriptor.digest}"
    return {_CONTAINERD: by_digest, _NAME: top.name, _STANDS_FOR: str(top.stands_for)}


def stand_in(children: Sequence[Child]) -> bytes:
    """An OCI index of these manifests, which may be of Docker's types: skopeo and podman find no
    image in a layout whose own type is one of these, but take such manifests out of an index."""
    return _index(
        [
            {
                **_described(child.descriptor),
                **({} if child.platform is None else {"platform": _spelt(child.platform)}),
            }
            for child in children
        ]
    )


def _index(manifests: Sequence[Mapping[str, Any]]) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return json.dumps(document, indent=2).encode()


def _described(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }


def _spelt(platform: Platform) -> dict[str, str]:
    found = {"architecture": platform.architecture, "os": platform.os}
    return found if platform.variant is None else {**found, "variant": platform.variant}


def read_layout(data: bytes) -> None:
    """Raises Untrustworthy for a layout of another kind."""
    version = read_object(data).get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise Untrustworthy(f"imageLayoutVersion is {quoted(str(version))}, not 1.0.0")


def read_index(data: bytes) -> Sequence[Top]:
    """The images of a layout. Raises Untrustworthy."""
    index = read_manifest(data, OCI_INDEX)
    annotations = [_annotations(entry) for entry in read_object(data).get("manifests") or []]
    return [
        Top(child.descriptor, _name(noted), _stands_for(noted))
        for child, noted in zip(index.children, annotations, strict=True)
    ]


def _annotations(entry: Any) -> Any:
    found = entry.get("annotations") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}


def _stands_for(annotations: Any) -> Digest | None:
    digest = annotations.get(_STANDS_FOR)
    try:
        return Digest.parse(digest) if isinstance(digest, str) else None
    except DigestInvalid:
        return None


def _name(annotations: Any) -> str:
    """A tag alone (`7`, as `docker save` writes it) is no name."""
    for key in (_CONTAINERD, _NAME):
        name = annotations.get(key)
        if isinstance(name, str) and (":" in name or "/" in name or "@" in name):
            return name
    return ""
