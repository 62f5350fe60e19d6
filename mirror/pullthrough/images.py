"""Whole images: what they are made of, and whether all of one is here."""

from __future__ import annotations

import platform as os_platform
from collections.abc import AsyncIterator, Callable, Sequence

from ..contracts.content import ContentStore
from ..contracts.context import RequestContext
from ..contracts.registry import Reader
from ..frozen import dataclass
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import ManifestUnknown, RegistryError, Untrustworthy
from ..oci.manifests import INDEX_TYPES, MANIFEST_TYPES, Child, Manifest, Platform, read_manifest
from ..oci.reference import ImageReference, Repository
from ..threads import aside, read_aside

ALL_PLATFORMS = "all"

# Of one image; the largest that are known have some hundred manifests, and one index in another.
_MOST_MANIFESTS = 2000
_DEEPEST = 8

_OPERATOR = RequestContext(request_id="", client="")
"""Whole images are asked for by commands and by the admin port, never by a client."""

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

    def __init__(
        self,
        registry: Reader,
        store: ContentStore,
        hindrances: Callable[[ImageReference], Sequence[str]] = lambda image: (),
    ) -> None:
        """`hindrances`: why what is missing of an image may not come by itself. Blocking."""
        self._registry = registry
        self._store = store
        self._hindrances = hindrances

    async def pieces(
        self, repository: Repository, reference: str | Digest, platform: str
    ) -> AsyncIterator[Piece]:
        """The index, and for the platform (`linux/arm64`, or `all`) its manifest, config and
        layers; so, too, of each index in it. Raises RegistryError when a manifest cannot be had, or
        there is none for the platform."""
        digest = reference
        if not isinstance(digest, Digest):
            digest = (await self._registry.resolve(_OPERATOR, repository, digest)).descriptor.digest
        waiting = [_Step(digest)]
        met = {digest}
        made_for: set[str] = set()
        found = False
        while waiting:
            step = waiting.pop()
            content = await self._registry.manifest(_OPERATOR, repository, step.digest)
            manifest = await read_aside(read_manifest, content.data, None)
            if not manifest.is_index:
                found = True
                for piece in _image(content.descriptor, manifest):
                    yield piece
                continue
            yield Piece("index", content.descriptor)
            made_for |= {str(child.platform) for child in manifest.children if _is_real(child)}
            below = [one for one in _below(manifest, platform, step) if one.digest not in met]
            met |= {one.digest for one in below}
            if step.depth == _DEEPEST and below:
                raise Untrustworthy(f"{digest} has indexes in each other, more than {_DEEPEST}")
            if len(met) > _MOST_MANIFESTS:
                raise Untrustworthy(f"{digest} has more than {_MOST_MANIFESTS} manifests")
            waiting += reversed(below)
        if not found:
            names = ", ".join(sorted(made_for)) or "none that is named"
            raise PlatformMissing(f"the image is not made for {platform}, but for {names}")

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
        if lacking:
            lacking += await aside(self._hindrances, ImageReference(repository, reference))
        return lacking


def _image(descriptor: Descriptor, manifest: Manifest) -> list[Piece]:
    pieces = [Piece("manifest", descriptor)]
    if manifest.config is not None:
        pieces.append(Piece("config", manifest.config))
    return [*pieces, *(Piece("layer", layer) for layer in manifest.layers)]


@dataclass(frozen=True, slots=True)
class _Step:
    """A manifest or index to be taken, below so many indexes, of which one may have been said to be
    for the platform."""

    digest: Digest
    depth: int = 0
    is_for_it: bool = False


def _below(index: Manifest, platform: str, step: _Step) -> list[_Step]:
    """What to take of an index: manifests of the platform asked for, and of its indexes those that
    are for it, or do not say. Attestations (unknown/unknown) are of no platform."""
    children = [one for one in index.children if one.descriptor.media_type in MANIFEST_TYPES]
    telling = [one for one in children if _is_real(one) or _is_open_index(one)]
    if platform == ALL_PLATFORMS or (step.is_for_it and not telling):
        chosen = telling or children
    else:
        chosen = [one for one in telling if _is(one.platform, platform) or _is_open_index(one)]
    return [
        _Step(one.descriptor.digest, step.depth + 1, step.is_for_it or _is(one.platform, platform))
        for one in chosen
    ]


def _is_real(child: Child) -> bool:
    return child.platform is not None and child.platform.os != "unknown"


def _is_open_index(child: Child) -> bool:
    return child.platform is None and child.descriptor.media_type in INDEX_TYPES


def _is(platform: Platform | None, wanted: str) -> bool:
    """`linux/arm64` means every variant of it."""
    return platform is not None and (
        str(platform) == wanted or f"{platform.os}/{platform.architecture}" == wanted
    )
