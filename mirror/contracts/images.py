"""Images that are cached, and what people do with them: list, look into, purge, pin, export,
import. One object of the process that holds the store does it; commands, the page and `/api/v1`
share it.

Times are seconds since the epoch, sizes are bytes. `image` is the name as people write it
(`redis:7`), `name` the whole one (`docker.io/library/redis:7`); of an image without a tag they end
in `@sha256:…`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any, Protocol

from ..frozen import dataclass

# What is read.


class Sort(StrEnum):
    """`name` goes up, all others go down: the largest, the latest used, the most pulled first."""

    NAME = "name"
    SIZE = "size"
    OWN = "own"
    USED = "used"
    PULLS = "pulls"


@dataclass(frozen=True, slots=True)
class CachedImage:
    """A tag, or a manifest without one (see ImageEntry of mirror/contracts/catalogue.py).

    `platforms`: those that are here, "linux/amd64"; none where that is not known, as of a chart.
    `size`: bytes that are here of it, `own`: those that would go with it, as no other image needs
    them. `checked_at`: when its registry last said what the tag points to; None of an image without
    a tag, and where that is forgotten. `used_at` None: not since the catalogue was begun.
    `missing`: pieces that it lacks. `is_stale`: it was last given out older than its TTL and
    stale_while_revalidate: its registry could not say what the tag points to.

    `pinned`: the tag stays what it is: "command" (`pin`, until `unpin`), "configuration" (the key
    `pin`) or "". `kept`: it is never evicted: pinned by command, or meant by `storage.pin`.
    `state`: all of that in words.
    """

    image: str
    name: str
    digest: str
    platforms: Sequence[str]
    size: int
    own: int
    checked_at: float | None
    used_at: float | None
    pulls: int
    missing: int = 0
    is_stale: bool = False
    pinned: str = ""
    kept: bool = False
    state: str = "whole"


@dataclass(frozen=True, slots=True)
class ImagePage:
    """`following`: the marker of the next page, None: there is no other."""

    images: Sequence[CachedImage]
    following: str | None = None


@dataclass(frozen=True, slots=True)
class ImagePiece:
    """`role`: index, manifest, config, layer or artifact (what refers to the image, as signatures
    do). `platform` "": of none, or not known. `is_here`: all of it is. `shared_with`: some of the
    other images that need it, 16 at most."""

    role: str
    digest: str
    media_type: str
    size: int
    platform: str
    is_here: bool
    shared_with: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ImageDetail:
    """`platforms`: all that it is made for, here or not. `pieces`: in the order of a pull, the
    first 1000."""

    image: CachedImage
    platforms: Sequence[str]
    pieces: Sequence[ImagePiece]


class UnknownImage(Exception):
    """There is no such image here, or that is no image's name; the message says so. `is_name`: it
    could be one."""

    def __init__(self, message: str, *, is_name: bool = True) -> None:
        super().__init__(message)
        self.is_name = is_name


class ImagesUnavailable(Exception):
    """What is here cannot be said, or done, now; the message says why."""


# Purging.


@dataclass(frozen=True, slots=True)
class PurgeWanted:
    """Images that one of the `patterns` means, or that were `used_before` this time and are meant
    by a pattern, if there are any. `is_trial`: nothing is removed. `with_pinned`: also those that
    are pinned or kept, which otherwise stay."""

    patterns: Sequence[str] = ()
    used_before: float | None = None
    is_trial: bool = False
    with_pinned: bool = False


@dataclass(frozen=True, slots=True)
class Purged:
    """One image that was purged (of a trial: would be). `freed`: bytes that went with it and with
    those before it."""

    image: str
    name: str
    freed: int


@dataclass(frozen=True, slots=True)
class PurgeTotal:
    """The end of a purge. `shared`: bytes of these images that stay, since others need them.
    `skipped`: images that stay as they are pinned or kept, by name, 1000 at most. `unknown`: the
    patterns that mean no image that is here."""

    images: int
    freed: int
    shared: int
    skipped: Sequence[str] = ()
    unknown: Sequence[str] = ()


# Export and import.


@dataclass(frozen=True, slots=True)
class ExportWanted:
    """`images`: as behind docker pull. `platforms`: such as linux/arm64; "all": every one."""

    images: Sequence[str]
    platforms: Sequence[str]


@dataclass(frozen=True, slots=True)
class Imported:
    """An image that was imported. `size`: bytes of all that it is made of, `new`: those of them
    that were not here before."""

    image: str
    name: str
    digest: str
    size: int
    new: int


@dataclass(frozen=True, slots=True)
class PinnedTag:
    """A tag that is pinned to this digest from now on; or, of `unpin`, was until now."""

    image: str
    name: str
    digest: str


class CachedImages(Protocol):
    """Raises ImagesUnavailable where it cannot say, or do it, now."""

    async def list(
        self, pattern: str = "", sort: Sort = Sort.NAME, after: str = "", limit: int = 100
    ) -> ImagePage:
        """Images that the pattern means ("": all), after this marker ("": from the first)."""

    async def image(self, name: str) -> ImageDetail:
        """Raises UnknownImage."""

    def purge(self, wanted: PurgeWanted) -> AsyncGenerator[Purged | PurgeTotal, None]:
        """Image by image, and the total last. What was purged is forgotten by all workers, and the
        next pull fetches it anew. Raises UnknownImage for a pattern that means nothing that could
        be here."""

    async def pin(self, name: str, to: str) -> PinnedTag:
        """Pins a tag to a digest, to what it was at a date, or ("") to what it is here. Raises
        UnknownImage."""

    async def unpin(self, name: str) -> PinnedTag:
        """Raises UnknownImage for a tag that was not pinned by command."""

    def export(self, wanted: ExportWanted) -> AsyncGenerator[bytes, None]:
        """An OCI image layout as a tar. Raises UnknownImage, before the first byte, where anything
        of it is not here."""

    def import_(
        self, archive: AsyncIterator[bytes], name: str = ""
    ) -> AsyncGenerator[Imported, None]:
        """Images of such a tar, under their own names, or the only one under this `name`. All of
        it, or nothing. Raises ArchiveRefused."""


class ArchiveRefused(Exception):
    """The archive is none that can be taken; nothing of it is kept. The message says why."""


Told = CachedImage | ImagePage | ImageDetail | Purged | PurgeTotal | Imported | PinnedTag


def rendered(told: Told) -> dict[str, Any]:
    """The one JSON of it: for `--json`, the control socket and `/api/v1`.

    >>> rendered(Purged("redis:7", "docker.io/library/redis:7", freed=10))["freed"]
    10
    """
    found: dict[str, Any] = asdict(told)
    return found
