"""Whole images: whether all of one is here, and bringing it here."""

from __future__ import annotations

import platform as os_platform
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..interfaces import ContentStore, Registry
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import ManifestUnknown, RegistryError
from ..oci.manifests import MANIFEST_TYPES, Manifest, Platform, read_manifest
from ..oci.reference import Repository

ALL_PLATFORMS = "all"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that an image is made of. `role`: index, manifest, config or layer."""

    role: str
    descriptor: Descriptor


def this_platform() -> str:
    """The platform of this host, in the words of the image-spec."""
    machine = os_platform.machine().lower()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


class PlatformMissing(ManifestUnknown):
    """The image is not made for that platform; the message lists those it is made for."""


class Images:
    """Images of a registry, taken as a whole.

    `registry` is asked for manifests; where it may reach the upstream, they are fetched by that.
    """

    def __init__(self, registry: Registry, store: ContentStore) -> None:
        self._registry = registry
        self._store = store

    async def pieces(
        self, repository: Repository, reference: str | Digest, platform: str
    ) -> AsyncIterator[Piece]:
        """The index, and for the platform (`linux/arm64`, or `all`) its
        manifest, config and layers. Raises RegistryError when a manifest cannot be had."""
        digest = reference
        if not isinstance(digest, Digest):
            digest = (await self._registry.resolve(repository, digest)).descriptor.digest
        content = await self._registry.manifest(repository, digest)
        manifest = read_manifest(content.data, None)
        if not manifest.is_index:
            for piece in _image(content.descriptor, manifest):
                yield piece
            return
        yield Piece("index", content.descriptor)
        for child in _chosen(manifest, platform):
            child_content = await self._registry.manifest(repository, child.digest)
            for piece in _image(child_content.descriptor, read_manifest(child_content.data, None)):
                yield piece

    async def missing(
        self, repository: Repository, reference: str | Digest, platform: str
    ) -> list[str]:
        """What would not be served with no network, in words; nothing when all is here."""
        lacking = []
        try:
            async for piece in self.pieces(repository, reference, platform):
                if piece.role in ("config", "layer"):
                    content = await self._store.open(piece.descriptor.digest)
                    if content is None:
                        lacking.append(f"{piece.role} {piece.descriptor.digest}")
                    else:
                        content.close()
        except PlatformMissing:
            raise
        except RegistryError as error:
            lacking.append(f"its manifest: {error.message}")
        return lacking

    async def bring(self, repository: Repository, piece: Piece) -> AsyncIterator[int]:
        """Has a config or layer come here; yields how many of its bytes are here by now."""
        content = await self._registry.blob(repository, piece.descriptor.digest)
        try:
            there = 0
            while (limit := await content.readable(there)) > there:
                there = limit
                yield there
        finally:
            content.close()


def _image(descriptor: Descriptor, manifest: Manifest) -> list[Piece]:
    pieces = [Piece("manifest", descriptor)]
    if manifest.config is not None:
        pieces.append(Piece("config", manifest.config))
    return [*pieces, *(Piece("layer", layer) for layer in manifest.layers)]


def _chosen(manifest: Manifest, platform: str) -> list[Descriptor]:
    """The children to take: manifests, of the platform asked for. Attestations (unknown/unknown)
    are of no platform."""
    children = [
        (child.platform, child.descriptor)
        for child in manifest.children
        if child.descriptor.media_type in MANIFEST_TYPES
    ]
    real = [(made_for, child) for made_for, child in children if _is_real(made_for)]
    if platform == ALL_PLATFORMS:
        return [child for _, child in (real or children)]
    chosen = [child for made_for, child in real if _is(made_for, platform)]
    if not chosen:
        names = ", ".join(sorted({str(made_for) for made_for, _ in real})) or "none that is named"
        raise PlatformMissing(f"the image is not made for {platform}, but for {names}")
    return chosen


def _is_real(platform: Platform | None) -> bool:
    return platform is not None and platform.os != "unknown"


def _is(platform: Platform | None, wanted: str) -> bool:
    """`linux/arm64` means every variant of it."""
    return platform is not None and (
        str(platform) == wanted or f"{platform.os}/{platform.architecture}" == wanted
    )
