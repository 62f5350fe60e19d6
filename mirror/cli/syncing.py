"""The entries of the key `sync`: how they go, and to have them run now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ..quantities import size
from .asking import lines_of_running
from .console import (
    ConfigOption,
    JsonOption,
    err,
    explained,
    give_up,
    log_nothing,
    print_json,
    print_table,
    register,
)
from .warming import show_work

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]…", help="Of entries; without one, all.", show_default=False),
]

Line = Mapping[str, Any]

_COLUMNS = ("NAME", "STATE", "LAST RUN", "RESULT", "HERE", "SIZE", "CAME", "NEXT")


@explained("sync list", "sync list --json", failed="the last run of an entry had failures")
def list(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Tell of each entry how its last run went, what of it was here then, and when the next one
    is."""
    log_nothing()
    entries = asyncio.run(_entries(config))
    if as_json:
        for entry in entries:
            print_json(entry)
    elif not entries:
        err.print("The mirror has no entries of sync: see mirror.yaml.")
    else:
        print_table(_COLUMNS, [_row(entry) for entry in entries])
        for entry in entries:
            for failure in (entry["last"] or {}).get("failures", ()):
                err.print(f"{entry['name']}: {failure}", markup=False)
    if any((entry["last"] or {}).get("failed") for entry in entries):
        raise typer.Exit(1)


@explained("sync run", "sync run nightly", failed="an image could not be had, or a run was stopped")
def run(
    names: NamesArgument = None, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Have entries run now, whatever their windows, and show how they go. Stopped by Ctrl-C, the
    run goes on in the mirror: sync list shows it."""
    log_nothing()
    try:
        good = asyncio.run(_run(names or [], as_json, config))
    except KeyboardInterrupt:
        raise give_up("the run goes on in the mirror: registry-mirror sync list") from None
    if not good:
        raise typer.Exit(1)


sync = typer.Typer(
    no_args_is_help=True,
    help="Images that are brought here before a client asks for them, as the key sync says.",
)
register(sync, list, run)


async def _entries(config: Path | None) -> Sequence[Line]:
    found = []
    async with contextlib.aclosing(lines_of_running(config, "sync-list", {})) as lines:
        async for line in lines:
            found.append(line)  # noqa: PERF401
    return found


async def _run(names: Sequence[str], as_json: bool, config: Path | None) -> bool:
    lines = lines_of_running(config, "sync-run", {"names": names})
    async with contextlib.aclosing(lines):
        return await show_work(lines, as_json)


def _row(entry: Line) -> Sequence[str]:
    last = entry["last"]
    state = entry["state"]
    if state == "running":
        state = f"running, {entry['done']} of {entry['images']}"
    if last is None:
        return (entry["name"], state, "never", "", "", "", "", _time(entry["next_at"]))
    words = f" ({last['words']})" if last["words"] else ""
    return (
        entry["name"],
        state,
        _time(last["ended_at"]),
        f"{last['result']}{words}",
        f"{last['whole']} of {last['images']}",
        size(last["size"]),
        size(last["fetched"]),
        _time(entry["next_at"]),
    )


def _time(at: float | None) -> str:
    """By this host's clock on the wall."""
    return "" if at is None else datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
