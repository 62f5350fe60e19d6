"""`/api/v1/`: what the page shows and does, for programs, in the JSON of the commands' --json."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import hdrs, web

from ...contracts import activity as told
from ...contracts import images as told_of_images
from ...contracts.activity import UnknownSubject
from ...contracts.images import ImagesUnavailable, PurgeTotal, PurgeWanted, Sort, UnknownImage
from ...frozen import dataclass
from ..browsing.bodies import Body, whole_number
from ..browsing.browsers import refuse_other_sites
from ..browsing.failures import Refused
from ..browsing.openapi import Operation, Parameter, document
from ..control import CommandFailed, Tells
from .console import Console
from .failures import read_only
from .guard import COOKIE, Guard
from .live import Streams, as_json

BASE = "/api/v1"
_MOST_PULLS = 1000
_MOST_IMAGES = 1000
_BEAT = 15.0  # seconds without an event after which a comment says that the stream lives
_LINES = "application/x-ndjson"

Answer = Callable[[web.Request, Console], Awaitable[web.StreamResponse]]

_LIMIT = Parameter("limit", "integer", "so many at most")
_LIKE = Parameter("like", "string", "those whose image, client or outcome has this in it")


@dataclass(frozen=True, slots=True)
class _Route:
    operation: Operation
    answer: Answer


def add_api(application: web.Application, console: Console, guard: Guard, streams: Streams) -> None:
    """All of it, and its description at openapi.json."""
    routes = [*_READS, *_WRITES, _events(streams)]
    described = document(BASE, [each.operation for each in routes], _ABOUT)

    def checked(route: _Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            cookie = request.cookies.get(COOKIE, "")
            changes = route.operation.method == "POST"
            if changes and not guard.may_write:
                raise read_only()  # whoever asks: it is the same for all
            refuse_other_sites(request.headers, *(() if changes else ("none",)))
            guard.check_sight(request.headers, cookie, request.remote or "")
            if changes:
                guard.check_change(request.headers, cookie)
            try:
                return await route.answer(request, console)
            except UnknownSubject as error:
                raise Refused(404, "UNKNOWN", str(error)) from None
            except UnknownImage as error:
                status, code = (404, "UNKNOWN_IMAGE") if error.is_name else (400, "INVALID")
                raise Refused(status, code, str(error)) from None
            except ImagesUnavailable as error:
                raise Refused(503, "UNAVAILABLE", str(error), retry_after=5) from None
            except CommandFailed as error:
                status, code = (400, "INVALID") if error.status == 2 else (409, "FAILED")
                raise Refused(status, code, error.message) from None

        return handle

    async def describe(request: web.Request) -> web.Response:
        guard.check_sight(request.headers, request.cookies.get(COOKIE, ""), request.remote or "")
        return web.json_response(described)

    for route in routes:
        path = BASE + route.operation.path.replace("{name}", "{name:.+}")
        add = application.router.add_get if route.operation.method == "GET" else None
        if add is not None:
            add(path, checked(route), allow_head=route.operation.path != "/events")
        else:
            application.router.add_post(path, checked(route))
    application.router.add_get(f"{BASE}/openapi.json", describe)


# What is read.


async def _status(_: web.Request, console: Console) -> web.Response:
    return web.json_response(told.rendered(await console.activity.status()))


async def _top(_: web.Request, console: Console) -> web.Response:
    return web.json_response(told.rendered(console.activity.top()))


async def _minutes(_: web.Request, console: Console) -> web.Response:
    return _listed("minutes", map(told.rendered, console.activity.minutes()))


async def _endpoints(_: web.Request, console: Console) -> web.Response:
    status = told.rendered(await console.activity.status())
    return _listed("endpoints", status["endpoints"])


async def _downloads(_: web.Request, console: Console) -> web.Response:
    return _listed("downloads", map(told.rendered, console.activity.downloads()))


async def _pulls(request: web.Request, console: Console) -> web.Response:
    limit = whole_number(request.query, "limit", 50, 1, _MOST_PULLS)
    found = console.activity.pulls(limit, request.query.get("like", ""))
    return _listed("pulls", map(told.rendered, found))


async def _why(request: web.Request, console: Console) -> web.Response:
    return web.json_response(told.rendered(await console.activity.why(request.match_info["name"])))


async def _images(request: web.Request, console: Console) -> web.Response:
    given = request.query.get("sort", Sort.NAME.value)
    try:
        sort = Sort(given)
    except ValueError:
        words = f"sort is one of {', '.join(Sort)}"
        raise Refused(400, "INVALID", words) from None
    limit = whole_number(request.query, "limit", 100, 1, _MOST_IMAGES)
    page = await console.images.list(
        request.query.get("pattern", ""), sort, request.query.get("after", ""), limit
    )
    return web.json_response(told_of_images.rendered(page))


async def _image(request: web.Request, console: Console) -> web.Response:
    detail = await console.images.image(request.match_info["name"])
    return web.json_response(told_of_images.rendered(detail))


def _listed(name: str, entries: Any) -> web.Response:
    return web.json_response({name: list(entries)})


def _events(streams: Streams) -> _Route:
    async def answer(request: web.Request, console: Console) -> web.StreamResponse:
        limit = whole_number(request.query, "limit", 50, 0, 1000)
        if "application/json" in request.headers.get(hdrs.ACCEPT, ""):
            found = console.activity.happenings(limit)
            return _listed("events", map(told.rendered, found))
        last = request.headers.get("Last-Event-ID", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else -1
        async with streams.open(request) as stream:
            with contextlib.suppress(TimeoutError, ConnectionError):
                state = 0
                while not streams.ends.is_set():
                    news = console.activity.happenings(limit or 1000)
                    if limit == 0 and after < 0:
                        after, news = max((each.number for each in news), default=0), ()
                    for each in sorted(news, key=lambda each: each.number):
                        if each.number > after:
                            await stream.tell(each.kind, as_json(told.rendered(each)), each.number)
                            after = each.number
                    before = state
                    state = await _changed(console, state, streams)
                    if state == before:
                        await stream.beat()
        return stream.response

    operation = Operation(
        "GET",
        "/events",
        "What happens, as server-sent events; with Accept: application/json, the last of them",
        (_LIMIT,),
        gives="text/event-stream",
    )
    return _Route(operation, answer)


async def _changed(console: Console, state: int, streams: Streams) -> int:
    """As that of an Activity; also returns when the streams end."""
    changing = asyncio.ensure_future(console.activity.changed(state, _BEAT))
    ending = asyncio.ensure_future(streams.ends.wait())
    try:
        await asyncio.wait((changing, ending), return_when=asyncio.FIRST_COMPLETED)
        return changing.result() if changing.done() else state
    finally:
        changing.cancel()
        ending.cancel()


# What is done.


async def _purge(request: web.Request, console: Console) -> web.Response:
    body = await Body.read(request)
    wanted = PurgeWanted(
        body.texts("patterns"),
        body.number("used_before"),
        body.yes_or_no("is_trial"),
        body.yes_or_no("with_pinned"),
    )
    body.end()
    if not wanted.patterns and wanted.used_before is None:
        raise Refused(400, "INVALID", "patterns or used_before: which images")
    purged, total = [], PurgeTotal(0, 0, 0)
    async for each in console.images.purge(wanted):
        if isinstance(each, PurgeTotal):
            total = each
        else:
            purged.append(told_of_images.rendered(each))
    return web.json_response({"purged": purged, "total": told_of_images.rendered(total)})


async def _pin(request: web.Request, console: Console) -> web.Response:
    body = await Body.read(request)
    image, to = body.text("image"), body.text("to", "")
    body.end()
    return web.json_response(told_of_images.rendered(await console.images.pin(image, to)))


async def _unpin(request: web.Request, console: Console) -> web.Response:
    body = await Body.read(request)
    image = body.text("image")
    body.end()
    return web.json_response(told_of_images.rendered(await console.images.unpin(image)))


async def _warm(request: web.Request, console: Console) -> web.StreamResponse:
    body = await Body.read(request)
    images, platforms = body.texts("images"), body.texts("platforms")
    body.end()
    if not images:
        raise Refused(400, "INVALID", "images: which ones")
    wanted = {"images": [(name, platforms) for name in images]}
    return await _told_by_lines(request, _lines(console, "warm", wanted))


async def _reload(request: web.Request, console: Console) -> web.Response:
    body = await Body.read(request)
    body.end()
    last: Mapping[str, Any] = {}
    async for line in _lines(console, "reload", {}):
        last = line
    return web.json_response(last)


async def _sync(request: web.Request, console: Console) -> web.StreamResponse:
    body = await Body.read(request)
    names = body.texts("names")
    body.end()
    return await _told_by_lines(request, _lines(console, "sync-run", {"names": names}))


def _lines(
    console: Console, name: str, parameters: Mapping[str, Any]
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Of a command of the control socket."""
    command = console.command_of(name)
    if not isinstance(command, Tells):
        raise Refused(501, "UNSUPPORTED", f"this mirror has no {name}")
    return command.run(parameters)


