"""backup, restore: all that is hosted, in one file."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ...quantities import part_of, size
from ..archives import opened, pieces_of, written
from ..asking import hosted_chunks, tell_that_none_runs
from ..console import (
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


@explained(
    "backup /backups/hosted.tar",
    "backup - | ssh vault 'cat > hosted.tar'",
    failed="it could not be written whole; then there is no file",
)
def backup(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="-: standard output.", show_default=False)
    ],
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Also where content has been lost: without it.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write all repositories of one's own, their images and accounts into one tar: as of the moment
    of the call, while pushes go on. What the mirror has fetched of other registries is not in it.
    It has the hashes of passwords and the keys of tokens: keep it as you keep these."""
    if file == "-" and sys.stdout.isatty():
        raise give_up("a tar is nothing for a terminal: write a file's name", CONFIGURATION_WRONG)
    if Path(file).is_dir():
        raise give_up(f"{file}: is a folder: name a file in it", CONFIGURATION_WRONG)

    async def run() -> int:
        pieces = hosted_chunks(config, "backup", {"incomplete": incomplete})
        async with contextlib.aclosing(pieces):
            return await written(pieces, file, private=True)

    try:
        count = asyncio.run(run())
    except KeyboardInterrupt:
        raise give_up("stopped; nothing was written") from None
    err.print(f"{file}: {size(count)}.", markup=False)


@explained(
    "restore /backups/hosted.tar --config mirror.yaml",
    "ssh vault cat hosted.tar | registry-mirror restore -",
    failed="the backup is not taken, or there is something already; then nothing of it is kept",
)
def restore(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="-: standard input.", show_default=False)
    ],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take in a backup, before the mirror's first start, into an empty storage folder and empty
    records: of SQLite or of PostgreSQL, whichever it was made of. Each piece of content is verified
    by its digest, and all of the backup is taken, or nothing."""
    try:
        with opened(file) as archive:
            asyncio.run(_restore(archive, config, as_json=as_json))
    except KeyboardInterrupt:
        raise give_up("stopped; nothing of it is kept") from None


async def _restore(archive: BinaryIO, config: Path | None, *, as_json: bool) -> None:
    from ...app import CannotStart, CommandFailed
    from ...app.hosting_alone import hosted_alone

    log_nothing()
    mirror = find_mirror(config)
    if mirror.is_running:
        raise give_up(f"{mirror} runs: stop it, and restore into an empty one")
    loaded = load_or_exit(mirror.config)
    if loaded.hosted is not None:
        tell_that_none_runs(loaded.storage.path)
    try:
        async with hosted_alone(loaded) as hosted:
            lines = hosted.backups.restore(pieces_of(archive))
            with err.status("restoring …") as status:
                async with contextlib.aclosing(lines):
                    async for line in lines:
                        if as_json:
                            print_json(line)
                        if "total" in line:
                            status.update(f"restored {part_of(line['done'], line['total'])}")
    except (CannotStart, CommandFailed) as error:
        raise give_up(str(error)) from None
    if not as_json:
        lost = f"; {line['lost']} pieces were lost before" if line["lost"] else ""
        out.print(
            f"restored: {line['content']} pieces of content, {size(line['bytes'])}, "
            f"{line['rows']} records{lost}."
        )
