"""Images out of a tar that holds an OCI image layout, straight into the store.

Every blob is proven by its digest as it comes, in any order, and what the index does not lead to is
removed in the end. Content that was here before is proven from the tar all the same: that somebody
can name a digest does not show them what it is. Tags are written last: until then, nothing that was
imported can be pulled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import apsw
import structlog

from ...config import Config, RegistryConfig
from ...contracts.content import Partial, StoreFull
from ...contracts.events import ContentCommitted, TagMoved
from ...contracts.images import ArchiveRefused, ImagesUnavailable, Imported, UnknownImage
from ...contracts.tags import TagRecord, TagStoreError
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Untrustworthy, quoted
from ...oci.image_layout import (
    DOCKER_ARCHIVE,
    INDEX,
    LAYOUT,
    Top,
    blob_of,
    read_index,
    read_layout,
)
from ...oci.manifests import MANIFEST_TYPES, MAX_MANIFEST, Manifest, read_manifest
from ...oci.reference import ImageReference
from ...oci.tar import Header, TarInvalid
from ...pullthrough.recently_served import needs
from ...threads import aside, read_aside
from ..archive import Archive
from ..policy import freshness_of
from ..resources import Resources
from .listing import read_name
from .removing import remove_unneeded

log = structlog.get_logger()

_MOST_MANIFESTS = 20_000  # of one image
_MOST_PIECES = 1_000_000  # that the manifests of all images name, each as often as it is named
_DEEPEST = 8
_SMALL = 64 << 10  # bytes of oci-layout


@dataclass(slots=True)
class _Image:
    """`manifests` with what each says, and not their bytes: thousands of names may have one
    manifest of 4 MiB. `blobs` with their sizes."""

    reference: ImageReference
    descriptor: Descriptor
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    manifest_sizes: dict[Digest, int] = field(default_factory=dict)
    blobs: dict[Digest, int] = field(default_factory=dict)

    @property
    def sizes(self) -> Mapping[Digest, int]:
        return self.manifest_sizes | self.blobs


@dataclass(slots=True)
class _Taken:
    """`sizes` of all that was proven, and `new` what was not here before. `read`: manifests, by
    digest and media type; `pieces`: how many these name, for each image."""

    sizes: dict[Digest, int] = field(default_factory=dict)
    new: set[Digest] = field(default_factory=set)
    index: bytes | None = None
    layout: bytes | None = None
    is_dockers: bool = False
    read: dict[tuple[Digest, str], Manifest] = field(default_factory=dict)
    pieces: int = 0


class Importing:
    """`begin_anew`: see Reloader."""

    def __init__(self, opened: Resources, begin_anew: Callable[[], Awaitable[None]]) -> None:
        self._opened = opened
        self._store = opened.store
        self._begin_anew = begin_anew
        self._one_at_a_time = asyncio.Lock()

    async def run(
        self, config: Config, chunks: AsyncIterator[bytes], name: str
    ) -> AsyncGenerator[Imported, None]:
        """See CachedImages.import_."""
        if name:
            read_name(name, config)
        if self._one_at_a_time.locked():
            raise ImagesUnavailable("another import is under way: try again when it has ended")
        async with self._one_at_a_time:
            taken = _Taken()
            try:
                images = await self._import(config, chunks, name, taken)
            except BaseException as error:
                await asyncio.shield(self._drop(taken.new))
                raise _refused(error) from error
            for image in images:
                sizes = image.sizes
                yield Imported(
                    image.reference.familiar,
                    str(image.reference),
                    str(image.descriptor.digest),
                    sum(sizes.values()),
                    sum(size for digest, size in sizes.items() if digest in taken.new),
                )

    async def _import(
        self, config: Config, chunks: AsyncIterator[bytes], name: str, taken: _Taken
    ) -> Sequence[_Image]:
        archive = Archive(chunks)
        async for header in archive.entries():
            await self._take(config, archive, header, taken)
        tops = await _tops(taken)
        images = [await self._image(taken, top, ref) for top, ref in _named(config, tops, name)]
        reached = {digest for image in images for digest in image.sizes}
        await self._drop(taken.new - reached)
        try:
            for image in images:
                await self._publish(config, image, taken)
        except BaseException:
            await asyncio.shield(self._take_back(images))
            raise
        await self._opened.listener.flush()
        await self._begin_anew()  # that something was missing is believed no more
        log.info("images_imported", images=[str(image.reference) for image in images])
        return images

    async def _take(self, config: Config, archive: Archive, header: Header, taken: _Taken) -> None:
        if header.name in (INDEX, LAYOUT) and header.kind == "file":
            before = taken.index if header.name == INDEX else taken.layout
            if before is not None:
                raise TarInvalid(f"it has two files {header.name}")
            if header.name == INDEX:
                taken.index = await archive.read(MAX_MANIFEST)
            else:
                taken.layout = await archive.read(_SMALL)
        elif (digest := blob_of(header.name)) is not None and header.kind == "file":
            if header.size > config.limits.blob:
                raise TarInvalid(f"{digest} has {header.size} bytes: limits.blob is the most")
            if digest in taken.sizes:
                raise TarInvalid(f"it has {digest} twice")
            await self._take_blob(archive, digest, header.size, taken)
        taken.is_dockers |= header.name == DOCKER_ARCHIVE

    async def _take_blob(self, archive: Archive, digest: Digest, size: int, taken: _Taken) -> None:
        content = await self._store.open(digest)
        if content is not None:
            content.close()
            hasher = digest.hasher()
            async for piece in archive.pieces():
                await aside(hasher.update, piece)
            if hasher.hexdigest() != digest.hex:
                raise Untrustworthy(f"its bytes of {digest} are others")
            taken.sizes[digest] = size
            return
        partial: Partial | None = await self._store.partial(digest)
        if partial is None:
            raise ImagesUnavailable(f"{digest} is just being written: try again")
        try:
            if not size:
                await _none_left(archive)
            else:
                await partial.announce(size)
            at = 0
            async for piece in archive.pieces():
                await partial.place(at, [piece])  # what is left of an import that was killed stays
                at += len(piece)
            if partial.offset != size:
                raise Untrustworthy(f"{digest} has not the {size} bytes that are said")
            taken.new.add(digest)
            await partial.commit()
        finally:
            await partial.discard()  # unless it was committed
        taken.sizes[digest] = size

    async def _image(self, taken: _Taken, top: Top, reference: ImageReference) -> _Image:
        """What the archive has of it. Raises Untrustworthy where that is not enough."""
        image = _Image(reference, top.descriptor)
        waiting = [(top.descriptor, 0)]
        runs = False
        while waiting:
            descriptor, depth = waiting.pop()
            digest = descriptor.digest
            if digest in image.manifests:
                continue
            manifest = await self._manifest(taken, descriptor)
            if manifest is None:
                raise Untrustworthy(f"it lacks the manifest {digest} of {reference.familiar}")
            size = taken.sizes[digest]
            if descriptor.size != size:
                raise Untrustworthy(f"{digest} has {size} bytes, not {descriptor.size}")
            image.manifests[digest] = manifest
            image.manifest_sizes[digest] = size
            taken.pieces += 1 + len(manifest.blobs) + len(manifest.children)
            if taken.pieces > _MOST_PIECES:
                raise Untrustworthy(f"its images have more than {_MOST_PIECES} pieces")
            if depth > _DEEPEST or len(image.manifests) > _MOST_MANIFESTS:
                raise Untrustworthy(f"{reference.familiar} has too many manifests in each other")
            if not manifest.is_index:
                self._blobs(taken, image, manifest)
                runs = True
            waiting += [
                (child.descriptor, depth + 1)
                for child in manifest.children
                if child.descriptor.media_type in MANIFEST_TYPES
                and child.descriptor.digest in taken.sizes
            ]
        if not runs:
            raise Untrustworthy(f"it lacks all manifests of {reference.familiar}")
        return image

    async def _manifest(self, taken: _Taken, descriptor: Descriptor) -> Manifest | None:
        digest, key = descriptor.digest, (descriptor.digest, descriptor.media_type)
        if key not in taken.read:
            if taken.sizes.get(digest, MAX_MANIFEST + 1) > MAX_MANIFEST:
                return None
            data = await self._store.look(digest, MAX_MANIFEST)
            if data is None:
                return None
            taken.read[key] = await read_aside(read_manifest, data, descriptor.media_type)
        return taken.read[key]

    def _blobs(self, taken: _Taken, image: _Image, manifest: Manifest) -> None:
        for blob in manifest.blobs:
            size = taken.sizes.get(blob.digest)
            if size is None:
                raise Untrustworthy(f"it lacks {blob.digest} of {image.reference.familiar}")
            if size != blob.size:
                raise Untrustworthy(f"{blob.digest} has {size} bytes, not {blob.size}")
            if self._store.size(blob.digest) is None:
                raise StoreFull
            image.blobs[blob.digest] = size

    async def _publish(self, config: Config, image: _Image, taken: _Taken) -> None:
        """Its repository shows it, and its tag points there."""
        opened, reference = self._opened, image.reference
        repository = reference.repository
        links = opened.links
        if repository.registry not in opened.process.registries:
            links = opened.other_links
        for digest, manifest in image.manifests.items():
            data = await self._store.look(digest, MAX_MANIFEST)
            if data is None:
                raise StoreFull
            # Again: now it is known what it needs.
            await self._store.put(digest, data, needs(manifest))
        await links.add(repository, list(image.sizes))
        events = opened.process.events
        for digest, size in image.blobs.items():
            if digest in taken.new:
                events.emit(ContentCommitted(digest, size, repository, (), "", ()))
        for digest, manifest in image.manifests.items():
            size = image.manifest_sizes[digest]
            events.emit(
                ContentCommitted(digest, size, repository, (), manifest.media_type, needs(manifest))
            )
        if isinstance(reference.reference, Digest):
            return
        registry = config.registries.get(repository.registry, RegistryConfig(endpoints=()))
        periods = freshness_of(registry, config.offline).of(repository, reference.reference)
        digest = image.descriptor.digest
        size = image.manifest_sizes[digest]
        descriptor = Descriptor(image.manifests[digest].media_type, digest, size)
        record = TagRecord(descriptor, opened.process.clock.wall())
        before = await opened.tags.get(repository, reference.reference)
        await opened.tags.put(repository, reference.reference, record, periods.keep_for)
        was = None if before is None or before.descriptor is None else before.descriptor.digest
        if was != descriptor.digest:
            events.emit(TagMoved(repository, reference.reference, was, descriptor.digest))

    async def _take_back(self, images: Sequence[_Image]) -> None:
        """None of their tags points anywhere: what they pointed to before is asked for again."""
        for image in images:
            repository, tag = image.reference.repository, image.reference.reference
            if isinstance(tag, str):
                with contextlib.suppress(TagStoreError):
                    await self._opened.tags.delete(repository, tag)

    async def _drop(self, digests: set[Digest]) -> None:
        with contextlib.suppress(OSError, apsw.Error):  # the oldest go first, some time
            await remove_unneeded(self._store, sorted(digests, key=str))


async def _none_left(archive: Archive) -> None:
    async for _ in archive.pieces():
        pass


async def _tops(taken: _Taken) -> Sequence[Top]:
    if taken.index is None or taken.layout is None:
        if taken.is_dockers:
            raise Untrustworthy(
                "it is a docker-archive, as docker save writes it: skopeo copy docker-archive:FILE "
                "oci-archive:NEW:NAME makes an OCI image layout of it"
            )
        raise Untrustworthy(f"it has no {LAYOUT} and {INDEX}: it is no OCI image layout")
    await read_aside(read_layout, taken.layout)
    tops = await read_aside(read_index, taken.index)
    digests = {top.descriptor.digest for top in tops}
    tops = [top for top in tops if top.stands_for not in digests]
    if not tops:
        raise Untrustworthy("it has no image")
    return tops


def _named(config: Config, tops: Sequence[Top], name: str) -> Sequence[tuple[Top, ImageReference]]:
    if name and len(tops) > 1:
        raise Untrustworthy(f"it has {len(tops)} images: --as names only one")
    found: dict[str, tuple[Top, ImageReference]] = {}
    for top in tops:
        if not (name or top.name):
            raise Untrustworthy(f"{top.descriptor.digest} in it has no name: give one by --as")
        try:
            reference = read_name(name or top.name, config)
        except UnknownImage as error:
            raise Untrustworthy(f"an image in it has a name of no use: {error}") from None
        registry = reference.repository.registry
        if registry not in config.registries and not config.allow_any_registry:
            raise Untrustworthy(
                f"{registry} is not mirrored here, so that nobody could pull "
                f"{reference.familiar}: add it to registries, or give another name by --as"
            )
        digest = reference.reference
        if isinstance(digest, Digest) and digest != top.descriptor.digest:
            raise Untrustworthy(f"{quoted(top.name)} names another digest than its own")
        if str(reference) in found and found[str(reference)][0].descriptor != top.descriptor:
            raise Untrustworthy(f"it has two images {reference.familiar}")
        found[str(reference)] = top, reference
    return list(found.values())


def _refused(error: BaseException) -> BaseException:
    if isinstance(error, RegistryError):
        return ArchiveRefused(f"the archive is not taken: {error.message}")
    if isinstance(error, TarInvalid):
        return ArchiveRefused(f"the archive is not taken: {error}")
    if isinstance(error, StoreFull):
        return ImagesUnavailable("the cache has no room for all of it: see storage.max_size")
    if isinstance(error, TagStoreError | OSError | apsw.Error):
        return ImagesUnavailable(f"it could not be imported: {error}")
    return error
