"""Metrics and health, for this machine and its scraper."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import hdrs, web

from ...oci.errors import RegistryError

_SHOWN = 400  # characters of what was asked for that an answer repeats

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, which all its versions read."""


def add_health(
    application: web.Application,
    metrics: Callable[[], Awaitable[bytes]],
    ready: Callable[[], tuple[bool, Mapping[str, Any]]],
    missing: Callable[[str, str | None], Awaitable[Sequence[str]]],
) -> None:
    """`/metrics`, `/healthz` (the event loop answers) and `/readyz` (`ready` says so; its details
    are shown either way, as JSON). `/readyz?image=redis:7&platform=linux/arm64` asks `missing` what
    of that image could not be served with no network.
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

    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/healthz", show_health)
    application.router.add_get("/readyz", show_readiness)
