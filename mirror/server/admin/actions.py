"""What people have done on the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ...contracts.images import ImagesUnavailable, Purged, PurgeTotal, PurgeWanted, UnknownImage
from ...quantities import size
from ..browsing.bodies import form_of
from ..control import CommandFailed, Tells
from .console import Console
from .failures import read_only
from .guard import COOKIE, Guard
from .templates import Templates

_SHOWN = 25  # images of a purge that are named before it
_LONGEST_NAME = 600  # characters
_WARMING = 4  # images at once, for all pages

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Actions:
    """Adds itself to the application. Each answers with words for the page's script to tell, or
    with what is to be shown before it is done."""

    def __init__(
        self, application: web.Application, console: Console, guard: Guard, templates: Templates
    ) -> None:
        self._console = console
        self._guard = guard
        self._templates = templates
        self._warming: set[asyncio.Task[str]] = set()
        application.on_cleanup.append(self._end)
        for name, handler in {
            "purge/trial": self._purge_trial,
            "purge": self._purge,
            "pin": self._pin,
            "unpin": self._unpin,
            "warm": self._warm,
            "reload": self._reload,
        }.items():
            application.router.add_post(f"/actions/{name}", self._checked(handler))

    def _checked(self, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not self._guard.may_write:
                raise read_only()  # whoever asks: it is the same for all
            cookie = request.cookies.get(COOKIE, "")
            self._guard.check_sight(request.headers, cookie, request.remote or "")
            self._guard.check_change(request.headers, cookie)
            try:
                return await handler(request)
            except (UnknownImage, ImagesUnavailable, CommandFailed) as error:
                return _said("bad", str(error))

        return checked

    async def _purge_trial(self, request: web.Request) -> web.StreamResponse:
        wanted = await self._purge_wanted(request, is_trial=True)
        freed: list[Purged] = []
        total = PurgeTotal(0, 0, 0)
        async for told in self._console.images.purge(wanted):
            if isinstance(told, PurgeTotal):
                total = told
            elif len(freed) < _SHOWN:
                freed.append(told)
        shown = {"patterns": wanted.patterns, "freed": freed, "total": total}
        return self._templates.answer("purge.html", shown)

    async def _purge(self, request: web.Request) -> web.StreamResponse:
        wanted = await self._purge_wanted(request, is_trial=False)
        total = PurgeTotal(0, 0, 0)
        async for told in self._console.images.purge(wanted):
            if isinstance(told, PurgeTotal):
                total = told
        plural = "image" if total.images == 1 else "images"
        return _said("good", f"{total.images} {plural} purged, {size(total.freed)} freed")

    async def _purge_wanted(self, request: web.Request, *, is_trial: bool) -> PurgeWanted:
        form = await form_of(request)
        patterns = [str(each)[:_LONGEST_NAME] for each in form.getall("image", [])]
        patterns = [each for each in (pattern.strip() for pattern in patterns) if each]
        if not patterns:
            raise UnknownImage("say which image", is_name=False)
        return PurgeWanted(patterns, is_trial=is_trial)

    async def _pin(self, request: web.Request) -> web.StreamResponse:
        form = await form_of(request)
        pinned = await self._console.images.pin(_name(form), str(form.get("to", "")))
        return _said("good", f"{pinned.image} is pinned to {pinned.digest[:19]}")

    async def _unpin(self, request: web.Request) -> web.StreamResponse:
        unpinned = await self._console.images.unpin(_name(await form_of(request)))
        return _said("good", f"{unpinned.image} is pinned no more")

    async def _warm(self, request: web.Request) -> web.StreamResponse:
        """It goes on when the browser has left."""
        name = _name(await form_of(request))
        lines = self._run("warm", {"images": [(name, ())]})
        if len(self._warming) >= _WARMING:
            return _said("bad", "four images are being warmed: wait for one of them")
        task = asyncio.create_task(_drained(lines), name="warm, from the page")
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)
        await asyncio.wait([task], timeout=1.0)  # a mistake in the name is said at once
        if task.done():
            if failure := task.result():
                return _said("bad", failure)
            return _said("good", f"{name} is here")
        return _said("good", f"{name} is being fetched: see Downloading now")

    async def _reload(self, request: web.Request) -> web.StreamResponse:
        last: Mapping[str, Any] = {}
        async for line in self._run("reload", {}):
            last = line
        result = str(last.get("result", ""))
        told = "; ".join([f"configuration {result}", *map(str, last.get("words", ()))])
        return _said("good" if result == "applied" else "bad", told)

    def _run(
        self, name: str, parameters: Mapping[str, Any]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        command = self._console.command_of(name)
        if not isinstance(command, Tells):
            raise CommandFailed(f"this mirror has no {name}")
        return command.run(parameters)

    async def _end(self, _: web.Application) -> None:
        for task in self._warming:
            task.cancel()
        await asyncio.gather(*self._warming, return_exceptions=True)


def _said(look: str, text: str) -> web.Response:
    """What came of an action: the page's script tells it, and lists the images again."""
    told = {"said": {"look": look, "text": text}}
    if look == "good":
        told["imagesChanged"] = {}
    return web.Response(status=204, headers={"HX-Trigger": json.dumps(told)})


def _name(form: Mapping[str, Any]) -> str:
    name = str(form.get("image", "")).strip()[:_LONGEST_NAME]
    if not name:
        raise UnknownImage("say which image", is_name=False)
    return name


async def _drained(lines: AsyncGenerator[Mapping[str, Any], None]) -> str:
    """To its end; why an image could not be had, "" where all could."""
    failure = ""
    async for line in lines:
        if line.get("result") == "failed":
            failure = failure or str(line.get("words", "")) or "it could not be fetched"
    return failure
