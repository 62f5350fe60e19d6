"""What is here: images, and the content that they need, in pages of bounded memory.

A page comes after a marker, which is the key of the last entry of the page before. What stays while
all pages are asked for is in one of them, once; what comes or goes meanwhile may be or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Protocol

from ..frozen import dataclass
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


@dataclass(frozen=True, slots=True)
class ImageUse:
    """An image without its sizes, which are looked for one by one. `noted_at`: when it was last
    said to be here, in seconds since the epoch; of what was never pulled, how old it is."""

    reference: ImageReference
    used_at: float
    pulls: int
    noted_at: float


@dataclass(frozen=True, slots=True)
class Piece:
    """What an image is made of. `size` None: it is not here. `media_type` is "" of a blob."""

    digest: Digest
    size: int | None
    media_type: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes with an image, where it and some others are to go.

    `pieces`: what no image that stays needs, and `shared`: what one does. What needs others comes
    before what is needed, as a rule. `unshown`: of both, what no image of its repository that stays
    needs: the repository shows it no more.
    """

    image: ImageReference
    pieces: Sequence[Piece]
    shared: Sequence[Piece]
    unshown: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Leaving:
    """Images that are to go, by name (str of an ImageReference); more may be added. `unneeded`:
    what a catalogue remembers of what it has found out for them: numbers of content, by
    repository."""

    names: set[str]
    unneeded: dict[str, set[int]] = field(default_factory=dict)


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

    async def uses(self, after: str, limit: int) -> Sequence[ImageUse]:
        """All images, as `images`, at a fraction of the price."""

    async def image(self, reference: ImageReference) -> ImageEntry | None:
        """This one."""

    async def pieces(self, reference: ImageReference) -> Sequence[Piece]:
        """What it is made of, here or not, as far as the manifests are here: each once, the image's
        manifest or index first."""

    async def needed_by(self, digest: Digest) -> Sequence[str]:
        """Names of some of the images that need this content, NAMED at most, in their order."""

    async def removal(self, reference: ImageReference, leaving: Leaving) -> Removal | None:
        """What would go with this image, if all that are leaving go, and it is one of them. None:
        there is no such image."""


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
class Unshown:
    """The repository shows this digest no more: it has no image without a tag of this name."""

    repository: Repository
    digest: Digest


@dataclass(frozen=True, slots=True)
class Pulled:
    """So many pulls, the last one `at` (seconds since the epoch). Of a digest that this repository
    has not shown before, if it is a manifest that is here, this makes an image. Of an unknown tag
    it is nothing."""

    repository: Repository
    reference: Digest | str
    count: int
    at: float


Change = Kept | Removed | Tagged | Unshown | Pulled


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
