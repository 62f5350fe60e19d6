"""Manifests and indexes: what they are, and what they refer to.

What verifying and fetching hang on (structure, media type, digests, sizes) is read strictly, or the
manifest is refused. What only describes (platforms, media types of what is referred to) is taken
where it is well-formed and left out where not: the bytes are passed on unchanged, and a client
judges them for itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

from ..frozen import dataclass
from .descriptor import OCTET_STREAM, Descriptor
from .digest import Digest
from .documents import read_object
from .errors import DigestInvalid, Untrustworthy, quoted

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"

INDEX_TYPES = frozenset({DOCKER_LIST, OCI_INDEX})
MANIFEST_TYPES = frozenset({DOCKER_MANIFEST, OCI_MANIFEST, OCI_ARTIFACT}) | INDEX_TYPES

ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT)
"""What to ask an upstream for: all that `read_manifest` takes. Docker's schema 1 is not there."""

MAX_MANIFEST = 4 * 1024 * 1024
"""In bytes: what the distribution-spec ("Pushing Manifests") expects a registry to take."""

_READ_AGAIN = 16 << 10
"""Bytes of a manifest that is not read a second time soon after: who fetches it, keeps it, gives it
and looks who may see its blobs all want to know what it says."""

MAX_DESCRIPTORS = 4096
"""What one manifest may refer to. No runtime takes as much: Docker's images have 127 layers at most
(`max depth exceeded`), overlayfs takes 500; the largest indexes have some hundred manifests, and
artifacts and caches of builds, which list files, more. Each costs time to read and a record."""

_SCHEMA_1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
# What servers and object stores say of bytes that they know nothing of.
_GENERIC_TYPES = frozenset(
    {"", "application/json", "text/plain", OCTET_STREAM, "binary/octet-stream"}
)
# Layers that a registry was not allowed to hold when they were pushed.
_FOREIGN_TYPES = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)

# The keys that make a document one thing or another: no document is two of them.
_SHAPES = {
    "an index": ("manifests",),
    "an image manifest": ("config", "layers"),
    "an artifact manifest": ("blobs",),
}
_SHAPE_OF = {
    DOCKER_LIST: "an index",
    OCI_INDEX: "an index",
    DOCKER_MANIFEST: "an image manifest",
    OCI_MANIFEST: "an image manifest",
    OCI_ARTIFACT: "an artifact manifest",
}

# The keys read here, by what they are when case is ignored.
_DOCUMENT_KEYS = {
    key.casefold(): key
    for key in (
        *("schemaVersion", "mediaType", "artifactType", "fsLayers"),
        *("manifests", "config", "layers", "blobs", "subject"),
    )
}
_DESCRIPTOR_KEYS = {
    key.casefold(): key for key in ("mediaType", "digest", "size", "urls", "platform")
}

# RFC 6838, 4.2, which the image-spec (descriptor.md, "mediaType") demands.
_RESTRICTED_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(f"{_RESTRICTED_NAME}/{_RESTRICTED_NAME}")
_PLATFORM_KEYS = ("os", "architecture", "variant")
_PLATFORM_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Platform:
    """What a child manifest runs on, in Go's words (image-spec, image-index.md).

    >>> str(Platform("linux", "arm64", "v8"))
    'linux/arm64/v8'
    """

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        words = (self.os, self.architecture, self.variant)
        return "/".join(word for word in words if word is not None)


@dataclass(frozen=True, slots=True)
class Child:
    """What an index lists: mostly a manifest, but BuildKit's caches list layers there.

    `platform` None: none is given, or it is malformed.
    """

    descriptor: Descriptor
    platform: Platform | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest or index says. Of those it refers to, each has a size.

    A descriptor's media type that is missing or malformed is given as application/octet-stream.
    """

    media_type: str
    """One of MANIFEST_TYPES."""
    children: tuple[Child, ...] = ()
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    """An image's layers or an artifact's blobs: what the registry holds."""
    foreign: tuple[Descriptor, ...] = ()
    """Layers with `urls`, or of a non-distributable type: the registry need not hold them. They
    are never fetched from those URLs, which their author chose (CVE-2020-15157)."""
    subject: Descriptor | None = None
    artifact_type: str | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All that a puller fetches as blobs, config first."""
        return self.layers if self.config is None else (self.config, *self.layers)


