"""What all commands share: where they print, how they read the configuration, how they end."""

from __future__ import annotations

import inspect
import io
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ..config import Config, ConfigError, load, store_of
from ..logs.text import harmless


class _Harmless(Console):
    """What is printed may hold what strangers have written, as in compose files, archives, names of
    files and answers: the terminal does nothing by it."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*map(_harmless, objects), **how)


def _harmless(given: Any) -> Any:
    if isinstance(given, str):
        return harmless(given)
    if isinstance(given, Text):
        given.plain = harmless(given.plain)
    return given


# Without emoji, `:100:` stays as it is, as behind a file's name.
out: Console = _Harmless(highlight=False, soft_wrap=True, emoji=False)
err: Console = _Harmless(stderr=True, highlight=False, soft_wrap=True, emoji=False)

CONFIGURATION_WRONG = 2

Command = TypeVar("Command", bound=Callable[..., Any])

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Without it: of the mirror that runs, or mirror.yaml here, or in "
        "/etc/registry-mirror.",
    ),
]


JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


CONFIGURATIONS = (Path("mirror.yaml"), Path("/etc/registry-mirror/mirror.yaml"))
"""Where a configuration is looked for that no option names."""

_PROBED = 1.0  # seconds that a mirror may take to take a connection
_PATIENCE = 20.0  # seconds that it may hold its store before: to open a large one, on a slow disk
_LOOK = 0.05  # seconds between two looks meanwhile
_STORES = (Path("/var/lib/registry-mirror"), Path("data"))


@dataclass(frozen=True, slots=True)
class FoundMirror:
    """A mirror that a command is for: its store, and the configuration that says so. `config` None:
    none does, and the store is in one of the default places. `is_running`: its control socket is
    answered, or is not ours to ask."""

    store: Path
    config: Path | None
    is_running: bool

    def __str__(self) -> str:
        """For messages: what was taken for want of an option."""
        by = f", of {self.config}" if self.config is not None else ""
        return f"the mirror of {self.store}{by}"


def find_mirror(config: Path | None) -> FoundMirror:
    """The mirror that this configuration describes. With None: the one that runs, of those whose
    configuration is in a usual place, or whose store is; where none runs, the first that there is.
    Of several that run none is chosen: the command ends, and says which there are."""
    if config is not None:
        return _of(config)
    there = [_of(path) for path in CONFIGURATIONS if os.path.isfile(path)]
    there += [FoundMirror(path, None, is_answered(path)) for path in _STORES]
    running = {found.store.resolve(): found for found in reversed(there) if found.is_running}
    if len(running) > 1:
        names = "; ".join(str(found) for found in running.values())
        raise give_up(
            f"several mirrors run here: {names}. Say which one by --config", CONFIGURATION_WRONG
        )
    if running:
        return next(iter(running.values()))
    default = store_of(None)
    return next(
        (found for found in there if found.config is not None or os.path.isdir(found.store)),
        FoundMirror(default, None, False),
    )


def _of(config: Path) -> FoundMirror:
    try:
        store = store_of(config)
    except ConfigError as error:
        load_or_exit(config)  # tells all mistakes, not only that of the store's path
        err.print(str(error), markup=False)
        raise typer.Exit(CONFIGURATION_WRONG) from None
    return FoundMirror(store, config, is_answered(store))


def is_answered(store: Path) -> bool:
    """Whether a mirror serves this store, as far as this user can see. One that is about to take
    commands, or to end, is waited for; so is a command that works in the store by itself."""
    for _ in range(round(_PATIENCE / _LOOK)):
        if _takes_commands(store):
            return True
        if not _is_held(store):
            return False
        time.sleep(_LOOK)
    return False


def _takes_commands(store: Path) -> bool:
    from ..server.control.place import NAME, short

    try:
        with short(store) as folder, socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBED)
            probe.connect(str(folder / NAME))
    except (PermissionError, TimeoutError):
        return True
    except OSError:
        return False
    return True


def _is_held(store: Path) -> bool:
    from ..storage.disk.service import is_held

    return is_held(store)


def load_or_exit(path: Path | None) -> Config:
    """The configuration; its mistakes end the command."""
    try:
        return load(path)
    except ConfigError as error:
        err.print(str(error), markup=False)
        raise typer.Exit(CONFIGURATION_WRONG) from None


def print_json(told: object) -> None:
    """One line, in ASCII: names in it do nothing to a terminal."""
    out.print(json.dumps(told), markup=False)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """`right`: the heads of columns of numbers."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    numbers = right.split()
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if head in numbers else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        ]
        out.print("  ".join(cells).rstrip(), markup=False)


def log_nothing() -> None:
    """What goes wrong in a command is told in words: not as the log of a server, too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def give_up(message: str, status: int = 1) -> typer.Exit:
    """To be raised, when what went wrong is told."""
    err.print(f"registry-mirror: {message}", markup=False)
    return typer.Exit(status)


class CannotPrint(Exception):
    """Standard output takes nothing more, as where a disk is full. (A pipe whose reader has left is
    no mistake: Rich and Click end the command for it, without a word.)"""


class _Output(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _told(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _told(error) from error


def _told(error: OSError) -> Exception:
    return error if isinstance(error, BrokenPipeError) else CannotPrint(error.strerror)


def watch_output() -> None:
    """From now on, what is printed raises CannotPrint when it cannot be written."""
    now = sys.stdout
    if isinstance(now, io.TextIOWrapper):
        sys.stdout = _Output(
            now.buffer,
            now.encoding,
            now.errors,
            line_buffering=now.line_buffering,
            write_through=now.write_through,
        )


def drop_output() -> None:
    """What was printed and cannot be written is dropped: else Python would try once more, and tell
    of it, when it ends."""
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)


_epilogs: dict[Callable[..., Any], str] = {}


def explained(*examples: str, failed: str = "it could not be done") -> Callable[[Command], Command]:
    """What stands below a command's help: examples, without the program's name before them unless
    they begin with "$ ", and what its exit statuses mean; `failed` is what 1 means."""

    def note(command: Command) -> Command:
        _epilogs[command] = _epilog(examples, failed)
        return command

    return note


def register(app: typer.Typer, *commands: Callable[..., Any], without: str = "") -> None:
    """Makes these functions commands of the program, or of a group of it, with their epilogs.
    `without`: what their names begin with, and their commands' names do not."""
    for command in commands:
        told = inspect.cleandoc(command.__doc__ or "").split("\n\n")
        app.command(
            name=command.__name__.removeprefix(without)
            .rstrip("_")
            .replace("_", "-"),  # `import_`: Python's own word
            help="\n\n".join(" ".join(paragraph.split()) for paragraph in told),
            epilog=_epilogs.get(command) or _epilog((), ""),
        )(command)


def _typed(example: str) -> str:
    return example.removeprefix("$ ") if example[:1] == "$" else f"registry-mirror {example}"


def _epilog(examples: tuple[str, ...], failed: str) -> str:
    """Typer sets a line for each paragraph, and reads square brackets as markup."""
    lines = ["Examples:", *(f"$ {escape(_typed(example))}" for example in examples)]
    statuses = f"Exit status: 0 good, 1 {escape(failed or 'it could not be done')}, "
    return "\n\n".join(
        [*(lines if examples else ()), f"{statuses}2 the configuration or the arguments are wrong."]
    )
