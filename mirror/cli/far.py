"""What is behind the disk: what it is yet to be given, and what is removed there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..quantities import binary_size, lasted
from .asking import lines_of_running
from .console import (
    ConfigOption,
    JsonOption,
    explained,
    log_nothing,
    out,
    print_json,
    print_table,
    register,
)

Line = Mapping[str, Any]

_LONG = 60.0  # seconds: what is due is tried each 30 s at least

_WHY = {
    "old": "not used for longer than storage.s3.keep",
    "room": "more than storage.s3.max_size",
    "wrong": "wrong bytes, set aside a month ago",
}


@explained("far status", "far status --json", failed="the mirror could not be asked")
def far_status(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show what the second tier is yet to be given, and what the last sweep there has done."""
    log_nothing()
    [line] = asyncio.run(_lines(config, "far-status", {}))
    if as_json:
        print_json(line)
        return
    if line["left_alone"]:
        out.print("It was too slow a moment ago, and is left alone for half a minute.")
    waits = "" if line["oldest"] is None else f", the oldest for {lasted(line['oldest'])}"
    count = line["backlog"]
    wait = "piece of content waits" if count == 1 else "pieces of content wait"
    out.print(f"{count} {wait} to be given to it{waits}.")
    if line["oldest"] is not None and line["oldest"] > _LONG:
        out.print(
            "registry-mirror doctor tells whether it takes any; second_tier_failed in the log, why."
        )
    if line["tier"] == "folder":
        return
    size, keep = line["max_size"], line["keep"]
    out.print(f"storage.s3.max_size: {'none' if size is None else binary_size(size)}")
    out.print(f"storage.s3.keep: {'none' if keep is None else lasted(keep)}")
    if line["last_sweep"] is None:
        out.print("This node has not swept it since it was started.")
    else:
        out.print(f"This node swept it {lasted(line['last_sweep']['ago'])} ago.")
        _show(line["last_sweep"])


@explained(
    "far sweep --dry-run", "far sweep", failed="the object store did not do it, or not all of it"
)
def far_sweep(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be removed now, and remove nothing.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove from the object store what is too old or too much, now.

    A node does so by itself every six hours: content that nobody used for storage.s3.keep, the
    oldest beyond storage.s3.max_size, and wrong bytes that were set aside a month ago. Nothing goes
    that was written or renewed within the last day, and nothing of one's own repositories.
    """
    log_nothing()
    [line] = asyncio.run(_lines(config, "far-sweep", {"is_trial": dry_run}))
    if as_json:
        print_json(line)
        return
    _show(line)
    if dry_run:
        out.print("Nothing was removed (--dry-run).")


@explained("far recheck", failed="the mirror could not be asked")
def far_recheck(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Have all that is on this node's disk looked for in the second tier, and given to it where it
    is missing.

    A node does so by itself within a month. It is of use when a bucket was lost, or emptied.
    """
    log_nothing()
    [line] = asyncio.run(_lines(config, "far-recheck", {}))
    if as_json:
        print_json(line)
    else:
        out.print(f"{line['backlog']} pieces of content are looked for there, behind the pulls.")


async def _lines(config: Path | None, command: str, given: Mapping[str, object]) -> list[Line]:
    return [line async for line in lines_of_running(config, command, given)]


def _show(line: Line) -> None:
    there = line["there"]
    if there["objects"]:
        out.print(f"{there['objects']} pieces of content there, {binary_size(there['bytes'])}.")
    rows = [
        (str(each["objects"]), binary_size(each["bytes"]), _WHY[why])
        for why, each in line["gone"].items()
        if each["objects"]
    ]
    if rows:
        print_table(("REMOVED", "SIZE", "WHY"), rows)
    else:
        out.print("There was nothing to remove.")


far = typer.Typer(help="What is behind the disk: the second tier.", no_args_is_help=True)
register(far, far_recheck, far_status, far_sweep, without="far_")
