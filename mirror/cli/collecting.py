"""Garbage collection of repositories of one's own."""

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
    err,
    explained,
    give_up,
    log_nothing,
    out,
    print_json,
    print_table,
)

Line = Mapping[str, Any]

_COLUMNS = ("WHAT", "OF", "DIGEST", "SIZE", "WHY")


@explained("gc", "gc --dry-run", "gc --now", failed="the collection could not be done")
def gc(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Tell what a collection would remove now, and why."),
    ] = False,
    now: Annotated[
        bool,
        typer.Option("--now", help="Collect now, and do not wait until the next one is due."),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove what no image of one's own repositories needs any more: blobs, and the files that are
    needed by none.

    Without options it collects if a collection is due (hosted.gc.every), and else says when the
    next one is. --now leaves out that wait, and nothing else: whatever a push has uploaded, mounted
    or found in the last hosted.gc.grace stays, for the push may still be running.
    """
    log_nothing()
    if dry_run and now:
        raise give_up("--dry-run removes nothing, and --now does: one of the two", 2)
    lines = asyncio.run(_lines(config, dry_run, now))
    if as_json:
        for line in lines:
            print_json(line)
    else:
        _show(lines)
    if lines[-1]["result"] == "stopped":
        raise typer.Exit(1)


async def _lines(config: Path | None, dry_run: bool, now: bool) -> list[Line]:
    given = {"is_trial": dry_run, "is_now": now}
    return [line async for line in lines_of_running(config, "gc", given)]


def _show(lines: list[Line]) -> None:
    going, total = lines[:-1], lines[-1]
    if going:
        print_table(_COLUMNS, [_row(line) for line in going])
    match total["result"]:
        case "trial":
            free = binary_size(total["would_free"])
            out.print(
                f"A collection would remove these {total['would_go']}, and free {free}."
                if going
                else "A collection would remove nothing."
            )
        case "not due":
            _show_schedule(total)
            return
        case "stopped":
            err.print(f"The collection was stopped: {total['words']}.", markup=False)
        case _:
            out.print(_in_words(total), markup=False)
    if total["waiting"]:
        waiting, size = total["waiting"], binary_size(total["waiting_bytes"])
        err.print(
            f"{waiting} more blobs, {size}, are needed by nothing and stay until they were not "
            f"touched for {lasted(total['grace'])} (hosted.gc.grace): a push may rely on them.",
            markup=False,
        )


def _show_schedule(total: Line) -> None:
    last = total["last"]
    if last is not None:
        out.print(f"The last collection: {_in_words(last)}", markup=False)
    due = lasted(total["due_in"])
    out.print(f"The next one is due in {due}. registry-mirror gc --now does not wait.")


def _in_words(collected: Line) -> str:
    if collected["result"] != "done":
        return f"{collected['result']}: {collected['words']}"
    words = (
        f"{collected['blobs']} blobs of repositories removed, {collected['repositories']} empty "
        f"repositories, {collected['content']} files: {binary_size(collected['freed'])} freed."
    )
    if collected["is_cut"]:
        words += " There is more: one collection removes hosted.gc.at_most, the next one goes on."
    if not collected["is_alone"]:
        words += (
            " Another process was collecting: no blobs of repositories were removed by this one."
        )
    if collected["dangling"]:
        words += (
            f" {collected['dangling']} pieces of content that images need are missing here: see "
            "the log (hosted_content_missing)."
        )
    return words


def _row(line: Line) -> tuple[str, ...]:
    size = binary_size(line["size"]) if line["digest"] else ""
    return (line["kind"], line["repository"], line["digest"], size, line["why"])