def media_type_of(data: bytes) -> str:
    """The media type of a stored manifest, whose Content-Type is long gone.

    The same that `read_manifest` gave when these bytes came, whatever their Content-Type was.
    Raises Untrustworthy for what it would refuse.
    """
    return read_manifest(data, None).media_type


def read_manifest(data: bytes, content_type: str | None) -> Manifest:
    """Reads a manifest that was answered with this Content-Type (None: without one).

    Bytes must be the same manifest to everybody (CVE-2021-41190), and still be it when only they
    are left. So the media type is what the body says: its `mediaType`, or without that the OCI type
    that its structure shows. A Content-Type that names a manifest type must agree; one that says
    nothing (missing, application/json, text/plain, application/octet-stream) is ignored; any other
    is refused. A body without `mediaType` is therefore never a Docker manifest, even if its
    Content-Type says so: Docker's schema 2 requires the field.

    Raises Untrustworthy, and nothing else, also for Docker's schema 1.
    """
    if len(data) > MAX_MANIFEST:
        raise Untrustworthy(
            f"the manifest has {len(data)} bytes: {MAX_MANIFEST} are the most that is taken"
        )
    claimed = _claimed_type(content_type)
    manifest = _read_again(data) if len(data) <= _READ_AGAIN else _read(data)
    if claimed is not None and claimed != manifest.media_type:
        raise Untrustworthy(
            f"the Content-Type says {claimed}, but by its body the manifest is "
            f"{manifest.media_type}"
            + ("" if read_object(data).get("mediaType") else ", since it has no mediaType")
        )
    return manifest


def _read(data: bytes) -> Manifest:
    """What these bytes say, whatever their Content-Type was. Raises Untrustworthy."""
    document = read_object(data)
    media_type = _media_type(document)
    _refuse_too_many(document)
    held, foreign = _layers(document)
    config, elsewhere = _config(document)
    subject = document.get("subject")
    return Manifest(
        media_type=media_type,
        children=tuple(
            Child(_descriptor(entry, f"manifests[{i}]"), _platform(entry.get("platform")))
            for i, entry in enumerate(_list(document, "manifests"))
        ),
        config=config,
        layers=held,
        foreign=elsewhere + foreign,
        subject=None if subject is None else _descriptor(subject, "subject"),
        artifact_type=_well_formed_media_type(document.get("artifactType")),
    )


_read_again = lru_cache(128)(_read)


def _refuse_too_many(document: Mapping[str, Any]) -> None:
    count = sum(len(_list(document, key)) for key in ("manifests", "layers", "blobs"))
    if count > MAX_DESCRIPTORS:
        raise Untrustworthy(
            f"the manifest refers to {count} manifests or layers: {MAX_DESCRIPTORS} are the most "
            "that is taken"
        )


def _claimed_type(content_type: str | None) -> str | None:
    """The manifest type that a Content-Type names; None when it says nothing."""
    media_type = (content_type or "").partition(";")[0].strip(" \t").lower()
    if media_type in _GENERIC_TYPES:
        return None
    if media_type in _SCHEMA_1_TYPES:
        _refuse_schema_1()
    if media_type == "text/html":
        raise Untrustworthy(
            "a web page (Content-Type text/html) in place of a manifest: is the url right, or is a "
            "page to sign in at in between?"
        )
    if media_type not in MANIFEST_TYPES:
        raise Untrustworthy(f"the Content-Type {quoted(media_type)} is no manifest's")
    return media_type


