"""The form by which people sign in, and how they sign out."""

from __future__ import annotations

import re

from aiohttp import hdrs, web

from ...browsing.failures import Refused
from .desk import Desk, redirect
from .routes import Route
from .visits import Visit

_LOCAL = re.compile(r"/(?![/\\])[\x21-\x7e]{0,512}", re.ASCII)


async def show(desk: Desk, visit: Visit) -> web.Response:
    onward = _onward(visit.asked("next", 512))
    if visit.signed_in is not None:
        return redirect(onward)
    return await desk.rendered(visit, "login.html", {"onward": onward})


async def log_in(desk: Desk, visit: Visit) -> web.Response:
    onward = _onward(visit.written("next"))
    try:
        name = visit.written("name")
        user = await desk.doorman.sign_in(visit, name, visit.form.get("password", ""))
        answer = redirect(onward)
        await desk.doorman.begin(visit, user, answer)
    except Refused as refused:
        visit.wrong = refused.message
        shown = {"onward": onward}
        answer = await desk.rendered(visit, "login.html", shown, refused.status)
        if refused.retry_after is not None:
            answer.headers[hdrs.RETRY_AFTER] = str(refused.retry_after)
    return answer


async def log_out(desk: Desk, visit: Visit) -> web.Response:
    answer = redirect("/")
    await desk.doorman.end(visit, answer)
    return answer


def _onward(given: str) -> str:
    """
    >>> _onward("/r/acme/app"), _onward("//evil.example"), _onward("https://evil.example")
    ('/r/acme/app', '/', '/')
    """
    return given if _LOCAL.fullmatch(given) else "/"


ROUTES = (
    Route("GET", "/login", show),
    Route("POST", "/login", log_in),
    Route("POST", "/logout", log_out),
)
