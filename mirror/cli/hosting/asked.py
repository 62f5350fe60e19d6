"""What these commands share: how they ask, and how arguments and secrets are read."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ...clock import Clock
from ...config import Mistake, seconds, size_or_none
from ...quantities import ago
from ..asking import hosted_lines
from ..console import CONFIGURATION_WRONG, give_up, print_json, print_table

Line = Mapping[str, Any]
T = TypeVar("T")

_LARGEST = 4 << 20  # bytes of a file that is read whole

NameArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
OrganisationArgument = Annotated[str, typer.Argument(metavar="ORG", show_default=False)]
UserArgument = Annotated[str, typer.Argument(metavar="USER", show_default=False)]
RepositoryArgument = Annotated[
    str,
    typer.Argument(metavar="ORG/NAME", help="With its organisation.", show_default=False),
]
PasswordOption = Annotated[
    str,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="The password, in its first line; -: standard input. Without it, it is asked for.",
        show_default=False,
    ),
]
ExpiresOption = Annotated[
    str,
    typer.Option(
        "--expires",
        metavar="TIME",
        help="From now, such as 90d. Without it, never.",
        show_default=False,
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal.")]


def answered(config: Path | None, command: str, **words: object) -> list[Line]:
    """All lines of the answer. What cannot be done ends the program."""

    async def run() -> list[Line]:
        async with contextlib.aclosing(hosted_lines(config, command, words)) as lines:
            return [line async for line in lines]

    return asyncio.run(run())


def one(config: Path | None, command: str, **words: object) -> Line:
    """The one line of the answer; empty where something is only done."""
    return next(iter(answered(config, command, **words)), {})


def shown(
    found: Sequence[Line],
    heads: Sequence[str],
    row: Callable[[Line], Sequence[str]],
    *,
    as_json: bool,
    right: str = "",
) -> None:
    """A table, or one object a line."""
    if as_json:
        for line in found:
            print_json(line)
    elif found:
        print_table(heads, [row(line) for line in found], right=right)


def since(at: float | None) -> str:
    age = ago(at, Clock().wall())
    return age if age in ("now", "never") else f"{age} ago"


def until(at: float | None) -> str:
    if at is None:
        return "never"
    now = Clock().wall()
    return "over" if at <= now else f"in {ago(now, at)}"


def time_of(text: str, option: str) -> float | None:
    """Seconds; None for nothing."""
    return _read(seconds, text, option) if text else None


def size_of(text: str, option: str) -> int | None:
    """Bytes; None for `none`, or nothing."""
    return _read(size_or_none, text, option) if text not in ("", "none") else None


def _read(read: Callable[[object], T], text: str, option: str) -> T:
    try:
        return read(text)
    except Mistake as mistake:
        raise give_up(f"{option}: {mistake}", CONFIGURATION_WRONG) from None


def text_of(file: str) -> str:
    """A file, or standard input for `-`."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise give_up(f"{file}: is larger than 4 MiB", CONFIGURATION_WRONG)
        return data.decode()
    except OSError as error:
        raise give_up(f"{file}: {error.strerror}", CONFIGURATION_WRONG) from None
    except UnicodeDecodeError:
        raise give_up(f"{file}: is no text (UTF-8)", CONFIGURATION_WRONG) from None


def password_of(file: str) -> str:
    """From a file, standard input, or whoever sits there: never from the arguments, which all users
    of a machine see."""
    if file:
        return text_of(file).partition("\n")[0].removesuffix("\r")
    if not sys.stdin.isatty():
        raise give_up("write --password-file FILE, or - for standard input", CONFIGURATION_WRONG)
    try:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise give_up("these are two passwords: nothing was changed")
    except (EOFError, KeyboardInterrupt):
        raise give_up("nothing was changed") from None
    return password


def confirm(question: str, *, yes: bool) -> None:
    """Asks where somebody can answer."""
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        raise give_up("nothing was removed")
