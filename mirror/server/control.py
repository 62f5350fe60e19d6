"""The control socket: by it commands ask the mirror that runs.

A Unix socket in the store's folder, for the user who runs the mirror and for root alone (mode
0600), on which HTTP is spoken: `POST /<command>`, answered by a JSON object.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiohttp import web

log = structlog.get_logger()

NAME = "control.sock"

Command = Callable[[], Awaitable[Mapping[str, Any]]]

_NEW = f"{NAME}.new"
_BACKLOG = 16
_END = 1.0  # seconds that commands have to end when the mirror stops
_IDLE = 10.0  # seconds
_ANSWERED_WITHIN = 90.0  # seconds: longer than any command takes here


class NotAnswered(Exception):
    """No mirror can be asked; the message says why."""


@contextlib.asynccontextmanager
async def taking_commands(folder: Path, commands: Mapping[str, Command]) -> AsyncIterator[None]:
    """Commands are taken while the context lasts. Where there can be no socket the mirror runs
    without, and says so."""
    application = web.Application()
    for name, command in commands.items():
        application.router.add_post(f"/{name}", _handler(command))
    runner = web.AppRunner(
        application, access_log=None, keepalive_timeout=_IDLE, shutdown_timeout=_END
    )
    await runner.setup()
    try:
        try:
            listening = _listening(folder)
        except OSError as error:
            log.error("control_socket_not_opened", path=str(folder / NAME), reason=error.strerror)
        else:
            await web.SockSite(runner, listening, backlog=_BACKLOG).start()
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()
        await runner.cleanup()


async def ask(folder: Path, command: str) -> Mapping[str, Any]:
    """What the mirror that serves the store in this folder answers. Raises NotAnswered."""
    path = folder / NAME
    try:
        with _short(folder) as short:
            if not stat.S_ISSOCK(os.stat(short / NAME).st_mode):
                raise NotAnswered(f"{path} is no socket")
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(short / NAME)),
                    timeout=aiohttp.ClientTimeout(_ANSWERED_WITHIN),
                ) as session,
                session.post(f"http://mirror/{command}") as answer,
            ):
                if answer.status != 200:
                    raise NotAnswered(f"the mirror that serves {folder} does not know {command}")
                found: Mapping[str, Any] = await answer.json()
                return found
    except PermissionError:
        raise NotAnswered(
            f"{path} is for the user who runs the mirror, and for root: try as one of them"
        ) from None
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NotAnswered(f"no mirror runs that serves {folder}") from None
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error
        if isinstance(reason, PermissionError):
            raise NotAnswered(
                f"{path} is for the user who runs the mirror, and for root: try as one of them"
            ) from None
        raise NotAnswered(f"no mirror runs that serves {folder}") from None
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise NotAnswered(f"the mirror that serves {folder} broke off: {error}") from None
    except TimeoutError:
        raise NotAnswered(
            f"the mirror that serves {folder} has not answered within {_ANSWERED_WITHIN:g} s"
        ) from None


def _handler(command: Command) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response(await command())

    return handle


def _listening(folder: Path) -> socket.socket:
    """The socket, in the place of one that a mirror has left which was killed: whoever serves a
    store holds its lock, so there is no other."""
    found = socket.socket(socket.AF_UNIX)
    try:
        with _short(folder) as short:
            with contextlib.suppress(FileNotFoundError):
                (short / _NEW).unlink()
            found.bind(str(short / _NEW))
            (short / _NEW).chmod(0o600)
            (short / _NEW).replace(short / NAME)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """The folder under a short name: that of a socket has 107 bytes at most (unix(7))."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
