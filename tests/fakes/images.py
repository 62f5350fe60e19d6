"""A CachedImages whose images are those that the test has put there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace

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

NOW = 1_800_000_000.0


def cached_image(image: str = "redis:7", **words: object) -> CachedImage:
    given = CachedImage(
        image=image,
        name=f"docker.io/library/{image}",
        digest="sha256:" + "70" * 32,
        platforms=("linux/amd64",),
        size=41 << 20,
        own=12 << 20,
        checked_at=NOW - 120,
        used_at=NOW - 2,
        pulls=318,
    )
    return replace(given, **words)  # type: ignore[arg-type]


@dataclass
class FakeImages:
    """`purged` is what it was asked to purge."""

    images: list[CachedImage] = field(default_factory=lambda: [cached_image()])
    purged: list[PurgeWanted] = field(default_factory=list)

    async def list(
        self, pattern: str = "", sort: Sort = Sort.NAME, after: str = "", limit: int = 100
    ) -> ImagePage:
        start = int(after or 0)
        found = [one for one in self.images if pattern in one.image]
        if sort is not Sort.NAME:
            key = {Sort.USED: "used_at"}.get(sort, str(sort))
            found.sort(key=lambda one: getattr(one, key) or 0, reverse=True)
        end = start + limit
        return ImagePage(found[start:end], str(end) if end < len(found) else None)

    async def image(self, name: str) -> ImageDetail:
        for one in self.images:
            if name in (one.image, one.name):
                piece = ImagePiece("manifest", one.digest, "", one.size, "linux/amd64", True)
                return ImageDetail(one, one.platforms, (piece,))
        raise UnknownImage(f"{name} is not here")

    async def purge(self, wanted: PurgeWanted) -> AsyncGenerator[Purged | PurgeTotal, None]:
        self.purged.append(wanted)
        found = [one for one in self.images if one.image in wanted.patterns]
        for one in found:
            yield Purged(one.image, one.name, one.own)
        if not wanted.is_trial:
            self.images = [one for one in self.images if one not in found]
        yield PurgeTotal(len(found), sum(one.own for one in found), 0)

    async def pin(self, name: str, to: str) -> PinnedTag:
        one = (await self.image(name)).image
        return PinnedTag(one.image, one.name, to or one.digest)

    async def unpin(self, name: str) -> PinnedTag:
        one = (await self.image(name)).image
        return PinnedTag(one.image, one.name, one.digest)

    async def export(self, wanted: ExportWanted) -> AsyncGenerator[bytes, None]:
        for name in wanted.images:
            await self.image(name)
        yield b"a tar"

    async def import_(
        self, archive: AsyncIterator[bytes], name: str = ""
    ) -> AsyncGenerator[Imported, None]:
        size = 0
        async for piece in archive:
            size += len(piece)
        one = cached_image(name or "redis:7")
        yield Imported(one.image, one.name, one.digest, size, size)
