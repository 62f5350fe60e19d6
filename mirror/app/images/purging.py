"""Images are taken out: what their tags point to, what is here of them, and what is known of them.

What an image needs that stays is left. Steps are small: others use the store meanwhile. A reader
goes on reading a file that is removed, and a download that is under way goes on, and what it brings
stays: it comes from the registry now. The second tier is left as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import apsw
import structlog

from ...config import Config
from ...contracts.catalogue import (
    CatalogueUnavailable,
    Change,
    Leaving,
    Piece,
    Removal,
    Removed,
    Tagged,
    Unshown,
)
from ...contracts.images import ImagesUnavailable, Purged, PurgeTotal, PurgeWanted
from ...contracts.tags import TagStoreError
from ...oci import referrers
from ...oci.digest import Digest
from ...oci.patterns import ImagePattern
from ...oci.reference import ImageReference, Repository
from ...threads import aside
from ..resources import Resources
from .keeping import Keeping
from .listing import Listing, named, read_pattern
from .removing import remove_unneeded

log = structlog.get_logger()

_PAUSE = 0.005  # seconds after each image, for those who pull
_NAMES = 1000  # of images that are skipped, which are told
_NOTED = 1000  # pieces that the catalogue is told of at once
_TRIED = 5000  # patterns, some ms, from one turn of all others to the next
_DEEPEST = 3  # signatures of signatures
_COSIGN = ("", ".sig", ".att", ".sbom")
"""What stands behind the fallback tag of a digest, at what refers to it: nothing
(distribution-spec, "Referrers Tag Schema"), or what cosign writes there."""


@dataclass(slots=True)
class _Chosen:
    """`images` by name, those that the purge means and what refers to them."""

    images: dict[str, ImageReference] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


class Purging:
    """`begin_anew`: see Reloader."""

    def __init__(
        self,
        opened: Resources,
        listing: Listing,
        keeping: Keeping,
        begin_anew: Callable[[], Awaitable[None]],
    ) -> None:
        self._opened = opened
        self._listing = listing
        self._keeping = keeping
        self._begin_anew = begin_anew
        self._one_at_a_time = asyncio.Lock()

    async def run(
        self, config: Config, wanted: PurgeWanted
    ) -> AsyncGenerator[Purged | PurgeTotal, None]:
        """See CachedImages.purge."""
        patterns = await aside(_read, wanted.patterns, config)
        async with self._one_at_a_time:
            try:
                await self._begin_anew()  # the catalogue knows all by now
                await self._keeping.let_go()
                chosen = await self._choose(patterns, wanted)
                work = self._try(chosen) if wanted.is_trial else self._purge(chosen, wanted)
                async for told in work:
                    yield told
            except (CatalogueUnavailable, TagStoreError, OSError, apsw.Error) as error:
                raise ImagesUnavailable(f"nothing more was purged: {error}") from error

    async def _choose(self, patterns: Sequence[ImagePattern], wanted: PurgeWanted) -> _Chosen:
        chosen, found = _Chosen(), set[str]()
        kept = await self._keeping.digests()
        exact: dict[ImageReference, list[str]] = {}
        loose = [pattern for pattern in patterns if pattern.image is None]
        for pattern in patterns:
            if pattern.image is not None:
                exact.setdefault(pattern.image, []).append(pattern.text)
        tried = 0
        async for use in self._listing.uses(None):
            image, name = use.reference, str(use.reference)
            means = [pattern.text for pattern in loose if pattern.match(image)]
            means += exact.get(image, ())
            tried += len(loose)
            if tried >= _TRIED:
                tried = 0
                await asyncio.sleep(0)
            found.update(means)
            if (patterns and not means) or not (patterns or wanted.used_before is not None):
                continue
            last = use.used_at or use.noted_at
            if wanted.used_before is not None and last >= wanted.used_before:
                continue
            stays = image.reference in kept or (await self._keeping.of(image)).stays
            if stays and not wanted.with_pinned:
                if len(chosen.skipped) < _NAMES:
                    chosen.skipped.append(name)
                continue
            chosen.images[name] = image
        chosen.unknown = [pattern.text for pattern in patterns if pattern.text not in found]
        for pattern in patterns if not wanted.is_trial else ():
            if pattern.text in chosen.unknown and pattern.image is not None:
                await self._forget_tag(pattern.image)  # that there is no such tag, too
        return chosen

    async def _each(self, chosen: _Chosen) -> AsyncIterator[Removal]:
        """What goes with each image, and with what refers to it and to nothing else."""
        leaving = Leaving(set(chosen.images))
        for image in chosen.images.values():
            waiting = [(image, 0)]
            while waiting:
                one, depth = waiting.pop()
                removal = await self._opened.catalogue.removal(one, leaving)
                if removal is None:
                    continue
                if depth < _DEEPEST:
                    referring = [
                        each
                        for each in await self._referring(one, removal)
                        if str(each) not in leaving.names
                    ]
                    leaving.names.update(map(str, referring))
                    waiting += [(each, depth + 1) for each in referring]
                yield removal

    async def _referring(self, image: ImageReference, removal: Removal) -> Sequence[ImageReference]:
        """Images of the repository that refer to what it will show no more."""
        found: list[ImageReference] = []
        repository = image.repository
        for piece in removal.unshown:
            if not piece.media_type:
                continue
            kept = await self._opened.shared.referrers.get(repository, piece.digest)
            digests = () if kept is None else await named(kept.data)
            tag = referrers.fallback_tag(piece.digest)
            tags = [f"{tag}{end}" for end in _COSIGN]
            found += [
                referring
                for referring in _images(repository, [*digests, *tags])
                if await self._opened.catalogue.image(referring) is not None
            ]
        return found

    async def _try(self, chosen: _Chosen) -> AsyncGenerator[Purged | PurgeTotal, None]:
        freed, shared = dict[Digest, int](), dict[Digest, int]()
        async for removal in self._each(chosen):
            new = {piece.digest: piece.size or 0 for piece in removal.pieces}
            size = sum(new[digest] for digest in new.keys() - freed.keys())
            freed |= new
            shared |= _sizes(removal.shared)
            if str(removal.image) in chosen.images:
                yield Purged(removal.image.familiar, str(removal.image), size)
        yield _total(chosen, sum(freed.values()), shared)

    async def _purge(
        self, chosen: _Chosen, wanted: PurgeWanted
    ) -> AsyncGenerator[Purged | PurgeTotal, None]:
        freed, shared = 0, dict[Digest, int]()
        gone: list[Digest] = []
        try:
            async for removal in self._each(chosen):
                removed = await self._remove(removal)
                gone += removed
                size = sum(removed.values())
                freed += size
                shared |= _sizes(removal.shared)
                if str(removal.image) in chosen.images:
                    yield Purged(removal.image.familiar, str(removal.image), size)
                await asyncio.sleep(_PAUSE)
        finally:
            await asyncio.shield(self._end(gone))
        total = _total(chosen, freed, shared)
        log.info("images_purged", images=total.images, bytes=freed, wanted=list(wanted.patterns))
        yield total

    async def _end(self, gone: Sequence[Digest]) -> None:
        """What was purged by now is forgotten. The catalogue knows it until then: another image
        that goes is found to need it too, and what that was is shown by its repository no more."""
        for start in range(0, len(gone), _NOTED):
            some = gone[start : start + _NOTED]
            # What was fetched again meanwhile is here.
            await self._note([Removed(one) for one in some if self._opened.store.size(one) is None])
        await self._begin_anew()

    async def _note(self, changes: Sequence[Change]) -> None:
        if not await self._opened.catalogue.note(changes):
            await self._opened.catalogue.lose()

    async def _remove(self, removal: Removal) -> Mapping[Digest, int]:
        """What was removed, and its sizes. What the tag points to is forgotten first: what is
        pulled from then on is asked of the registry."""
        opened, image = self._opened, removal.image
        links = opened.links
        if image.repository.registry not in opened.process.registries:
            links = opened.other_links
        await self._forget_tag(image)
        await opened.store.unpin(str(image))
        unshown = [piece.digest for piece in removal.unshown]
        manifests = [piece.digest for piece in removal.unshown if piece.media_type]
        await links.remove(image.repository, unshown)
        await opened.shared.referrers.remove(image.repository, manifests)
        removed = await remove_unneeded(opened.store, [piece.digest for piece in removal.pieces])
        if isinstance(image.reference, str):
            frozen = await opened.tags.frozen(image.repository, image.reference)
            if frozen is not None:  # it stays pinned, and is kept when it is here again
                await opened.store.pin(str(image), frozen)
        changes: list[Change] = [Unshown(image.repository, digest) for digest in unshown]
        if isinstance(image.reference, str):
            now = opened.process.clock.wall()
            changes.append(Tagged(image.repository, image.reference, None, now))
        await self._note(changes)
        return removed

    async def _forget_tag(self, image: ImageReference) -> None:
        if isinstance(image.reference, str):
            await self._opened.tags.delete(image.repository, image.reference)


def _read(texts: Sequence[str], config: Config) -> Sequence[ImagePattern]:
    """A list may have 10,000 of them, and one take 30 ms. Raises UnknownImage."""
    return [read_pattern(text, config) for text in texts]


def _images(repository: Repository, references: Sequence[Digest | str]) -> Sequence[ImageReference]:
    return [ImageReference(repository, reference) for reference in references]


def _sizes(pieces: Sequence[Piece]) -> dict[Digest, int]:
    return {piece.digest: piece.size or 0 for piece in pieces}


def _total(chosen: _Chosen, freed: int, shared: dict[Digest, int]) -> PurgeTotal:
    return PurgeTotal(
        len(chosen.images),
        freed,
        sum(shared.values()),
        tuple(chosen.skipped),
        tuple(chosen.unknown),
    )