def _media_type(document: Mapping[str, Any]) -> str:
    """What this document is, by itself."""
    _refuse_lookalikes(document, _DOCUMENT_KEYS, "the manifest")
    version = document.get("schemaVersion", 2)
    if version == 1 or "fsLayers" in document:
        _refuse_schema_1()
    if version != 2:
        raise Untrustworthy(f"schemaVersion is {quoted(str(version))}, not 2")
    shapes = [name for name, keys in _SHAPES.items() if any(key in document for key in keys)]
    if len(shapes) > 1:
        raise Untrustworthy(f"the manifest is both {' and '.join(shapes)}")
    shape = shapes[0] if shapes else None
    declared = document.get("mediaType")
    if declared in (None, ""):
        if shape == "an index":
            return OCI_INDEX
        if shape == "an image manifest":
            return OCI_MANIFEST
        raise Untrustworthy("the JSON is no manifest: no mediaType, manifests, config or layers")
    if declared in list(_SCHEMA_1_TYPES):
        _refuse_schema_1()
    if not isinstance(declared, str) or declared not in MANIFEST_TYPES:
        raise Untrustworthy(f"the mediaType {quoted(str(declared))} is no manifest's")
    if shape != _SHAPE_OF[declared] and not (declared == OCI_ARTIFACT and shape is None):
        found = f"it is {shape}" if shape else "it has none of the keys of one"
        raise Untrustworthy(f"the mediaType says {declared}, but by its keys {found}")
    return declared


def _refuse_schema_1() -> NoReturn:
    raise Untrustworthy(
        "this is an image of Docker's schema 1, which current clients no longer pull: "
        "push it again with Docker 1.10 or newer"
    )


def _refuse_lookalikes(found: Mapping[str, Any], read: Mapping[str, str], where: str) -> None:
    # Go's JSON decoder, which all clients use, takes `Layers` for `layers`: with both in one
    # document they would see another manifest than the one read here.
    for key in found:
        meant = read.get(key.casefold(), key)
        if key != meant:
            raise Untrustworthy(f"{where} has the key {quoted(key)}: write {meant!r}")


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if value is None:  # Go writes an empty list as null
        return []
    if not isinstance(value, list):
        raise Untrustworthy(f"{key} is no list")
    return value


def _layers(
    document: Mapping[str, Any],
) -> tuple[tuple[Descriptor, ...], tuple[Descriptor, ...]]:
    """Those that the registry holds, and those that it need not."""
    held: list[Descriptor] = []
    foreign: list[Descriptor] = []
    for key in ("layers", "blobs"):
        for i, entry in enumerate(_list(document, key)):
            layer = _descriptor(entry, f"{key}[{i}]")
            (foreign if _is_foreign(entry, layer) else held).append(layer)
    return tuple(held), tuple(foreign)


def _config(document: Mapping[str, Any]) -> tuple[Descriptor | None, tuple[Descriptor, ...]]:
    """The config; among what the registry need not hold, where it says so of itself: a registry
    takes a manifest then without looking whether it is there."""
    entry = document.get("config")
    if entry is None:
        return None, ()
    config = _descriptor(entry, "config")
    return (None, (config,)) if _is_foreign(entry, config) else (config, ())


def _is_foreign(entry: Mapping[str, Any], found: Descriptor) -> bool:
    return bool(entry.get("urls")) or found.media_type.startswith(_FOREIGN_TYPES)


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise Untrustworthy(f"{where} is no descriptor")
    _refuse_lookalikes(value, _DESCRIPTOR_KEYS, where)
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str):
        raise Untrustworthy(f"{where} has no digest")
    # bool is an int to Python, and no size.
    if type(size) is not int or not 0 <= size < 2**63:
        raise Untrustworthy(f"{where} has no size in bytes")
    media_type = _well_formed_media_type(value.get("mediaType")) or OCTET_STREAM
    try:
        return Descriptor(media_type, Digest.parse(digest), size)
    except DigestInvalid as error:
        raise Untrustworthy(f"{where}: {error.message}") from error


def _well_formed_media_type(value: Any) -> str | None:
    return value if isinstance(value, str) and _MEDIA_TYPE.fullmatch(value) else None


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    os, architecture, variant = (_platform_word(value, key) for key in _PLATFORM_KEYS)
    return Platform(os, architecture, variant) if os and architecture else None


def _platform_word(platform: Mapping[str, Any], key: str) -> str | None:
    value = platform.get(key)
    return value if isinstance(value, str) and _PLATFORM_WORD.fullmatch(value) else None
