"""CachedImages whose images are what the test has put there, and that notes what was done."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from mirror.contracts.images import (
    CachedImage,
    ExportWanted,
    ImageDetail,
    ImagePage,
    ImagePiece,
    Imported,
    PinnedTag,
    Purged,
    PurgeTotal,
    PurgeWanted,
    Sort,
    UnknownImage,
)

from .activity import NOW

DIGEST = "sha256:" + "70c291fd" * 8


def image_told(name: str = "redis:7", **words: object) -> CachedImage:
    given = CachedImage(
        image=name,
        name=name if "/" in name else f"docker.io/library/{name}",
        digest=DIGEST,
        platforms=("linux/amd64", "linux/arm64"),
        size=41_000_000,
        own=12_000_000,
        checked_at=NOW - 120,
        used_at=NOW - 1,
        pulls=318,
    )
    return replace(given, **words)  # type: ignore[arg-type]


@dataclass
class FakeImages:
    here: Sequence[CachedImage] = field(default_factory=lambda: (image_told(),))
    purged: list[str] = field(default_factory=list)
    pinned: list[str] = field(default_factory=list)

    async def list(
        self, pattern: str = "", sort: Sort = Sort.NAME, after: str = "", limit: int = 100
    ) -> ImagePage:
        found = [each for each in self.here if not pattern or self._means(pattern, each)]
        if sort is Sort.NAME:
            found.sort(key=lambda each: each.name)
        else:
            key = "used_at" if sort is Sort.USED else sort.value
            found.sort(key=lambda each: getattr(each, key) or 0, reverse=True)
        first = int(after or 0)
        more = str(first + limit) if len(found) > first + limit else None
        return ImagePage(found[first : first + limit], more)

    async def image(self, name: str) -> ImageDetail:
        for each in self.here:
            if name in (each.name, each.image):
                pieces = (
                    ImagePiece("config", "sha256:" + "ab" * 32, "", 1200, "linux/amd64", True),
                    ImagePiece(
                        "layer", "sha256:" + "cd" * 32, "", each.size, "linux/amd64", True, ("a:1",)
                    ),
                )
                return ImageDetail(each, (*each.platforms, "linux/s390x"), pieces)
        raise UnknownImage(f"{name} is not here")

    async def purge(self, wanted: PurgeWanted) -> AsyncGenerator[Purged | PurgeTotal, None]:
        found = [each for each in self.here if any(self._means(p, each) for p in wanted.patterns)]
        pinned = [each.image for each in found if each.pinned]
        going = [each for each in found if not each.pinned]
        for each in going:
            yield Purged(each.image, each.name, each.own)
        if not wanted.is_trial:
            self.purged += [each.name for each in going]
            self.here = [each for each in self.here if each not in going]
        freed = sum(each.own for each in going)
        shared = sum(each.size - each.own for each in going)
        unknown = [p for p in wanted.patterns if not any(self._means(p, each) for each in found)]
        yield PurgeTotal(len(going), freed, shared, pinned, unknown)

    async def pin(self, name: str, to: str) -> PinnedTag:
        image = (await self.image(name)).image
        self.pinned.append(image.name)
        return PinnedTag(image.image, image.name, to or image.digest)

    async def unpin(self, name: str) -> PinnedTag:
        if name not in self.pinned:
            raise UnknownImage(f"{name} is not pinned")
        self.pinned.remove(name)
        return PinnedTag(name, name, DIGEST)

    async def export(self, wanted: ExportWanted) -> AsyncGenerator[bytes, None]:
        yield b""

    async def import_(
        self, archive: AsyncIterator[bytes], name: str = ""
    ) -> AsyncGenerator[Imported, None]:
        for each in ():
            yield each

    @staticmethod
    def _means(pattern: str, image: CachedImage) -> bool:
        return fnmatchcase(image.name, pattern) or pattern in (image.name, image.image)
