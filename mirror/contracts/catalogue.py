"""What is here: images, and the content that they need, in pages of bounded memory.

A page comes after a marker, which is the key of the last entry of the page before. What stays while
all pages are asked for is in one of them, once; what comes or goes meanwhile may be or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..oci.digest import Digest
from ..oci.reference import ImageReference, Repository

# What is read.


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """`used_at` in seconds since the epoch, 0 where no pull was noted. See ImageEntry."""

    repository: Repository
    images: int
    pulls: int
    used_at: float


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """A tag; or a manifest without a tag that no other manifest of the repository needs. An index
    is one image, with all of its platforms that are here.

    `size`: bytes that are here of it. `own`: those of them that no other image needs, which is what
    would go with it. `pulls`: successful answers to this very tag or digest; `used_at`: when the
    last one was (seconds since the epoch, 0 for never). `missing`: what it lacks, in the order of
    hex: its manifest; blobs of the manifests that are here; all manifests of an index, if not one
    is here, but not the others, as a client asks for one platform.
    """

    reference: ImageReference
    digest: Digest
    size: int
    own: int
    used_at: float
    pulls: int
    missing: Sequence[Digest]

    @property
    def shared(self) -> int:
        return self.size - self.own


@dataclass(frozen=True, slots=True)
class ContentEntry:
    """`media_type` is "" of a blob. `needed_by`: some of the images that need it, NAMED at most."""

    digest: Digest
    size: int
    media_type: str
    needed_by: Sequence[str]


NAMED = 16
"""Images that a piece of content names. A popular layer is needed by thousands."""

LONGEST_PAGE = 1000
"""Entries: of a longer page, only these are given."""


class Catalogue(Protocol):
    """Raises CatalogueUnavailable where it cannot say. A page may be shorter than `limit` only if
    it is the last one, or `limit` is above LONGEST_PAGE."""

    async def repositories(self, after: str, limit: int) -> Sequence[RepositoryEntry]:
        """In the order of their names, after this one (str of a Repository; "" for the first)."""

    async def images(
        self, after: str, limit: int, repository: Repository | None = None
    ) -> Sequence[ImageEntry]:
        """Of this repository, or of all, in the order of their names, after this one (str of an
        ImageReference; "" for the first)."""

    async def content(self, after: Digest | None, limit: int) -> Sequence[ContentEntry]:
        """In the order of their hex, after this one."""


class CatalogueUnavailable(Exception):
    """The catalogue cannot be read. Never a reason to fail a pull."""


# What is noted.


@dataclass(frozen=True, slots=True)
class Kept:
    """This content is here, as of `at`. Of a manifest, `media_type` is not "", and `repository`,
    where it is known, has an image of it. With "" it may be one all the same, which leaves what is
    known of it."""

    digest: Digest
    size: int
    media_type: str
    refers_to: Sequence[Digest]
    repository: Repository | None
    at: float


@dataclass(frozen=True, slots=True)
class Removed:
    """This content is here no more. Images without a tag go with their manifest."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tag points there, as of `at`; to None: it is gone."""

    repository: Repository
    tag: str
    digest: Digest | None
    at: float


@dataclass(frozen=True, slots=True)
class Pulled:
    """So many pulls, the last one `at` (seconds since the epoch). Of a digest that this repository
    has not shown before, if it is a manifest that is here, this makes an image. Of an unknown tag
    it is nothing."""

    repository: Repository
    reference: Digest | str
    count: int
    at: float


Change = Kept | Removed | Tagged | Pulled


class CatalogueNotes(Protocol):
    """Kept up by several processes at once. Bounded; it outlives the process. It is a memory, not
    the truth: what is lost comes back by noting all that is in the store again."""

    async def note(self, changes: Sequence[Change]) -> bool:
        """All of them, in this order; or none, and False. Raises nothing."""

    async def forget_older(self, than: float) -> bool:
        """Forgets content that was last noted before then: it was removed, and nothing said so.
        Whether it could."""

    async def lose(self) -> int | None:
        """Notes that something happened that is not noted here; the number of this loss. None:
        that cannot be noted either."""

    async def lost(self) -> int | None:
        """The number of the latest loss; None where all was made good. A new catalogue lacks
        everything. Raises CatalogueUnavailable."""

    async def made_good(self, number: int) -> None:
        """Notes that all up to this loss was found again."""

    async def close(self) -> None: ...
