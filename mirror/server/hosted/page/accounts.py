"""One's own account: the password, and personal access tokens."""

from __future__ import annotations

from aiohttp import web

from ....contracts.identity import Right
from ...browsing.failures import Refused
from .desk import Desk, redirect
from .forms import days, invalid, one_of
from .routes import Route
from .visits import Visit


async def show(desk: Desk, visit: Visit) -> web.Response:
    name = _own(visit)
    shown = {
        "detail": await desk.administration.users.one(visit.context, name),
        "tokens": await desk.administration.tokens.list(visit.context, name),
        "rights": tuple(Right),
    }
    return await desk.rendered(visit, "account.html", shown)


async def set_password(desk: Desk, visit: Visit) -> web.Response:
    """Ends all sessions of the user; this browser gets another one."""
    name, wanted = _own(visit), visit.form.get("password", "")
    if wanted != visit.form.get("again", ""):
        raise invalid("The two new passwords are not the same.")
    await desk.administration.users.set_password(
        visit.context, name, wanted, before=visit.form.get("before", "")
    )
    answer = redirect("/account?done=password")
    await desk.doorman.begin(visit, name, answer)
    return answer


async def add_token(desk: Desk, visit: Visit) -> web.Response:
    """Its secret is in the answer, and nowhere else: it is no redirect."""
    made = await desk.administration.tokens.add(
        visit.context,
        _own(visit),
        visit.written("name"),
        one_of(Right, visit.written("right"), "The right"),
        days(visit.written("expires"), "The end"),
    )
    shown = {
        "title": f"The token {made.token.name} is made",
        "login": made.login,
        "secret": made.secret,
        "is_login": True,
        "back": "/account",
    }
    return await desk.rendered(visit, "secret.html", shown)


async def remove_token(desk: Desk, visit: Visit) -> web.Response:
    await desk.administration.tokens.remove(visit.context, _own(visit), visit.names["id"])
    return redirect("/account?done=removed")


def _own(visit: Visit) -> str:
    if visit.signed_in is None:
        raise Refused(401, "UNAUTHORIZED", "Sign in first.")
    return visit.signed_in.user


ROUTES = (
    Route("GET", "/account", show),
    Route("POST", "/account/password", set_password, show),
    Route("POST", "/account/tokens", add_token, show),
    Route("POST", "/account/tokens/{id}/remove", remove_token, show),
)
