"""The images that a process holds: all that people do with them, behind one contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from ...config import Config, Mistake, digest_or_time, tagged_image
from ...contracts.catalogue import CatalogueUnavailable
from ...contracts.images import (
    ExportWanted,
    ImageDetail,
    ImagePage,
    ImagesUnavailable,
    Imported,
    PinnedTag,
    Purged,
    PurgeTotal,
    PurgeWanted,
    Sort,
    UnknownImage,
)
from ...contracts.tags import TagEvent, TagStoreError
from ...oci.digest import Digest
from ...oci.reference import ImageReference
from ...pullthrough.tags.pins import event_at, spoken
from ..resources import Resources
from .keeping import Keeping
from .listing import Listing, read_name
from .purging import Purging

if TYPE_CHECKING:
    from .exporting import Exporting
    from .importing import Importing


class HeldImages:
    """CachedImages. `config` gives the one that counts now; `begin_anew`: see Reloader."""

    def __init__(
        self,
        opened: Resources,
        keeping: Keeping,
        config: Callable[[], Config],
        begin_anew: Callable[[], Awaitable[None]],
    ) -> None:
        self._opened = opened
        self._keeping = keeping
        self._config = config
        self._listing = Listing(opened, keeping)

        async def noted() -> None:
            await opened.listener.flush()
            await begin_anew()

        self._noted = noted
        self._purging = Purging(opened, self._listing, keeping, noted)

    # Not before they are needed: with `tarfile` they take a megabyte.

    @cached_property
    def _exporting(self) -> Exporting:
        from .exporting import Exporting

        return Exporting(self._opened, self._keeping)

    @cached_property
    def _importing(self) -> Importing:
        from .importing import Importing

        return Importing(self._opened, self._noted)

    async def list(
        self, pattern: str = "", sort: Sort = Sort.NAME, after: str = "", limit: int = 100
    ) -> ImagePage:
        await self._opened.listener.flush()
        try:
            return await self._listing.page(self._config(), pattern, sort, after, limit)
        except CatalogueUnavailable as error:
            raise ImagesUnavailable(f"what is here cannot be said now: {error}") from error

    async def image(self, name: str) -> ImageDetail:
        await self._opened.listener.flush()
        try:
            return await self._listing.image(self._config(), name)
        except CatalogueUnavailable as error:
            raise ImagesUnavailable(f"what is here cannot be said now: {error}") from error

    def purge(self, wanted: PurgeWanted) -> AsyncGenerator[Purged | PurgeTotal, None]:
        return self._purging.run(self._config(), wanted)

    async def pin(self, name: str, to: str) -> PinnedTag:
        image, tag = self._tag(name)
        try:
            digest = await self._meant(image, tag, to)
            await self._opened.tags.freeze(image.repository, tag, digest)
        except (TagStoreError, CatalogueUnavailable) as error:
            raise _unavailable(error) from error
        await self._opened.store.pin(str(image), digest)
        return PinnedTag(image.familiar, str(image), str(digest))

    async def unpin(self, name: str) -> PinnedTag:
        image, tag = self._tag(name)
        try:
            digest = await self._opened.tags.frozen(image.repository, tag)
            was_frozen = await self._opened.tags.unfreeze(image.repository, tag)
            await self._keeping.let_go()
            still = await self._keeping.of(image)
        except (TagStoreError, CatalogueUnavailable) as error:
            raise _unavailable(error) from error
        if still.by == "configuration":
            raise UnknownImage(
                f"{image.familiar} is still frozen, by the configuration: see the key pin there"
            )
        if not was_frozen:
            raise UnknownImage(f"{image.familiar} was not frozen")
        return PinnedTag(image.familiar, str(image), str(digest or ""))

    def export(self, wanted: ExportWanted) -> AsyncGenerator[bytes, None]:
        return self._exporting.run(self._config(), wanted)

    def import_(
        self, archive: AsyncIterator[bytes], name: str = ""
    ) -> AsyncGenerator[Imported, None]:
        return self._importing.run(self._config(), archive, name)

    def _tag(self, text: str) -> tuple[ImageReference, str]:
        try:
            image = read_name(tagged_image(text), self._config())
        except Mistake as mistake:
            raise UnknownImage(f"{text}: {mistake}", is_name=False) from None
        if not isinstance(image.reference, str):
            raise UnknownImage(f"{text} names a digest, which stays what it is", is_name=False)
        return image, image.reference

    async def _meant(self, image: ImageReference, tag: str, to: str) -> Digest:
        tags = self._opened.tags
        if not to:
            record = await tags.get(image.repository, tag)
            if record is not None and record.descriptor is not None:
                return record.descriptor.digest
            entry = await self._opened.catalogue.image(image)
            if record is not None or entry is None:
                raise UnknownImage(
                    f"what {image.familiar} points to is not known here: write a digest or a date "
                    "behind it, or pull it first"
                )
            return entry.digest
        try:
            wanted = digest_or_time(to)
        except Mistake as mistake:
            raise UnknownImage(f"{to}: {mistake}", is_name=False) from None
        if isinstance(wanted, Digest):
            return wanted
        if wanted > datetime.fromtimestamp(self._opened.process.clock.wall(), UTC):
            raise UnknownImage(f"{spoken(wanted)} is yet to come", is_name=False)
        events = await tags.history(image.repository, tag)
        return _what_it_was(image, event_at(events, wanted), wanted)


def _what_it_was(image: ImageReference, event: TagEvent | None, at: datetime) -> Digest:
    if event is None:
        raise UnknownImage(f"what {image.familiar} was at {spoken(at)} is not known")
    if event.digest is None:
        raise UnknownImage(f"there was no {image.familiar} at {spoken(at)}")
    return event.digest


def _unavailable(error: TagStoreError | CatalogueUnavailable) -> ImagesUnavailable:
    if isinstance(error, TagStoreError):
        return ImagesUnavailable(f"the tag memory, which has the pins, does not answer: {error}")
    return ImagesUnavailable(str(error))
