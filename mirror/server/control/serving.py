"""The mirror's end of the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from aiohttp import hdrs, web

from ...frozen import dataclass
from ...oci.errors import Unavailable
from .place import BYTES, LENGTH, LINES, NAME, short

log = structlog.get_logger()

Parameters = Mapping[str, Any]

Line = Mapping[str, Any]


class CommandFailed(Exception):
    """A command cannot do what it was asked for. The message says why, and what to do, to the
    person who has typed it; `status` is what the program exits with: 2 for wrong arguments."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Tells:
    """A command that answers by JSON objects, as it comes to them: how far it is, and its result.
    It is cancelled when whoever has asked is gone."""

    run: Callable[[Parameters], AsyncGenerator[Line, None]]


@dataclass(frozen=True, slots=True)
class GivesBytes:
    """A command that answers by bytes. What it raises after the first of them can only break the
    answer off."""

    run: Callable[[Parameters], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class TakesBytes:
    """A command that is given bytes, and answers as `Tells` does."""

    run: Callable[[Parameters, AsyncIterator[bytes]], AsyncGenerator[Line, None]]


Command = Tells | GivesBytes | TakesBytes


def one(answer: Callable[[Parameters], Awaitable[Line]]) -> Tells:
    """A command that answers by one JSON object."""

    async def run(parameters: Parameters) -> AsyncGenerator[Line, None]:
        yield await answer(parameters)

    return Tells(run)


_NEW = f"{NAME}.new"
_BACKLOG = 16
_END = 1.0  # seconds that commands have to end when the mirror stops
_IDLE = 10.0  # seconds
_BEAT = 10.0  # seconds after which a command that has told nothing is said to be at it still
_PARAMETERS = 16 << 20  # bytes: lists of some 100,000 images


@contextlib.asynccontextmanager
async def taking_commands(
    folder: Path, command_of: Callable[[str], Command | None]
) -> AsyncIterator[None]:
    """Commands are taken while the context lasts; `command_of` gives the one of a name. Where there
    can be no socket the mirror runs without, and says so."""
    application = web.Application(client_max_size=_PARAMETERS)
    application.router.add_post("/{name}", _handler(command_of))
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=_IDLE,
        shutdown_timeout=_END,
        handler_cancellation=True,
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


def _handler(
    command_of: Callable[[str], Command | None],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        try:
            command = command_of(name)
        except ImportError as error:  # of files that are another version's by now
            return web.Response(
                body=_line({"error": _told(name, error)}), headers={hdrs.CONTENT_TYPE: LINES}
            )
        if command is None:
            raise web.HTTPNotFound
        parameters = await _parameters(request)
        match command:
            case GivesBytes():
                return await _give(request, name, command.run(parameters))
            case TakesBytes():
                return await _tell(request, name, command.run(parameters, _bytes(request)))
            case Tells():
                return await _tell(request, name, command.run(parameters))

    return handle


async def _parameters(request: web.Request) -> Parameters:
    length = int(request.headers.get(LENGTH, "0"))
    if length > _PARAMETERS:
        raise web.HTTPRequestEntityTooLarge(_PARAMETERS, length)
    found: Parameters = json.loads(await request.content.readexactly(length) or b"{}")
    return found


async def _bytes(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        yield chunk


async def _tell(
    request: web.Request, name: str, lines: AsyncGenerator[Line, None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: LINES})
    await response.prepare(request)
    beating = asyncio.create_task(_beat(response))
    try:
        async with contextlib.aclosing(lines):
            async for line in lines:
                await response.write(_line(line))
    except ConnectionError:
        raise  # whoever has asked is gone
    except Exception as error:
        await response.write(_line({"error": _told(name, error)}))
    finally:
        beating.cancel()
    await response.write_eof()
    return response


async def _beat(response: web.StreamResponse) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(_BEAT)
            await response.write(b"\n")


async def _give(
    request: web.Request, name: str, chunks: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    async with contextlib.aclosing(chunks):
        try:
            first = await anext(chunks, b"")
        except Exception as error:
            body = _line({"error": _told(name, error)})
            return web.Response(body=body, headers={hdrs.CONTENT_TYPE: LINES})
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: BYTES})
        await response.prepare(request)
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    await response.write_eof()
    return response


def _told(name: str, error: Exception) -> Mapping[str, Any]:
    if isinstance(error, CommandFailed):
        return {"message": error.message, "status": error.status}
    if isinstance(error, Unavailable):  # what the mirror itself asks is away
        return {"message": error.message, "status": 1}
    log.error("command_failed", command=name, exc_info=error)
    return {
        "message": f"{name} failed in the mirror ({type(error).__name__}): see its log",
        "status": 1,
    }


def _line(line: Line) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _listening(folder: Path) -> socket.socket:
    """The socket, in the place of one that a mirror has left which was killed: whoever serves a
    store holds its lock, so there is no other."""
    found = socket.socket(socket.AF_UNIX)
    try:
        with short(folder) as path:
            with contextlib.suppress(FileNotFoundError):
                (path / _NEW).unlink()
            found.bind(str(path / _NEW))
            (path / _NEW).chmod(0o600)
            (path / _NEW).replace(path / NAME)
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found
