"""What is asked of the mirror that runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import ConfigError, store_of
from .console import (
    ConfigOption,
    JsonOption,
    err,
    explained,
    find_mirror,
    give_up,
    is_answered,
    log_nothing,
    out,
    print_json,
)

_UNCHANGED = "the mirror goes on with the configuration that it has"


@explained("reload", failed="the mirror goes on as before")
def reload(
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the mirror that runs read its configuration again, with no pull cut (exit 1 if it could
    not)."""
    from ..app import NotAnswered, ask

    log_nothing()
    try:
        store = _store(config)
        answer = asyncio.run(ask(store, "reload"))
    except ConfigError as error:
        err.print(str(error), markup=False)
        raise give_up(f"no mirror was asked: {_UNCHANGED}, if one runs") from None
    except NotAnswered as error:
        raise give_up(str(error)) from None
    if as_json:
        print_json(answer)
    for words in answer["words"]:
        err.print(words, markup=False)
    if answer["result"] == "refused":
        raise give_up(_UNCHANGED)
    if answer["needs_restart"]:
        keys = ", ".join(answer["needs_restart"])
        err.print(f"These keys stay as they were until the mirror is restarted: {keys}.")
    if answer["result"] != "applied":
        raise give_up("the new configuration is not in all parts of the mirror: see its log")
    if config is not None and not _is(config, answer["path"]):
        began = answer["path"] or "no configuration file"
        raise give_up(
            f"the mirror was started with {began}, and goes by that as it is now: not by {config}"
        )
    if not as_json:
        out.print("The new configuration counts.")


def _store(config: Path | None) -> Path:
    """Of the mirror that is meant, once it takes commands. Raises ConfigError."""
    if config is None:
        return find_mirror(None).store
    store = store_of(config)
    is_answered(store)
    return store


def _is(path: Path, other: str | None) -> bool:
    """Whether these are one file; `other` is where the mirror reads it, None: nowhere."""
    if other is None:
        return False
    with contextlib.suppress(OSError):
        return os.path.samefile(path, other)
    return os.path.abspath(path) == other


@explained("restart", failed="the workers that were not replaced go on")
def restart(
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the workers of the mirror that runs, one by one, with no connection refused or cut:
    each by one that serves before the other accepts no more. What it answers then, it ends (for
    half a minute at most). Keys that need a restart of all stay as they are."""
    from ..app import NotAnswered, ask_lines

    log_nothing()

    async def follow(store: Path) -> None:
        async with contextlib.aclosing(ask_lines(store, "restart", {})) as lines:
            async for line in lines:
                tell(line)

    def tell(line: Mapping[str, Any]) -> None:
        if as_json:
            print_json(line)
        elif line["ended"]:
            out.print(f"worker {line['worker']}: {line['instead_of']} has ended")
        else:
            words = f"serves in place of {line['instead_of']}, after {line['seconds']:.1f} s"
            out.print(f"worker {line['worker']}: {line['pid']} {words}")

    try:
        store = _store(config)
        asyncio.run(follow(store))
    except ConfigError as error:
        err.print(str(error), markup=False)
        raise give_up("no mirror was asked") from None
    except NotAnswered as error:
        raise give_up(str(error)) from None
