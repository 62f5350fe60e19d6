"""Work about images, asked of the mirror that runs; where none does, done in its store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from ..config import Config
from .console import err, find_mirror, give_up, load_or_exit, log_nothing

T = TypeVar("T")
Line = Mapping[str, Any]
Commands = Mapping[str, Any]
Alone = Callable[[Config], AbstractAsyncContextManager[Commands]]
"""Opens what commands need where no mirror runs; ends the program where that cannot be."""


def asked_of_running(config: Path | None, command: str, **parameters: object) -> dict[str, Any]:
    """What the mirror that runs answers. Where none does, or it cannot, the program ends."""
    from ..app import NotAnswered, ask

    log_nothing()
    mirror = find_mirror(config)
    try:
        return dict(asyncio.run(ask(mirror.store, command, **parameters)))
    except NotAnswered as error:
        of = f" (as {mirror.config} says)" if mirror.config is not None else "; --config says which"
        raise give_up(f"{error}{'' if error.is_running else of}", error.status) from None


async def lines_of_running(
    config: Path | None, command: str, parameters: Mapping[str, object]
) -> AsyncGenerator[Line, None]:
    """All that the mirror that runs answers. Where none does, or it cannot, the program ends."""
    from ..app import NotAnswered, ask_lines

    try:
        answers = ask_lines(find_mirror(config).store, command, parameters)
        async with contextlib.aclosing(answers):
            async for line in answers:
                yield line
    except NotAnswered as error:
        raise give_up(str(error), error.status) from None


def lines(
    config: Path | None,
    command: str,
    parameters: Mapping[str, object],
    given: AsyncIterator[bytes] | None = None,
) -> AsyncGenerator[Line, None]:
    """What this command answers. What it cannot do ends the program."""
    return _told(_images_alone, config, command, parameters, given)


def hosted_lines(
    config: Path | None,
    command: str,
    parameters: Mapping[str, object],
    given: AsyncIterator[bytes] | None = None,
) -> AsyncGenerator[Line, None]:
    """As `lines`, of a command about repositories of one's own. Where no mirror runs it is done to
    their records, also before the first start."""
    return _told(_hosting_alone, config, command, parameters, given)


def chunks(
    config: Path | None, command: str, parameters: Mapping[str, object]
) -> AsyncGenerator[bytes, None]:
    """The bytes that this command gives. What it cannot do ends the program."""
    return _given(_images_alone, config, command, parameters)


def hosted_chunks(
    config: Path | None, command: str, parameters: Mapping[str, object]
) -> AsyncGenerator[bytes, None]:
    """As `chunks`, of a command about repositories of one's own."""
    return _given(_hosting_alone, config, command, parameters)


def _told(
    alone: Alone,
    config: Path | None,
    command: str,
    parameters: Mapping[str, object],
    given: AsyncIterator[bytes] | None,
) -> AsyncGenerator[Line, None]:
    from ..app import ask_lines

    return _asked_or_done(
        config,
        lambda store: ask_lines(store, command, parameters, given),
        alone,
        lambda commands: _run_here(commands[command], parameters, given),
    )


def _given(
    alone: Alone, config: Path | None, command: str, parameters: Mapping[str, object]
) -> AsyncGenerator[bytes, None]:
    from ..app import ask_bytes

    return _asked_or_done(
        config,
        lambda store: ask_bytes(store, command, parameters),
        alone,
        lambda commands: _bytes_here(commands[command], parameters),
    )


async def _asked_or_done(
    config: Path | None,
    ask: Callable[[Path], AsyncGenerator[T, None]],
    alone: Alone,
    do: Callable[[Commands], AsyncGenerator[T, None]],
) -> AsyncGenerator[T, None]:
    """What the mirror answers that runs; where none does, what `do` gives, with the commands of
    `alone`."""
    from ..app import NotAnswered

    log_nothing()
    mirror = find_mirror(config)
    try:
        async with contextlib.aclosing(ask(mirror.store)) as answers:
            async for each in answers:
                yield each
        return
    except NotAnswered as error:
        if error.is_running:
            raise give_up(str(error), error.status) from None
    async with (
        alone(load_or_exit(mirror.config)) as commands,
        contextlib.aclosing(do(commands)) as done,
    ):
        async for each in done:
            yield each


async def last_line(config: Path | None, command: str, parameters: Mapping[str, object]) -> Line:
    """As `lines`: the only one, or the last."""
    found: Line = {}
    async with contextlib.aclosing(lines(config, command, parameters)) as answers:
        async for line in answers:
            found = line
    return found


async def _run_here(
    command: Any, parameters: Mapping[str, object], given: AsyncIterator[bytes] | None
) -> AsyncGenerator[Line, None]:
    """What a command answers that this process has done itself."""
    from ..app import CommandFailed, TakesBytes, Tells

    if isinstance(command, TakesBytes) and given is not None:
        answers = command.run(parameters, given)
    else:
        assert isinstance(command, Tells)  # noqa: S101 - as its name says
        answers = command.run(parameters)
    try:
        async with contextlib.aclosing(answers):
            async for line in answers:
                yield line
    except CommandFailed as error:
        raise give_up(error.message, error.status) from None


async def _bytes_here(
    command: Any, parameters: Mapping[str, object]
) -> AsyncGenerator[bytes, None]:
    """The bytes that a command gives that this process has done itself."""
    from ..app import CommandFailed, GivesBytes

    assert isinstance(command, GivesBytes)  # noqa: S101 - as its name says
    try:
        async with contextlib.aclosing(command.run(parameters)) as pieces:
            async for piece in pieces:
                yield piece
    except CommandFailed as error:
        raise give_up(error.message, error.status) from None


@contextlib.asynccontextmanager
async def _images_alone(config: Config) -> AsyncIterator[Commands]:
    from ..app import CannotStart, images_alone

    if not config.storage.path.is_dir():
        raise give_up(f"there is no {config.storage.path}: a mirror makes it when it first serves")
    tell_that_none_runs(config.storage.path)
    try:
        async with images_alone(config) as commands:
            yield commands
    except CannotStart as error:
        raise give_up(str(error)) from None


@contextlib.asynccontextmanager
async def _hosting_alone(config: Config) -> AsyncIterator[Commands]:
    from ..app import CannotStart
    from ..app.hosting_alone import hosting_alone

    if config.hosted is not None:
        tell_that_none_runs(config.storage.path)
    try:
        async with hosting_alone(config) as commands:
            yield commands
    except CannotStart as error:
        raise give_up(str(error)) from None


@functools.cache  # once, though export fetches first
def tell_that_none_runs(store: Path) -> None:
    """Else what is done in a folder that no mirror serves is taken for done in the mirror."""
    err.print(f"No mirror runs; this is done in its store, {store}.", markup=False)
