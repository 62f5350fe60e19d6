"""Images as a whole: whether they can be served with no network, and making it so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import Config
from ..contracts.sync import rendered
from ..pullthrough.images import this_platform
from ..quantities import size
from ..sync.sources import Gathering
from ..sync.work import Asked
from .asking import tell_that_none_runs
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    JsonOption,
    err,
    explained,
    find_mirror,
    give_up,
    load_or_exit,
    log_nothing,
    out,
    print_json,
)
from .named import platforms_of
from .progress import Shown

ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE…",
        help="As behind docker pull: redis:7, ghcr.io/acme/app:v1; @list.txt, a name a line; "
        "docker-compose.yml, Kubernetes manifests (*.yaml), a folder of them (k8s/), or - for "
        "standard input.",
        show_default=False,
    ),
]
PlatformsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="PLATFORM",
        help="Such as linux/arm64, or all; may be repeated. Without it, this host's, or the one "
        "that a compose file names.",
        show_default=False,
    ),
]
ComposeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--compose", metavar="FILE", help="A compose file, whatever its name.", show_default=False
    ),
]

Line = Mapping[str, Any]


@explained(
    "ready redis:7 @images.txt",
    "ready --compose docker-compose.yml --platform linux/arm64",
    failed="an image is not ready",
)
def ready(
    images: ImagesArgument = None,
    platform: PlatformsOption = None,
    compose: ComposeOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell whether whole images could be served with no network (exit 1 if any could not)."""
    asked = _asked(images or [], compose or [], platform or [], patterns=False)
    if not asyncio.run(_ready(asked, config, as_json)):
        raise typer.Exit(1)


@explained(
    "warm redis:7 'ghcr.io/acme/app:v*' @images.txt",
    "warm docker-compose.yml k8s/ --platform linux/amd64 --platform linux/arm64",
    "warm - < rendered.yaml",
    failed="an image could not be had",
)
def warm(
    images: ImagesArgument = None,
    platform: PlatformsOption = None,
    compose: ComposeOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Have the mirror fetch whole images, or where none runs, fetch them into its store (exit 1 if
    any could not be had). Stopped by Ctrl-C, it begins nothing more; what has come stays."""
    asked = _asked(images or [], compose or [], platform or [], patterns=True)
    try:
        good = asyncio.run(_warm(asked, config, as_json))
    except KeyboardInterrupt:
        raise give_up("stopped; what has come stays, and warm goes on from there") from None
    if not good:
        raise typer.Exit(1)


def _asked(
    images: Sequence[str], composes: Sequence[str], platforms: Sequence[str], *, patterns: bool
) -> Sequence[Asked]:
    """What was asked for; its mistakes end the command before anything is done."""
    log_nothing()
    gathering = Gathering(os.environ, sys.stdin.buffer.read, patterns=patterns)
    for path in composes:
        gathering.compose(path)
    for text in images:
        gathering.argument(text)
    found = gathering.found
    for note in found.notes:
        err.print(note, markup=False)
    for mistake in found.mistakes:
        err.print(f"registry-mirror: {mistake}", markup=False)
    if found.mistakes:
        raise typer.Exit(CONFIGURATION_WRONG)
    if not found.wishes:
        raise give_up("no image is named: see --help", CONFIGURATION_WRONG)
    given = platforms_of(platforms)
    return [Asked(wish.image, given or [wish.platform or this_platform()]) for wish in found.wishes]


async def _ready(asked: Sequence[Asked], config: Path | None, as_json: bool) -> bool:
    good = True
    async with contextlib.aclosing(work_lines("ready", asked, config)) as lines:
        async for line in lines:
            good = good and line["is_ready"]
            if as_json:
                print_json(line)
            elif line["is_ready"]:
                out.print(f"{line['image']}: ready for {line['platform']}.", markup=False)
            else:
                words = f"{line['image']}: not ready for {line['platform']}. Missing:"
                out.print(words, markup=False)
                for piece in line["missing"]:
                    out.print(f"  {piece}", markup=False)
    return good


async def _warm(asked: Sequence[Asked], config: Path | None, as_json: bool) -> bool:
    lines = work_lines("warm", asked, config)
    async with contextlib.aclosing(lines):
        return await show_work(lines, as_json)


async def show_work(lines: AsyncIterator[Line], as_json: bool) -> bool:
    """Shows how work goes; whether all of it has gone well."""
    results = []
    with Shown(err, as_json) as shown:
        async for line in lines:
            if as_json:
                print_json(line)
            elif line["told"] == "image_ended":
                with shown.ended(line):
                    _print_ended(line)
            elif line["told"] == "work_ended" and (line["name"] or line["images"] > 1):
                err.print(summary(line), markup=False)
            else:
                shown.told(line)
            if line["told"] == "work_ended":
                results.append(line["result"])
    return bool(results) and set(results) == {"good"}


async def work_lines(
    command: str, asked: Sequence[Asked], config: Path | None
) -> AsyncGenerator[Line, None]:
    """What the mirror that runs answers; where none does, what is found by its store."""
    from ..app import NotAnswered, ask_lines

    mirror = find_mirror(config)
    images = [[one.text, list(one.platforms)] for one in asked]
    try:
        answers = ask_lines(mirror.store, command, {"images": images})
        async with contextlib.aclosing(answers):
            async for line in answers:
                yield line
    except NotAnswered as error:
        if error.is_running:
            raise give_up(str(error), error.status) from None
    else:
        return
    beside = _lines_beside(command, asked, load_or_exit(mirror.config))
    async with contextlib.aclosing(beside):
        async for line in beside:
            yield line


async def _lines_beside(
    command: str, asked: Sequence[Asked], config: Config
) -> AsyncGenerator[Line, None]:
    from ..app import CannotStart, ahead_beside

    try:
        async with ahead_beside(config) as ahead:
            if command == "ready":
                async with contextlib.aclosing(ahead.ready(asked)) as all_of_them:
                    async for readiness in all_of_them:
                        yield rendered(readiness)
            else:
                tell_that_none_runs(config.storage.path)
                async with contextlib.aclosing(ahead.warm(asked)) as work:
                    async for told in work:
                        yield rendered(told)
    except CannotStart as error:
        raise give_up(str(error)) from None


def _print_ended(line: Line) -> None:
    """One line for each image; what failed stands on standard error."""
    name = f"{line['image']}: "
    if line["result"] not in ("whole", "kept"):
        err.print(f"{name}{line['platform']}: {line['words']}", markup=False)
        return
    if line["result"] == "kept":
        out.print(f"{name}kept, {line['words']}", markup=False)
        return
    came = f", of which {size(line['fetched'])} came now" if line["fetched"] else ""
    doubt = f" ({line['words']})" if line["words"] else ""
    out.print(
        f"{name}whole for {line['platform']}, {line['blobs']} blobs, "
        f"{size(line['size'])}{came}.{doubt}",
        markup=False,
    )


def summary(line: Line) -> str:
    """Of all that was done."""
    name = f"{line['name']}: " if line["name"] else ""
    good = line["images"] - line["failed"]
    stopped = f" Stopped: {line['words']}." if line["words"] else ""
    return (
        f"{name}{line['images']} images: {good} good, {line['failed']} failed; "
        f"{size(line['fetched'])} came in {line['seconds']:.0f} s.{stopped}"
    )
