"""What goes on at this moment, live on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from ..contracts.activity import Top
from ..logs.text import printable
from ..quantities import lasted, size
from ..told import read_as
from .asking import asked_of_running
from .console import (
    ConfigOption,
    JsonOption,
    explained,
    find_mirror,
    give_up,
    log_nothing,
    out,
    print_json,
)
from .goings import pull_line

_BEAT = 1.0  # seconds
_LINES = 10  # of each kind
_BAR = 20  # characters


@explained(
    "top",
    "top --json | jq '.downloads[].image'",
    failed="no mirror runs here",
)
def top(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show what goes on: downloads, what is queued, the last pulls, the slowest answers and the
    busiest clients. Live on a terminal (Ctrl-C ends it); else what it is now, once."""
    if as_json or not out.is_terminal:
        told = asked_of_running(config, "top")
        if as_json:
            print_json(told)
        else:
            for line in top_lines(read_as(Top, told)):
                out.print(line, markup=False)
        return
    mirror = find_mirror(config)
    log_nothing()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_live(mirror.store))


async def _live(store: Path) -> None:
    # Only here: a server draws nothing, and is to start quickly and be small.
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from ..app import NotAnswered, ask

    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            try:
                told = await ask(store, "top")
            except NotAnswered as error:
                live.stop()
                raise give_up(str(error), error.status) from None
            lines = top_lines(read_as(Top, told))
            whole = Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))
            live.update(whole, refresh=True)
            await asyncio.sleep(_BEAT)


def top_lines(top: Top) -> Sequence[str]:
    rates = top.rates
    lines = [
        f"{time.strftime('%T', time.localtime(top.now))}  {size(rates.bytes_out)}/s out, "
        f"{size(rates.bytes_in)}/s in   {rates.requests:.0f} requests/s, "
        f"{rates.requests_running} running   {rates.downloads_running} downloads, "
        f"{rates.downloads_queued} queued",
    ]
    if top.downloads:
        lines += ["", "DOWNLOADS"]
    for one in top.downloads[:_LINES]:
        share = one.here / one.size if one.size else 0.0
        bar = "█" * int(share * _BAR)
        state = f"{size(one.speed)}/s" if one.state == "running" else "queued"
        lines.append(
            f"  {printable(one.image, 40):<40} {one.digest.partition(':')[2][:12]} "
            f"{bar:░<{_BAR}} {share:4.0%} of {size(one.size)}  {state}  {one.readers} readers"
        )
    if top.pulls:
        lines += ["", "LAST PULLS"]
    lines += [f"  {pull_line(pull)}" for pull in top.pulls[:_LINES]]
    if top.slowest:
        lines += ["", "SLOWEST ANSWERS (10 min)"]
    for answer in top.slowest[:_LINES]:
        request = answer.request
        why = f"  {request.why}" if request.why else ""
        lines.append(
            f"  {lasted(request.first_byte):>8}  {printable(answer.image, 40):<40} "
            f"{request.method} {request.kind} {request.outcome}{why}"
        )
    if top.busiest:
        lines += ["", "BUSIEST CLIENTS (10 min)"]
    lines += [
        f"  {printable(client.client, 40):<40} {client.requests} requests, "
        f"{client.misses} misses, {size(client.bytes)}"
        for client in top.busiest[:_LINES]
    ]
    return lines
