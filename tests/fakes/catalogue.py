"""A catalogue in memory, by brute force: each page looks at everything. What others are measured
against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mirror.contracts.catalogue import (
    LONGEST_PAGE,
    NAMED,
    Change,
    ContentEntry,
    ImageEntry,
    ImageUse,
    Kept,
    Leaving,
    Piece,
    Pulled,
    Removal,
    Removed,
    RepositoryEntry,
    Tagged,
    Unshown,
)
from mirror.oci.digest import Digest
from mirror.oci.manifests import INDEX_TYPES
from mirror.oci.reference import ImageReference, Repository


@dataclass
class _Image:
    digest: Digest
    used_at: float = 0.0
    pulls: int = 0


@dataclass
class MemoryCatalogue:
    """Catalogue and CatalogueNotes."""

    here: dict[Digest, Kept] = field(default_factory=dict)
    known: dict[ImageReference, _Image] = field(default_factory=dict)

    losses: int = 1
    found_again: int = 0

    async def note(self, changes: Sequence[Change]) -> bool:
        for change in changes:
            match change:
                case Kept():
                    before = self.here.get(change.digest)
                    if before is not None and not change.media_type:
                        change = replace(
                            change, media_type=before.media_type, refers_to=before.refers_to
                        )
                    self.here[change.digest] = change
                    if change.media_type and change.repository is not None:
                        self._show(ImageReference(change.repository, change.digest), change.digest)
                case Removed():
                    self.here.pop(change.digest, None)
                    for image in [i for i in self.known if i.reference == change.digest]:
                        del self.known[image]
                case Tagged():
                    image = ImageReference(change.repository, change.tag)
                    if change.digest is None:
                        self.known.pop(image, None)
                    else:
                        self._show(image, change.digest)
                case Unshown():
                    self.known.pop(ImageReference(change.repository, change.digest), None)
                case Pulled():
                    image = ImageReference(change.repository, change.reference)
                    if isinstance(change.reference, Digest):
                        kept = self.here.get(change.reference)
                        if kept is not None and kept.media_type:
                            self._show(image, change.reference)
                    if image in self.known:
                        entry = self.known[image]
                        entry.pulls += change.count
                        entry.used_at = max(entry.used_at, change.at)
        return True

    async def forget_older(self, than: float) -> bool:
        old = [kept.digest for kept in self.here.values() if kept.at < than]
        return await self.note([Removed(digest) for digest in old])

    async def lose(self) -> int | None:
        self.losses += 1
        return self.losses

    async def lost(self) -> int | None:
        return None if self.losses == self.found_again else self.losses

    async def made_good(self, number: int) -> None:
        self.found_again = number

    async def repositories(self, after: str, limit: int) -> Sequence[RepositoryEntry]:
        groups: dict[str, list[ImageReference]] = {}
        for image in self._images():
            groups.setdefault(str(image.repository), []).append(image)
        names = [name for name in sorted(groups) if name > after]
        return [
            RepositoryEntry(
                groups[name][0].repository,
                len(groups[name]),
                sum(self.known[image].pulls for image in groups[name]),
                max(self.known[image].used_at for image in groups[name]),
            )
            for name in names[: min(limit, LONGEST_PAGE)]
        ]

    async def images(
        self, after: str, limit: int, repository: Repository | None = None
    ) -> Sequence[ImageEntry]:
        wanted = sorted(
            (
                image
                for image in self._images()
                if str(image) > after and repository in (None, image.repository)
            ),
            key=str,
        )
        return [self._entry(image) for image in wanted[: min(limit, LONGEST_PAGE)]]

    async def content(self, after: Digest | None, limit: int) -> Sequence[ContentEntry]:
        wanted = sorted(self.here, key=_order)
        if after is not None:
            wanted = [digest for digest in wanted if _order(digest) > _order(after)]
        return [
            ContentEntry(
                digest,
                self.here[digest].size,
                self.here[digest].media_type,
                sorted(str(image) for image in self._images() if digest in self._closure(image))[
                    :NAMED
                ],
            )
            for digest in wanted[: min(limit, LONGEST_PAGE)]
        ]

    async def uses(self, after: str, limit: int) -> Sequence[ImageUse]:
        return [
            ImageUse(entry.reference, entry.used_at, entry.pulls, 0.0)
            for entry in await self.images(after, limit)
        ]

    async def image(self, reference: ImageReference) -> ImageEntry | None:
        return self._entry(reference) if reference in set(self._images()) else None

    async def pieces(self, reference: ImageReference) -> Sequence[Piece]:
        return [self._piece(digest) for digest in self._all_below(reference)]

    async def needed_by(self, digest: Digest) -> Sequence[str]:
        found = sorted(str(image) for image in self._images() if digest in self._all_below(image))
        return found[:NAMED]

    async def removal(self, reference: ImageReference, leaving: Leaving) -> Removal | None:
        if reference not in self.known:
            return None
        stay = [image for image in self._images() if str(image) not in leaving.names]
        of_all = {digest for image in stay for digest in self._all_below(image)}
        of_one = {
            digest
            for image in stay
            if image.repository == reference.repository
            for digest in self._all_below(image)
        }
        below = self._all_below(reference)
        return Removal(
            reference,
            [self._piece(digest) for digest in below if digest not in of_all],
            [self._piece(digest) for digest in below if digest in of_all],
            [self._piece(digest) for digest in below if digest not in of_one],
        )

    async def close(self) -> None: ...

    def _all_below(self, image: ImageReference) -> list[Digest]:
        """What is here of it, and what is not."""
        here = self._closure(image)
        named = {child for digest in here for child in self.here[digest].refers_to}
        return sorted(here | named | {self.known[image].digest}, key=_order)

    def _piece(self, digest: Digest) -> Piece:
        kept = self.here.get(digest)
        return (
            Piece(digest, None, "") if kept is None else Piece(digest, kept.size, kept.media_type)
        )

    def _show(self, image: ImageReference, digest: Digest) -> None:
        self.known.setdefault(image, _Image(digest)).digest = digest

    def _images(self) -> Iterable[ImageReference]:
        for image in self.known:
            if isinstance(image.reference, str) or not any(
                self._stands_for(other, image)
                for other in self.known
                if other.repository == image.repository
            ):
                yield image

    def _stands_for(self, other: ImageReference, image: ImageReference) -> bool:
        above, digest = self.known[other].digest, self.known[image].digest
        if above == digest:
            return isinstance(other.reference, str)
        return above in self.here and digest in self.here[above].refers_to

    def _closure(self, image: ImageReference) -> set[Digest]:
        """What is here of it."""
        found: set[Digest] = set()
        ahead = [self.known[image].digest]
        while ahead:
            digest = ahead.pop()
            if digest in self.here and digest not in found:
                found.add(digest)
                ahead += self.here[digest].refers_to
        return found

    def _entry(self, image: ImageReference) -> ImageEntry:
        known = self.known[image]
        own = self._closure(image)
        size = sum(self.here[digest].size for digest in own)
        missing = set() if own else {known.digest}
        for digest in own:
            kept = self.here[digest]
            lacking = {child for child in kept.refers_to if child not in self.here}
            if kept.media_type not in INDEX_TYPES or lacking == set(kept.refers_to):
                missing |= lacking
        for other in self._images():
            if other != image:
                own = own - self._closure(other)
        return ImageEntry(
            image,
            known.digest,
            size,
            sum(self.here[digest].size for digest in own),
            known.used_at,
            known.pulls,
            tuple(sorted(missing, key=_order)),
        )


def _order(digest: Digest) -> bytes:
    return bytes.fromhex(digest.hex)
