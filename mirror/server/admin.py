"""The admin port: metrics and health, for this machine and its scraper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage

from ..oci.errors import RegistryError
from .http.browsers import is_loopback, is_loopback_url, names_loopback

_SHOWN = 400  # characters of what was asked for that an answer repeats
# Seconds that answers have to end when the mirror stops, and again when they are cancelled: pulls
# have had most of the time that a service manager leaves.
_END = 1.0

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, which all its versions read."""


def admin_application(
    bound_to: str,
    metrics: Callable[[], Awaitable[bytes]],
    ready: Callable[[], tuple[bool, Mapping[str, Any]]],
    missing: Callable[[str, str | None], Awaitable[Sequence[str]]],
) -> web.Application:
    """`/metrics`, `/healthz` (the event loop answers) and `/readyz` (`ready` says so; its details
    are shown either way, as JSON). `/readyz?image=redis:7&platform=linux/arm64` asks `missing` what
    of that image could not be served with no network.

    `bound_to` is the address that the port listens on. If it is a loopback one, requests must name
    it so: a web page somewhere can make a name of its own point to 127.0.0.1 (DNS rebinding), and
    have its reader's browser ask here.
    """

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={hdrs.CONTENT_TYPE: EXPOSITION})

    async def show_health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def show_readiness(request: web.Request) -> web.Response:
        image = request.query.get("image")
        if image is not None:
            return await show_image(image, request.query.get("platform"))
        is_ready, details = ready()
        document = {"status": "ready" if is_ready else "not ready", **details}
        return web.json_response(document, status=200 if is_ready else 503)

    async def show_image(image: str, platform: str | None) -> web.Response:
        try:
            lacking = list(await missing(image, platform))
        except RegistryError as error:
            return web.json_response({"image": image[:_SHOWN], "error": error.message}, status=400)
        status = "not ready" if lacking else "ready"
        return web.json_response(
            {"status": status, "image": image[:_SHOWN], "missing": lacking},
            status=503 if lacking else 200,
        )

    application = web.Application(middlewares=[_only_loopback] if is_loopback(bound_to) else [])
    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/healthz", show_health)
    application.router.add_get("/readyz", show_readiness)
    return application


async def admin_runner(application: web.Application, idle: float) -> web.AppRunner:
    """Ready to serve the application, by connections that end when nothing is asked on them for
    `idle` seconds, be it that half of a request has come. Its cleanup is over in twice `_END`."""
    runner = web.AppRunner(
        application, access_log=None, keepalive_timeout=idle, shutdown_timeout=_END
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


@web.middleware
async def _only_loopback(
    request: web.Request, handler: Callable[[web.Request], Any]
) -> web.StreamResponse:
    origin = request.headers.get(hdrs.ORIGIN)
    if not names_loopback(request.headers):
        raise web.HTTPForbidden(
            text="the Host header names another machine: ask for localhost or 127.0.0.1\n"
        )
    if origin is not None and not is_loopback_url(origin):
        raise web.HTTPForbidden(text="pages of other sites may not ask here\n")
    response: web.StreamResponse = await handler(request)
    return response
