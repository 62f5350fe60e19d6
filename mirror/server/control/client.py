"""A command's end of the control socket."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import hdrs

from .place import LENGTH, LINES, NAME, short

_SILENT = 60.0  # seconds without a line, nor a word that the mirror is at it still
_LONGEST_LINE = 64 << 20  # bytes


class NotAnswered(Exception):
    """The mirror was not asked, or has not done it; the message says why. `status`: what the
    program exits with. `is_running`: whether there is a mirror that serves this store."""

    def __init__(self, message: str, status: int = 1, *, is_running: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.is_running = is_running


async def ask(folder: Path, command: str, **parameters: object) -> Mapping[str, Any]:
    """The one line, or the last, that the mirror answers which serves the store in this folder.
    Raises NotAnswered."""
    found: Mapping[str, Any] = {}
    async for line in ask_lines(folder, command, parameters):
        found = line
    return found


async def ask_lines(
    folder: Path,
    command: str,
    parameters: Mapping[str, object],
    given: AsyncIterator[bytes] | None = None,
) -> AsyncGenerator[Mapping[str, Any], None]:
    """All lines that it answers, as they come. `given`: bytes for a command that takes them. Raises
    NotAnswered."""
    async with _asking(folder, command, parameters, given) as answer:
        async for line in answer.content:
            if line.strip():
                yield _read(line)


async def ask_bytes(
    folder: Path, command: str, parameters: Mapping[str, object]
) -> AsyncGenerator[bytes, None]:
    """The bytes that it answers. Raises NotAnswered, also when they are not all."""
    async with _asking(folder, command, parameters, None) as answer:
        if answer.content_type == LINES:
            _read(await answer.read())
        async for chunk in answer.content.iter_any():
            yield chunk


def _read(line: bytes) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(line)
    if error := found.get("error"):
        raise NotAnswered(error["message"], error["status"])
    return found


@contextlib.asynccontextmanager
async def _asking(
    folder: Path,
    command: str,
    parameters: Mapping[str, object],
    given: AsyncIterator[bytes] | None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    path = folder / NAME
    is_for_others = NotAnswered(
        f"{path} is for the user who runs the mirror, and for root: try as one of them"
    )
    nobody_runs = NotAnswered(f"no mirror runs that serves {folder}", is_running=False)
    words = json.dumps(parameters).encode()

    async def body() -> AsyncIterator[bytes]:
        yield words
        if given is not None:
            async for chunk in given:
                yield chunk

    try:
        with short(folder) as folder_here:
            if not stat.S_ISSOCK(os.stat(folder_here / NAME).st_mode):
                raise NotAnswered(f"{path} is no socket", is_running=False)
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(folder_here / NAME)),
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=_SILENT),
                    read_bufsize=_LONGEST_LINE,
                ) as session,
                session.post(
                    f"http://mirror/{command}",
                    data=words if given is None else body(),
                    headers={LENGTH: str(len(words)), hdrs.CONTENT_TYPE: "application/json"},
                ) as answer,
            ):
                if answer.status != 200:
                    raise NotAnswered(f"the mirror that serves {folder} does not know {command}")
                yield answer
    except PermissionError:
        raise is_for_others from None
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise nobody_runs from None
    except aiohttp.ClientConnectorError as error:
        refused = isinstance(error.os_error, PermissionError)
        raise (is_for_others if refused else nobody_runs) from None
    except TimeoutError:
        raise NotAnswered(
            f"the mirror that serves {folder} has said nothing for {_SILENT:g} s"
        ) from None
    except (aiohttp.ClientError, ValueError) as error:
        raise NotAnswered(f"the mirror that serves {folder} broke off: {error}") from None
