"""For which platforms an image is made, and which of them are here."""

from __future__ import annotations

from collections.abc import Sequence

from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.documents import read_object
from ...oci.errors import RegistryError
from ...oci.manifests import MAX_MANIFEST, Manifest, Platform, read_manifest
from ...storage.disk.store import DiskContent
from ...threads import read_aside

_LARGEST_CONFIG = 1 << 20  # bytes: of a larger one the platform is not looked for
_LONGEST_WORD = 64


@dataclass(frozen=True, slots=True)
class Platforms:
    """`made_for`: all, `here`: those whose manifests are."""

    made_for: Sequence[str] = ()
    here: Sequence[str] = ()


async def platforms_of(store: DiskContent, digest: Digest) -> Platforms:
    """Of the image with this manifest or index, as far as that is here."""
    manifest = await manifest_of(store, digest)
    if manifest is None:
        return Platforms()
    if not manifest.is_index:
        found = await platform_of(store, manifest)
        return Platforms((found,), (found,)) if found else Platforms()
    children = [
        (str(child.platform), child.descriptor.digest)
        for child in manifest.children
        if child.platform is not None and child.platform.os != "unknown"
    ]
    return Platforms(
        tuple(dict.fromkeys(name for name, _ in children)),
        tuple(dict.fromkeys(name for name, child in children if store.size(child) is not None)),
    )


async def manifest_of(store: DiskContent, digest: Digest) -> Manifest | None:
    """What is here under this digest, if it is a manifest. No use of it."""
    data = await store.look(digest, MAX_MANIFEST)
    if data is None:
        return None
    try:
        return await read_aside(read_manifest, data, None)
    except RegistryError:
        return None


async def platform_of(store: DiskContent, manifest: Manifest) -> str:
    """As the image's configuration says it (image-spec, config.md); "" where that is not here."""
    if manifest.config is None:
        return ""
    data = await store.look(manifest.config.digest, _LARGEST_CONFIG)
    if data is None:
        return ""
    try:
        config = await read_aside(read_object, data)
    except RegistryError:  # of a chart, or a stranger's
        return ""
    words = [config.get(key) for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) and 0 < len(word) <= _LONGEST_WORD for word in words[:2]):
        return ""
    variant = words[2] if isinstance(words[2], str) and words[2] else None
    name = str(Platform(str(words[0]), str(words[1]), variant and variant[:_LONGEST_WORD]))
    return name if name.isascii() and name.isprintable() else ""
