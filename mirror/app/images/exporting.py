"""Images as an OCI image layout in a tar, out of what is here: each blob once, bytes unaltered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from ...config import Config
from ...contracts.images import ExportWanted, UnknownImage
from ...contracts.tags import TagStoreError
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.image_layout import INDEX, LAYOUT, LAYOUT_FILE, Top, blob_path, index_of, stand_in
from ...oci.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MAX_MANIFEST,
    OCI_INDEX,
    Child,
    Manifest,
    media_type_of,
)
from ...oci.reference import ImageReference
from ...oci.tar import BLOCK, END, file_header
from ...pullthrough.images import ALL_PLATFORMS
from ...threads import aside
from ..resources import Resources
from .keeping import Keeping
from .listing import read_name
from .platforms import manifest_of

_SLICE = 1 << 20
_MOST = 1_000_000  # pieces of all images
_DEEPEST = 8
_NAMED = 5  # pieces that are missing, which are told


@dataclass(slots=True)
class _Plan:
    """`pieces` with their sizes: manifests before what they need. `made`: those that are not of
    the store. `missing`, in words."""

    tops: list[Top] = field(default_factory=list)
    made: dict[Digest, bytes] = field(default_factory=dict)
    pieces: dict[Digest, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class Exporting:
    def __init__(self, opened: Resources, keeping: Keeping) -> None:
        self._opened = opened
        self._store = opened.store
        self._keeping = keeping

    async def run(self, config: Config, wanted: ExportWanted) -> AsyncGenerator[bytes, None]:
        """See CachedImages.export."""
        plan = _Plan()
        for text in dict.fromkeys(wanted.images):
            await self._add(plan, read_name(text, config), wanted.platforms)
        if plan.missing:
            more = len(plan.missing) - _NAMED
            told = [*plan.missing[:_NAMED], *([f"and {more} more"] if more > 0 else [])]
            raise UnknownImage("not all of it is here: " + "; ".join(told))
        index = index_of(plan.tops)
        made = [(blob_path(digest), data) for digest, data in plan.made.items()]
        for name, data in ((LAYOUT, LAYOUT_FILE), (INDEX, index), *made):
            yield file_header(name, len(data)) + data + bytes(-len(data) % BLOCK)
        for digest, size in plan.pieces.items():
            async for chunk in self._content(digest, size):
                yield chunk
        yield END

    async def _add(self, plan: _Plan, image: ImageReference, platforms: Sequence[str]) -> None:
        digest = await self._digest(image)
        data = await self._store.read(digest, MAX_MANIFEST) if digest is not None else None
        if digest is None or data is None:
            plan.missing.append(f"{image.familiar} is not here")
            return
        descriptor = Descriptor(await aside(media_type_of, data), digest, len(data))
        if descriptor.media_type in (DOCKER_MANIFEST, DOCKER_LIST):
            await self._add_stand_in(plan, image, descriptor, platforms)
        plan.tops.append(Top(descriptor, str(image)))
        found = await self._take(plan, image, digest, platforms, 0)
        if not found:
            plan.missing.append(f"{image.familiar} is not here for {', '.join(platforms)}")

    async def _add_stand_in(
        self, plan: _Plan, image: ImageReference, top: Descriptor, platforms: Sequence[str]
    ) -> None:
        manifest = await manifest_of(self._store, top.digest)
        children = [Child(top, None)]
        if manifest is not None and manifest.is_index:
            children = [child for child in manifest.children if _is_meant(child, platforms)]
        data = stand_in(children)
        digest = Digest.of(data)
        plan.made[digest] = data
        plan.tops.append(Top(Descriptor(OCI_INDEX, digest, len(data)), str(image), top.digest))

    async def _take(
        self,
        plan: _Plan,
        image: ImageReference,
        digest: Digest,
        platforms: Sequence[str],
        depth: int,
    ) -> bool:
        """Whether there is a manifest for one of the platforms."""
        manifest = await manifest_of(self._store, digest)
        size = self._store.size(digest)
        if manifest is None or size is None or depth > _DEEPEST or len(plan.pieces) > _MOST:
            plan.missing.append(f"manifest {digest} of {image.familiar}")
            return True
        plan.pieces[digest] = size
        if not manifest.is_index:
            self._take_blobs(plan, image, manifest)
            return True
        found = False
        for child in manifest.children:
            below = child.descriptor.digest
            is_open = child.descriptor.media_type in INDEX_TYPES and child.platform is None
            if _is_meant(child, platforms) or (is_open and self._store.size(below) is not None):
                found |= await self._take(plan, image, below, platforms, depth + 1)
        for child in manifest.children:
            if _is_of_none(child):  # an attestation: with it, if all of it is here
                await self._take_whole(plan, image, child.descriptor.digest)
        return found

    async def _take_whole(self, plan: _Plan, image: ImageReference, digest: Digest) -> None:
        trial = _Plan()
        manifest = await manifest_of(self._store, digest)
        if manifest is None or manifest.is_index:
            return
        trial.pieces[digest] = self._store.size(digest) or 0
        self._take_blobs(trial, image, manifest)
        if not trial.missing:
            plan.pieces |= trial.pieces

    def _take_blobs(self, plan: _Plan, image: ImageReference, manifest: Manifest) -> None:
        for blob in manifest.blobs:
            size = self._store.size(blob.digest)
            if size is None:
                role = "config" if blob == manifest.config else "layer"
                plan.missing.append(f"{role} {blob.digest} of {image.familiar}")
            else:
                plan.pieces[blob.digest] = size
                self._store.touch(blob.digest)

    async def _digest(self, image: ImageReference) -> Digest | None:
        """What a pull of it would be given, were no registry asked."""
        if isinstance(image.reference, Digest):
            return image.reference
        with contextlib.suppress(TagStoreError):
            pinned = (await self._keeping.of(image)).digest
            if pinned is not None:
                return pinned
            record = await self._opened.tags.get(image.repository, image.reference)
            if record is not None:
                return None if record.descriptor is None else record.descriptor.digest
        entry = await self._opened.catalogue.image(image)
        return None if entry is None else entry.digest

    async def _content(self, digest: Digest, size: int) -> AsyncGenerator[bytes, None]:
        content = await self._store.open(digest)
        if content is None:
            raise UnknownImage(f"{digest} was evicted while it was exported")
        try:
            yield file_header(blob_path(digest), size)
            at = 0
            while at < size:
                piece = await aside(content.pread, min(_SLICE, size - at), at)
                if not piece:
                    raise UnknownImage(f"{digest} is shorter than it was")
                at += len(piece)
                yield piece
            yield bytes(-size % BLOCK)
        finally:
            content.close()


def _is_of_none(child: Child) -> bool:
    return child.platform is not None and child.platform.os == "unknown"


def _is_meant(child: Child, platforms: Sequence[str]) -> bool:
    """`linux/arm64` means every variant of it."""
    if _is_of_none(child):
        return False
    if ALL_PLATFORMS in platforms:
        return True
    if child.platform is None:
        return False
    short = f"{child.platform.os}/{child.platform.architecture}"
    return str(child.platform) in platforms or short in platforms
