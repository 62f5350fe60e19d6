"""The admin port: health for machines, a page for people, and an API beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage

from ...clock import Clock
from ..browsing.browsers import HEADERS
from ..browsing.failures import Refused
from ..http.browsers import is_loopback
from .actions import Actions
from .api import add_api
from .console import Admission, Admissions, Console
from .guard import Guard, refuse_other_names
from .health import add_health
from .login import add_login
from .page import Page

# Seconds that answers have to end when the mirror stops, and again when they are cancelled: pulls
# have had most of the time that a service manager leaves.
_END = 1.0
_BODY = 1 << 20  # bytes: a list of some 10,000 images
_HEALTH = ("/metrics", "/healthz", "/readyz")
_API = "/api/"


def admin_application(
    bound_to: str,
    metrics: Callable[[], Awaitable[bytes]],
    ready: Callable[[], tuple[bool, Mapping[str, Any]]],
    missing: Callable[[str, str | None], Awaitable[Sequence[str]]],
    console: Console,
    admissions: Admissions = Admission,
) -> web.Application:
    """See `add_health` for what is asked by machines.

    `bound_to` is the address that the port listens on. If it is a loopback one, requests must name
    it so: a web page somewhere can make a name of its own point to 127.0.0.1 (DNS rebinding), and
    have its reader's browser ask here.
    """
    guard = Guard(admissions, Clock())
    middlewares = [_guarded(is_loopback(bound_to))]
    application = web.Application(middlewares=middlewares, client_max_size=_BODY)
    add_health(application, metrics, ready, missing)
    application.on_response_prepare.append(add_headers)
    page = Page(application, console, guard)
    Actions(application, console, guard, page.templates)
    add_login(application, guard, page.templates)
    add_api(application, console, guard, page.streams)
    return application


def _guarded(only_loopback: bool) -> Any:
    """Refusals in words, for programs as JSON; and what browsers have to know of each answer."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        is_api = request.path.startswith(_API)
        try:
            if only_loopback:
                refuse_other_names(request.headers)
            return await handler(request)
        except Refused as refused:
            return _refusal(refused, is_api=is_api)
        except web.HTTPException as error:
            if not is_api:
                raise
            code = "NOT_FOUND" if error.status == 404 else error.reason.upper().replace(" ", "_")
            words = f"there is no {request.method} {request.path[:200]}: see /api/v1/openapi.json"
            answer = _refusal(Refused(error.status, code, words), is_api=True)
            if hdrs.ALLOW in error.headers:
                answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
            return answer

    return middleware


def _refusal(refused: Refused, *, is_api: bool) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    if refused.retry_after is not None:
        headers[hdrs.RETRY_AFTER] = str(refused.retry_after)
    if refused.status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="registry-mirror"'
    if is_api:
        document = {"error": {"code": refused.code, "message": refused.message}}
        return web.json_response(document, status=refused.status, headers=headers)
    return web.Response(text=f"{refused.message}\n", status=refused.status, headers=headers)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """What browsers have to know of an answer; a scraper's answers stay as they were."""
    if request.path not in _HEALTH:
        response.headers.update(HEADERS)
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


async def admin_runner(application: web.Application, idle: float) -> web.AppRunner:
    """Ready to serve the application, by connections that end when nothing is asked on them for
    `idle` seconds, be it that half of a request has come. Its cleanup is over in twice `_END`."""
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=idle,
        shutdown_timeout=_END,
        handler_cancellation=True,
    )
    await runner.setup()
    assert runner.server is not None  # noqa: S101 - it has been set up
    runner.server.request_factory = partial(_request, runner.server.request_factory)
    return runner


def _request(
    make: Callable[..., web.BaseRequest], message: RawRequestMessage, *rest: Any
) -> web.BaseRequest:
    """A request whose URL has no host: of one that cannot be decoded (`http://xn--a/healthz`)
    aiohttp would raise outside of all that handles errors, and leave the connection open."""
    url = message.url
    return make(message._replace(url=url.relative() if url.absolute else url), *rest)
