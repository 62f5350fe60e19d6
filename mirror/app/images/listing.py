"""Images that are here, in any order, in pages of bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

from ...config import Config, RegistryConfig
from ...contracts.catalogue import LONGEST_PAGE, ImageEntry, ImageUse
from ...contracts.images import (
    CachedImage,
    ImageDetail,
    ImagePage,
    ImagePiece,
    Sort,
    UnknownImage,
)
from ...contracts.tags import TagRecord, TagStoreError
from ...oci import referrers
from ...oci.digest import Digest
from ...oci.errors import BadRequest, RegistryError
from ...oci.manifests import INDEX_TYPES
from ...oci.patterns import ImagePattern
from ...oci.reference import ImageReference, parse_image
from ...threads import read_aside
from ..policy import freshness_of
from ..resources import Resources
from .keeping import Keeping, Pinning
from .platforms import manifest_of, platform_of, platforms_of

One = TypeVar("One", ImageEntry, ImageUse)

_PAGE = 500  # images whose sizes are looked for in one go
_PIECES = 1000  # of one image, in detail
_LATE = 5.0  # seconds that a check of a tag may be younger than the use that it was for


def read_pattern(text: str, config: Config) -> ImagePattern:
    """Raises UnknownImage."""
    try:
        return ImagePattern(text, config.default_registry)
    except BadRequest as error:
        raise UnknownImage(f"{text}: {error.message}", is_name=False) from None


def read_name(text: str, config: Config) -> ImageReference:
    """Raises UnknownImage."""
    try:
        return parse_image(text, config.default_registry)
    except BadRequest as error:
        raise UnknownImage(f"{text}: {error.message}", is_name=False) from None


class Listing:
    def __init__(self, opened: Resources, keeping: Keeping) -> None:
        self._opened = opened
        self._catalogue, self._store = opened.catalogue, opened.store
        self._keeping = keeping

    async def page(
        self, config: Config, pattern: str, sort: Sort, after: str, limit: int
    ) -> ImagePage:
        """See CachedImages.list."""
        limit = max(1, min(limit, LONGEST_PAGE))
        meant = read_pattern(pattern, config) if pattern else None
        if meant is not None and meant.image is not None:
            entry = await self._catalogue.image(meant.image)
            entries = [] if entry is None or after else [entry]
            return ImagePage([await self._told(config, each) for each in entries])
        if sort is Sort.NAME:
            entries = await self._by_name(meant, after, limit + 1)
        elif sort in (Sort.USED, Sort.PULLS):
            entries = await self._by_use(meant, sort, after, limit + 1)
        else:
            entries = await self._by_size(meant, sort, after, limit + 1)
        following = None
        if len(entries) > limit:
            entries = entries[:limit]
            last = entries[-1]
            name = str(last.reference)
            following = name if sort is Sort.NAME else f"{_value(last, sort):.17g} {name}"
        return ImagePage([await self._told(config, entry) for entry in entries], following)

    async def image(self, config: Config, name: str) -> ImageDetail:
        """See CachedImages.image."""
        image = read_name(name, config)
        entry = await self._catalogue.image(image)
        if entry is None:
            raise UnknownImage(f"{image.familiar} is not here")
        pieces = [each async for each in self._pieces(entry)]
        made_for = (await platforms_of(self._store, entry.digest)).made_for
        return ImageDetail(await self._told(config, entry), made_for, pieces[:_PIECES])

    async def _by_name(
        self, meant: ImagePattern | None, after: str, limit: int
    ) -> list[ImageEntry]:
        if meant is None:
            return list(await self._catalogue.images(after, limit))
        found: list[ImageEntry] = []
        async for use in self.uses(meant, after):
            entry = await self._catalogue.image(use.reference)
            if entry is not None:
                found.append(entry)
            if len(found) == limit:
                break
        return found

    async def _by_use(
        self, meant: ImagePattern | None, sort: Sort, after: str, limit: int
    ) -> list[ImageEntry]:
        behind = _marker(after)
        found: list[ImageUse] = []
        async for use in self.uses(meant):
            if behind is None or _key(use, sort) > behind:
                found.append(use)
            if len(found) >= 2 * limit:
                found = _first(found, sort, limit)
        entries = [await self._catalogue.image(use.reference) for use in _first(found, sort, limit)]
        return [entry for entry in entries if entry is not None]

    async def _by_size(
        self, meant: ImagePattern | None, sort: Sort, after: str, limit: int
    ) -> list[ImageEntry]:
        behind = _marker(after)
        found: list[ImageEntry] = []
        last = ""
        while page := await self._catalogue.images(last, _PAGE):
            last = str(page[-1].reference)
            found += [
                entry
                for entry in page
                if (meant is None or meant.match(entry.reference))
                and (behind is None or _key(entry, sort) > behind)
            ]
            found = _first(found, sort, limit)
        return found

    async def uses(self, meant: ImagePattern | None, after: str = "") -> AsyncIterator[ImageUse]:
        """All that the pattern means, in the order of their names."""
        while page := await self._catalogue.uses(after, LONGEST_PAGE):
            after = str(page[-1].reference)
            for use in page:
                if meant is None or meant.match(use.reference):
                    yield use

    async def _told(self, config: Config, entry: ImageEntry) -> CachedImage:
        image = entry.reference
        record, pinning = None, Pinning()
        if isinstance(image.reference, str):
            try:
                record = await self._opened.tags.get(image.repository, image.reference)
                pinning = await self._keeping.of(image)
            except TagStoreError:  # it is said without
                pass
        is_stale = not pinning.by and self._is_stale(config, entry, record)
        digest = pinning.digest or entry.digest
        return CachedImage(
            image=image.familiar,
            name=str(image),
            digest=str(digest),
            platforms=(await platforms_of(self._store, digest)).here,
            size=entry.size,
            own=entry.own,
            checked_at=None if record is None else record.checked_at,
            used_at=entry.used_at or None,
            pulls=entry.pulls,
            missing=len(entry.missing),
            is_stale=is_stale,
            pinned=pinning.by,
            kept=pinning.kept,
            state=_state(entry, is_stale, pinning),
        )

    def _is_stale(self, config: Config, entry: ImageEntry, record: TagRecord | None) -> bool:
        image = entry.reference
        if record is None or isinstance(image.reference, Digest) or config.offline:
            return False
        registry = config.registries.get(image.repository.registry, RegistryConfig(endpoints=()))
        periods = freshness_of(registry, config.offline).of(image.repository, image.reference)
        age = entry.used_at - record.checked_at
        return not periods.immutable and age > (
            periods.ttl + periods.stale_while_revalidate + _LATE
        )

    async def _pieces(self, entry: ImageEntry) -> AsyncIterator[ImagePiece]:
        """In the order of a pull: each manifest, and then its blobs; what refers to them last."""
        waiting: list[tuple[Digest, str, str, int | None]] = [(entry.digest, "", "", None)]
        met, subjects = {entry.digest}, list[Digest]()
        while waiting and len(met) < 4 * _PIECES:
            digest, platform, media_type, size = waiting.pop()
            manifest = await manifest_of(self._store, digest)
            if manifest is None:
                role = "index" if media_type in INDEX_TYPES else "manifest"
                yield await self._piece(entry, role, digest, media_type, size, platform)
                continue
            subjects.append(digest)
            if not manifest.is_index:
                platform = platform or await platform_of(self._store, manifest)
            role = "index" if manifest.is_index else "manifest"
            yield await self._piece(entry, role, digest, manifest.media_type, size, platform)
            for blob in manifest.blobs:
                if blob.digest not in met:
                    met.add(blob.digest)
                    role = "config" if blob == manifest.config else "layer"
                    yield await self._piece(
                        entry, role, blob.digest, blob.media_type, blob.size, platform
                    )
            for child in reversed(manifest.children):
                below = child.descriptor
                if below.digest not in met:
                    met.add(below.digest)
                    name = "" if child.platform is None else str(child.platform)
                    waiting.append((below.digest, name, below.media_type, below.size))
        for subject in subjects:
            kept = await self._opened.shared.referrers.get(entry.reference.repository, subject)
            for artifact in () if kept is None else await named(kept.data):
                yield await self._piece(entry, "artifact", artifact, "", None, "")

    async def _piece(
        self,
        entry: ImageEntry,
        role: str,
        digest: Digest,
        media_type: str,
        size: int | None,
        platform: str,
    ) -> ImagePiece:
        here = self._store.size(digest)
        others = await self._catalogue.needed_by(digest) if here is not None else ()
        own = str(entry.reference)
        shown = "" if platform.startswith("unknown") else platform
        return ImagePiece(
            role,
            str(digest),
            media_type,
            here if here is not None else size or 0,
            shown,
            here is not None,
            tuple(name for name in others if name != own),
        )


async def named(data: bytes) -> Sequence[Digest]:
    """The manifests of a list of referrers."""
    try:
        return await read_aside(referrers.named, data)
    except (RegistryError, ValueError, KeyError, TypeError):  # by another version, or damaged
        return ()


def _state(entry: ImageEntry, is_stale: bool, pinning: Pinning) -> str:
    words = []
    if entry.digest in entry.missing:
        words.append("manifest missing")
    elif entry.missing:
        count = len(entry.missing)
        words.append(f"{count} {'layer' if count == 1 else 'layers'} missing")
    elif not is_stale:
        words.append("whole")
    if is_stale:
        words.append("stale")
    to = ""
    if pinning.digest not in (None, entry.digest):
        to = f" to {str(pinning.digest).partition(':')[2][:12]}"
    if pinning.by == "command":
        words.append(f"pinned{to} until unpin")
    elif pinning.by:
        words.append(f"pinned{to} by the configuration")
    if pinning.kept and pinning.by != "command":
        words.append("never evicted")
    return ", ".join(words)


def _value(one: ImageEntry | ImageUse, sort: Sort) -> float:
    if sort is Sort.USED:
        return one.used_at
    if sort is Sort.PULLS or isinstance(one, ImageUse):
        return one.pulls
    return one.size if sort is Sort.SIZE else one.own


def _key(one: ImageEntry | ImageUse, sort: Sort) -> tuple[float, str]:
    return -_value(one, sort), str(one.reference)


def _first(found: Iterable[One], sort: Sort, count: int) -> list[One]:
    return heapq.nsmallest(count, found, key=lambda one: _key(one, sort))


def _marker(after: str) -> tuple[float, str] | None:
    """Raises UnknownImage for what no page gave."""
    if not after:
        return None
    value, _, name = after.partition(" ")
    try:
        return -float(value), name
    except ValueError:
        raise UnknownImage(f"{after!r} is no marker of a page", is_name=False) from None
