"""The commands about images, as they come over the control socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

from ...contracts.images import (
    ArchiveRefused,
    CachedImages,
    ExportWanted,
    ImagesUnavailable,
    PurgeWanted,
    Sort,
    UnknownImage,
    rendered,
)
from ...server.control import (
    Command,
    CommandFailed,
    GivesBytes,
    Parameters,
    TakesBytes,
    Tells,
    one,
)

Line = Mapping[str, Any]


def image_commands(images: CachedImages) -> Mapping[str, Command]:
    """By their names: images, image, purge, pin, unpin, export, import."""

    async def listing(given: Parameters) -> Line:
        with _told():
            return rendered(
                await images.list(
                    given.get("pattern", ""),
                    Sort(given.get("sort", "name")),
                    given.get("after", ""),
                    given.get("limit", 100),
                )
            )

    async def image(given: Parameters) -> Line:
        with _told():
            return rendered(await images.image(given["image"]))

    async def purge(given: Parameters) -> AsyncGenerator[Line, None]:
        wanted = PurgeWanted(
            tuple(given.get("patterns", ())),
            given.get("used_before"),
            given.get("is_trial", False),
            given.get("with_pinned", False),
        )
        with _told():
            async with contextlib.aclosing(images.purge(wanted)) as steps:
                async for step in steps:
                    yield rendered(step)

    async def pin(given: Parameters) -> Line:
        with _told():
            return rendered(await images.pin(given["image"], given.get("to", "")))

    async def unpin(given: Parameters) -> Line:
        with _told():
            return rendered(await images.unpin(given["image"]))

    async def export(given: Parameters) -> AsyncGenerator[bytes, None]:
        wanted = ExportWanted(tuple(given["images"]), tuple(given["platforms"]))
        with _told():
            async with contextlib.aclosing(images.export(wanted)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def import_(
        given: Parameters, archive: AsyncIterator[bytes]
    ) -> AsyncGenerator[Line, None]:
        with _told():
            async with contextlib.aclosing(images.import_(archive, given.get("name", ""))) as lines:
                async for line in lines:
                    yield rendered(line)

    return {
        "images": one(listing),
        "image": one(image),
        "purge": Tells(purge),
        "pin": one(pin),
        "unpin": one(unpin),
        "export": GivesBytes(export),
        "import": TakesBytes(import_),
    }


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except UnknownImage as error:
        raise CommandFailed(str(error), 1 if error.is_name else 2) from error
    except (ImagesUnavailable, ArchiveRefused) as error:
        raise CommandFailed(str(error)) from error
