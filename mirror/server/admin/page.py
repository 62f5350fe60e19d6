"""The page for people: a whole one, and the parts of it that are asked for again."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web

from ...contracts.activity import UnknownSubject
from ...contracts.images import ImagesUnavailable, Sort, UnknownImage
from ..browsing.assets import Assets
from ..browsing.browsers import refuse_other_sites
from ..browsing.failures import Refused
from . import view
from .console import Console
from .guard import COOKIE, Guard
from .live import Picture, Streams
from .templates import Templates

_HERE = Path(__file__).parent
_PULLS = 50
_HAPPENINGS = 30
_IMAGES = 20
_LONGEST = 256  # characters of what is searched for
_LONGEST_NAME = 600

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """Adds itself to the application."""

    def __init__(self, application: web.Application, console: Console, guard: Guard) -> None:
        self._console = console
        self._guard = guard
        self._assets = Assets(_HERE / "static")
        self.streams = Streams()
        self._host = socket.gethostname()
        self._picture = Picture(self._paint, self._changed, self.streams)
        self.templates = Templates(self._assets.url)
        application.on_shutdown.append(self._picture.end)
        get = application.router.add_get
        get("/", self._whole_or_form)
        get("/live", self._seen(self._picture.show), allow_head=False)
        get("/pulls", self._seen(self._pulls))
        get("/pulls/{id}", self._seen(self._pull))
        get("/images", self._seen(self._images))
        get("/images/detail", self._seen(self._image))
        get("/static/{name}", self._file)

    # Who may.

    def _check(self, request: web.Request) -> None:
        cookie = request.cookies.get(COOKIE, "")
        self._guard.check_sight(request.headers, cookie, request.remote or "")

    def _seen(self, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            refuse_other_sites(request.headers, "none")
            self._check(request)
            return await handler(request)

        return checked

    # The whole.

    async def _whole_or_form(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check(request)
        except Refused as refused:
            if refused.status != 401:
                raise
            return self.templates.answer("login.html", {"wrong": ""}, 200)
        console = self._console
        parts = await self._all(console)
        asked = request.headers.get(hdrs.HOST, "")
        status = parts["status"]
        lines = view.client_lines(status.listen, asked, self._host, self._console.scheme)
        images = await self._listed(request, console)
        whole = {**parts, **images, "lines": lines, "proof": self._guard.proof}
        whole["write"] = self._guard.may_write
        whole["has_token"] = self._guard.asks_for_a_token
        whole["like"] = request.query.get("pulls", "")[:_LONGEST]
        whole["pulls"] = console.activity.pulls(_PULLS, whole["like"])
        return self.templates.answer("page.html", whole, 200)

    async def _all(self, console: Console) -> dict[str, Any]:
        activity = console.activity
        status = await activity.status()
        return {
            "status": status,
            "now": status.now,
            "config": view.config_words(status),
            "bars": view.bars(activity.minutes()),
            "upstreams": view.upstreams(status.endpoints),
            "downloads": activity.downloads(),
            "pulls": activity.pulls(_PULLS),
            "like": "",
            "happenings": activity.happenings(_HAPPENINGS),
        }

    async def _paint(self) -> Mapping[str, str]:
        console = self._console
        parts = await self._all(console)
        return {
            name: self.templates.text(f"{name}.html", parts)
            for name in ("head", "figures", "upstreams", "downloads", "pulls", "events")
        }

    async def _changed(self, than: int, within: float) -> int:
        return await self._console.activity.changed(than, within)

    # Its parts.

    async def _pulls(self, request: web.Request) -> web.StreamResponse:
        like = request.query.get("pulls", "")[:_LONGEST]
        console = self._console
        found = console.activity.pulls(_PULLS, like)
        now = (await console.activity.status()).now
        return self.templates.answer("pulls.html", {"pulls": found, "now": now, "like": like})

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info["id"]
        for pull in self._console.activity.pulls(1000):
            if pull.id == wanted:
                return self.templates.answer("pull.html", {"pull": pull})
        return self.templates.answer("pull.html", {"pull": None})

    async def _images(self, request: web.Request) -> web.StreamResponse:
        found = await self._listed(request, self._console)
        return self.templates.answer("images.html", {**found, "write": self._guard.may_write})

    async def _listed(self, request: web.Request, console: Console) -> Mapping[str, Any]:
        pattern = _pattern(request.query.get("images", ""))
        try:
            sort = Sort(request.query.get("sort", Sort.USED))
        except ValueError:
            sort = Sort.USED
        after = request.query.get("after", "")[:_LONGEST_NAME]
        asked = {
            "query": request.query.get("images", "")[:_LONGEST],
            "pattern": pattern,
            "sort": sort.value,
        }
        now = (await console.activity.status()).now
        try:
            page = await console.images.list(pattern, sort, after, _IMAGES)
        except (UnknownImage, ImagesUnavailable) as error:
            return {**asked, "page": None, "why_not": str(error), "now": now, "after": after}
        return {**asked, "page": page, "why_not": "", "now": now, "after": after}

    async def _image(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("image", "")[:_LONGEST_NAME]
        console = self._console
        now = (await console.activity.status()).now
        shown: dict[str, Any] = {"name": name, "now": now, "write": self._guard.may_write}
        try:
            detail = await console.images.image(name)
        except (UnknownImage, ImagesUnavailable) as error:
            return self.templates.answer(
                "image.html",
                {**shown, "detail": None, "why_not": str(error), "here": None},
            )
        here = None
        with contextlib.suppress(UnknownSubject):
            here = (await console.activity.why(name)).here
        return self.templates.answer(
            "image.html", {**shown, "detail": detail, "here": here, "why_not": ""}
        )

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name, version = request.match_info["name"], request.query.get("v")
        answer = self._assets.answer(request, name, version)
        if answer is None:
            raise web.HTTPNotFound(text="there is no such file\n")
        return answer


def _pattern(query: str) -> str:
    """What is typed into the search is a part of a name, unless it is a pattern."""
    query = query.strip()[:_LONGEST]
    if not query or any(sign in query for sign in "*?["):
        return query
    return f"*{query}*"