async def _told_by_lines(
    request: web.Request, lines: AsyncGenerator[Mapping[str, Any], None]
) -> web.StreamResponse:
    """One JSON object a line, as they come. What fails before the first is an error like others;
    afterwards it is the last line."""
    async with contextlib.aclosing(lines):
        first = await anext(lines, None)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: _LINES})
        await response.prepare(request)
        if first is not None:
            await response.write(json.dumps(first).encode() + b"\n")
        try:
            async for line in lines:
                await response.write(json.dumps(line).encode() + b"\n")
        except CommandFailed as error:
            failed = {"error": {"code": "FAILED", "message": error.message}}
            await response.write(json.dumps(failed).encode() + b"\n")
    await response.write_eof()
    return response


_ABOUT = "What changes something is answered only with admin.write: true."
_NAME = Parameter("name", "string", "", is_path=True)

_READS = (
    _Route(Operation("GET", "/status", "The mirror as a whole"), _status),
    _Route(Operation("GET", "/top", "What goes on at this moment"), _top),
    _Route(Operation("GET", "/minutes", "The last hour, minute by minute"), _minutes),
    _Route(Operation("GET", "/endpoints", "The upstreams, and how they are"), _endpoints),
    _Route(Operation("GET", "/downloads", "Blobs on their way here"), _downloads),
    _Route(Operation("GET", "/pulls", "The last pulls, the newest first", (_LIMIT, _LIKE)), _pulls),
    _Route(
        Operation(
            "GET", "/pulls/{name}", "Why: of a request's id (X-Request-Id), or an image", (_NAME,)
        ),
        _why,
    ),
    _Route(
        Operation(
            "GET",
            "/images",
            "Images that are here, in pages",
            (
                Parameter("pattern", "string", "those that it means: redis, ghcr.io/acme/*"),
                Parameter("sort", "string", "", values=tuple(Sort)),
                Parameter("after", "string", "the `following` of the page before"),
                _LIMIT,
            ),
        ),
        _images,
    ),
    _Route(Operation("GET", "/images/{name}", "One image, piece by piece", (_NAME,)), _image),
)

_WRITES = (
    _Route(
        Operation(
            "POST",
            "/purge",
            "Removes images; with is_trial it says what would go",
            body={
                "patterns": "array",
                "used_before": "number",
                "is_trial": "boolean",
                "with_pinned": "boolean",
            },
        ),
        _purge,
    ),
    _Route(
        Operation("POST", "/pin", "Freezes a tag", body={"image": "string", "to": "string"}),
        _pin,
    ),
    _Route(Operation("POST", "/unpin", "Frees a tag", body={"image": "string"}), _unpin),
    _Route(
        Operation(
            "POST",
            "/warm",
            "Fetches images ahead of clients, and tells line by line",
            body={"images": "array", "platforms": "array"},
            gives=_LINES,
        ),
        _warm,
    ),
    _Route(
        Operation(
            "POST",
            "/sync",
            "Runs entries of `sync` now, and tells line by line",
            body={"names": "array"},
            gives=_LINES,
        ),
        _sync,
    ),
    _Route(Operation("POST", "/reload", "Reads the configuration again", body={}), _reload),
)
