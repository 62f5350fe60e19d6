"""Images as a whole: whether they can be served with no network, and making it so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import Config
from ..oci.errors import BadRequest, RegistryError
from ..oci.reference import ImageReference, parse_image
from ..pullthrough.images import Images, Piece, this_platform
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    err,
    explained,
    give_up,
    load_or_exit,
    log_nothing,
    out,
)

if TYPE_CHECKING:
    from rich.progress import Progress

ImagesArgument = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE…", help="As behind docker pull: redis:7, ghcr.io/acme/app:v1."),
]
PlatformOption = Annotated[
    str,
    typer.Option("--platform", help="Such as linux/arm64; all: every one.", show_default=True),
]

_HERE = this_platform()
_AT_ONCE = 4  # layers

Work = Callable[[Images, ImageReference, str], Awaitable[bool]]  # whether it went well


@explained("ready redis:7", failed="an image could not be served")
def ready(
    images: ImagesArgument, platform: PlatformOption = _HERE, config: ConfigOption = None
) -> None:
    """Tell whether whole images could be served with no network (exit 1 if any could not)."""
    loaded = load_or_exit(config)
    lacking = _with_images(loaded, images, platform, _check, asking=False)
    if lacking:
        raise typer.Exit(1)


@explained("warm redis:7 ghcr.io/acme/app:v1", failed="an image could not be had")
def warm(
    images: ImagesArgument, platform: PlatformOption = _HERE, config: ConfigOption = None
) -> None:
    """Fetch whole images into the cache, beside a mirror that may be serving (exit 1 if any could
    not be had)."""
    loaded = load_or_exit(config)
    failed = _with_images(loaded, images, platform, _bring, asking=True)
    if failed:
        raise typer.Exit(1)


def _with_images(
    config: Config, texts: Sequence[str], platform: str, work: Work, *, asking: bool
) -> int:
    """Does this work for each image; how many it failed for."""
    from ..app import CannotStart, having_images

    log_nothing()

    try:
        wanted = [parse_image(text, config.default_registry) for text in texts]
    except BadRequest as error:
        raise give_up(error.message, CONFIGURATION_WRONG) from None

    async def run() -> int:
        # What is fetched here is asked for one by one: nothing is to come ahead of it.
        settings = config.model_copy(update={"prefetch": False})
        async with having_images(settings, asking=asking) as images:
            return sum([not await work(images, image, platform) for image in wanted])

    try:
        return asyncio.run(run())
    except CannotStart as error:
        raise give_up(str(error)) from None


async def _check(images: Images, image: ImageReference, platform: str) -> bool:
    try:
        lacking = await images.missing(image.repository, image.reference, platform)
    except RegistryError as error:
        lacking = [error.message]
    if not lacking:
        out.print(f"{image}: ready for {platform}.", markup=False)
        return True
    out.print(f"{image}: not ready for {platform}. Missing:", markup=False)
    for piece in lacking:
        out.print(f"  {piece}", markup=False)
    return False


async def _bring(images: Images, image: ImageReference, platform: str) -> bool:
    failures: list[str] = []
    try:
        pieces = [
            piece
            async for piece in images.pieces(image.repository, image.reference, platform)
            if piece.role in ("config", "layer")
        ]
        with _bars() as progress:
            places = asyncio.Semaphore(_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for piece in pieces:
                    group.create_task(_bring_piece(images, image, piece, progress, places))
    except* RegistryError as errors:
        failures = [str(error) for error in errors.exceptions]
    for failure in failures:
        err.print(f"{image}: {failure}", markup=False)
    if not failures:
        out.print(f"{image}: whole for {platform}, {len(pieces)} blobs.", markup=False)
    return not failures


async def _bring_piece(
    images: Images,
    image: ImageReference,
    piece: Piece,
    progress: Progress,
    places: asyncio.Semaphore,
) -> None:
    async with places:
        name = f"{piece.role} {piece.descriptor.digest.hex[:12]}"
        bar = progress.add_task(name, total=piece.descriptor.size)
        async for there in images.bring(image.repository, piece):
            progress.update(bar, completed=there)


def _bars() -> Progress:
    # Only here: a server draws no bars, and is to start quickly and be small.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=err,
    )
