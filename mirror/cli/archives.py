"""Images in one file, for where no network is: export, import."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ..pullthrough.images import this_platform
from ..quantities import size
from ..sync.work import Asked
from .asking import chunks, lines
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    JsonOption,
    err,
    explained,
    give_up,
    out,
    print_json,
)
from .named import names_of, platforms_of
from .warming import work_lines

_SLICE = 1 << 20


@explained(
    "export redis:7 ghcr.io/acme/app:v1 -o site.tar",
    "export @images.txt --platform linux/arm64 -o - | ssh site registry-mirror import -",
    "$ skopeo copy oci-archive:site.tar:docker.io/library/redis:7 docker-daemon:redis:7",
    failed="an image is not whole, or the file could not be written; then there is none",
)
def export(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE…", help="As behind docker pull: redis:7; or @list.txt, one a line."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="-: standard output.")
    ],
    platform: Annotated[
        list[str] | None,
        typer.Option(
            "--platform",
            metavar="PLATFORM",
            help="Such as linux/arm64, or all; may be repeated. Without it, this host's.",
            show_default=False,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch nothing: all has to be here.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write whole images into one file: an OCI image layout in a tar, which import, skopeo, podman
    and containerd (ctr image import) read. What is missing is fetched first."""
    names = names_of(images)
    if not names:
        raise give_up("no image is named", CONFIGURATION_WRONG)
    platforms = platforms_of(platform or []) or [this_platform()]
    if output == "-" and sys.stdout.isatty():
        raise give_up("a tar is nothing for a terminal: write -o FILE", CONFIGURATION_WRONG)
    if Path(output).is_dir():
        raise give_up(f"{output}: is a folder: name a file in it", CONFIGURATION_WRONG)
    try:
        count = asyncio.run(_export(names, platforms, output, config, fetching=not offline))
    except KeyboardInterrupt:
        raise give_up("stopped; nothing was written") from None
    err.print(f"{output}: {len(names)} images, {size(count)}.", markup=False)


@explained(
    "import site.tar",
    "import other.tar --as registry.example.com/acme/app:v1",
    failed="the archive is not taken; then nothing of it is kept",
)
def import_(
    archive: Annotated[
        str, typer.Argument(metavar="FILE", help="A tar; -: standard input.", show_default=False)
    ],
    name: Annotated[
        str,
        typer.Option(
            "--as", metavar="IMAGE", help="The name of its only image.", show_default=False
        ),
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take images out of a file: of export, skopeo copy … oci-archive:, podman save --format
    oci-archive, or ctr images export. Every byte is verified, and all of it is taken, or
    nothing. With offline: true they are served for good; else their tags age as all tags do."""
    try:
        with opened(archive) as file:
            asyncio.run(_import(file, name, config, as_json))
    except KeyboardInterrupt:
        raise give_up("stopped; nothing of it is kept") from None


@contextlib.contextmanager
def opened(archive: str) -> Iterator[BinaryIO]:
    if archive == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(archive, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise give_up(f"{archive}: {error.strerror}", CONFIGURATION_WRONG) from None
    with file:
        yield file


async def _export(
    names: Sequence[str],
    platforms: Sequence[str],
    output: str,
    config: Path | None,
    *,
    fetching: bool,
) -> int:
    """How many bytes were written."""
    if fetching:
        await _fetch(names, platforms, config)
    words = {"images": list(names), "platforms": list(platforms)}
    async with contextlib.aclosing(chunks(config, "export", words)) as pieces:
        return await written(pieces, output)


async def written(pieces: AsyncIterator[bytes], output: str, *, private: bool = False) -> int:
    """How many bytes were written into this file, or (`-`) to standard output. `private`: a file
    that is made is for its owner alone. What cannot be ends the program."""
    if output == "-":
        return await _write(pieces, sys.stdout.buffer)
    try:
        path = _replaced(output)
        if path is not None:
            return await _write_whole(pieces, path, 0o600 if private else 0o666)
        with open(output, "wb") as device:
            return await _write(pieces, device)
    except OSError as error:
        raise give_up(f"{output}: {error.strerror}") from None


async def _fetch(names: Sequence[str], platforms: Sequence[str], config: Path | None) -> None:
    asked = [Asked(name, tuple(platforms)) for name in names]
    good = False
    async with contextlib.aclosing(work_lines("warm", asked, config)) as told:
        async for line in told:
            if line["told"] == "image_ended" and line["result"] not in ("whole", "kept"):
                err.print(f"{line['image']}: {line['platform']}: {line['words']}", markup=False)
            if line["told"] == "work_ended":
                good = line["result"] == "good"
    if not good:
        raise give_up("nothing was written, as not all could be fetched; --offline fetches nothing")


def _replaced(output: str) -> Path | None:
    """The file, behind symbolic links; None for what is none, as a device or a pipe."""
    path = Path(output)
    return None if path.exists() and not path.is_file() else path.resolve()


async def _write_whole(pieces: AsyncIterator[bytes], path: Path, mode: int) -> int:
    """The file is there when all of it is, and until then what was there before. Raises OSError.

    Only a file is replaced so, and by a name that nobody else has: as root, /dev/null would be
    a file from then on, and another user's link in /tmp would lead to what is overwritten."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            count = await _write(pieces, file)
            await asyncio.to_thread(os.fsync, file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


async def _write(pieces: AsyncIterator[bytes], file: BinaryIO) -> int:
    count = 0
    async for piece in pieces:
        await asyncio.to_thread(file.write, piece)
        count += len(piece)
    await asyncio.to_thread(file.flush)
    return count


async def pieces_of(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _SLICE):
        yield piece


async def _import(file: BinaryIO, name: str, config: Path | None, as_json: bool) -> None:
    async with contextlib.aclosing(
        lines(config, "import", {"name": name}, pieces_of(file))
    ) as told:
        async for line in told:
            if as_json:
                print_json(line)
            else:
                out.print(
                    f"{line['name']}: imported, {size(line['size'])}, of which "
                    f"{size(line['new'])} were not here.",
                    markup=False,
                )
