"""What is recorded of a manifest that somebody pushes: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..contracts.hosted import HostedManifest
from ..oci.digest import Digest
from ..oci.documents import read_object
from ..oci.errors import ManifestInvalid, RegistryError, Untrustworthy
from ..oci.manifests import MANIFEST_TYPES, Manifest, Platform, read_manifest

_LARGEST_ANNOTATIONS = 64 << 10
"""Bytes of JSON: a list of referrers repeats each manifest's annotations, but larger ones."""

_MOST = (1 << 63) - 1
"""Bytes that are recorded of an image, whatever its manifest claims: databases take no more."""


def read_pushed(data: bytes, media_type: str, digest: Digest) -> tuple[Manifest, HostedManifest]:
    """The manifest, and its record but for what only its config says. Raises ManifestInvalid."""
    try:
        manifest = read_manifest(data, media_type)
    except Untrustworthy as error:
        raise ManifestInvalid(error.message) from error
    # An index may list what is no manifest: BuildKit's caches list layers.
    listed = [child.descriptor for child in manifest.children]
    manifests = [each for each in listed if each.media_type in MANIFEST_TYPES]
    blobs = [*manifest.blobs, *(each for each in listed if each.media_type not in MANIFEST_TYPES)]
    platforms = [child.platform for child in manifest.children if child.platform is not None]
    return manifest, HostedManifest(
        digest,
        manifest.media_type,
        len(data),
        tuple(dict.fromkeys(each.digest for each in blobs)),
        tuple(dict.fromkeys(each.digest for each in manifests)),
        None if manifest.subject is None else manifest.subject.digest,
        _artifact_type(manifest),
        _annotations(read_object(data)),
        tuple(dict.fromkeys(each for each in platforms if each.os != "unknown")),
        min(sum(each.size or 0 for each in {each.digest: each for each in blobs}.values()), _MOST),
        foreign=tuple(dict.fromkeys(each.digest for each in manifest.foreign)),
    )


def platform_of(config: bytes) -> Platform | None:
    """As an image's configuration says it (image-spec, config.md); None where it says none."""
    try:
        document = read_object(config)
    except RegistryError:  # any bytes may be a config
        return None
    os, architecture = document.get("os"), document.get("architecture")
    variant = document.get("variant")
    if not (_is_word(os) and _is_word(architecture)):
        return None
    return Platform(str(os), str(architecture), variant if _is_word(variant) else None)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable()


def _artifact_type(manifest: Manifest) -> str | None:
    """As lists of referrers have it (distribution-spec, "Listing Referrers"): an image's without
    one is its config's media type."""
    if manifest.artifact_type is None and manifest.config is not None:
        return manifest.config.media_type
    return manifest.artifact_type


def _annotations(document: Mapping[str, Any]) -> Mapping[str, str]:
    found = document.get("annotations")
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        return {}
    return found if len(json.dumps(found)) <= _LARGEST_ANNOTATIONS else {}
