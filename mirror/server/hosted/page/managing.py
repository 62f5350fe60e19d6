"""What administrators do: users, and what the audit log has."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from aiohttp import web

from .desk import Desk, redirect
from .routes import Route
from .visits import Visit

_ENTRIES = 100


async def users(desk: Desk, visit: Visit) -> web.Response:
    found = await desk.administration.users.list(visit.context)
    return await desk.rendered(visit, "users.html", {"found": found})


async def add_user(desk: Desk, visit: Visit) -> web.Response:
    made = await desk.administration.users.add(
        visit.context,
        visit.written("name"),
        visit.form.get("password", ""),
        administrator=visit.written("administrator") == "yes",
    )
    return redirect(f"{_at(made.name)}?done=made")


async def user(desk: Desk, visit: Visit) -> web.Response:
    administration, name = desk.administration, visit.names["user"]
    shown = {
        "detail": await administration.users.one(visit.context, name),
        "tokens": await administration.tokens.list(visit.context, name),
        "at": _at(name),
    }
    return await desk.rendered(visit, "user.html", shown)


async def change_user(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["user"]
    await desk.administration.users.change(
        visit.context,
        name,
        administrator=visit.written("administrator") == "yes",
        disabled=visit.written("disabled") == "yes",
    )
    return redirect(f"{_at(name)}?done=saved")


async def set_password(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["user"]
    await desk.administration.users.set_password(
        visit.context, name, visit.form.get("password", "")
    )
    return redirect(f"{_at(name)}?done=saved")


async def remove_token(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["user"]
    await desk.administration.tokens.remove(visit.context, name, visit.names["id"])
    return redirect(f"{_at(name)}?done=removed")


async def ask(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["user"]
    await desk.administration.users.list(visit.context)  # for administrators alone
    await desk.administration.users.one(visit.context, name)
    shown = {
        "title": f"Remove the user {name}?",
        "subject": name,
        "words": ["Its memberships and tokens go with it; its repositories stay."],
        "button": "Remove the user",
        "back": _at(name),
    }
    return await desk.rendered(visit, "confirm.html", shown)


async def remove(desk: Desk, visit: Visit) -> web.Response:
    await desk.administration.users.remove(visit.context, visit.names["user"])
    return redirect("/users?done=removed")


async def audit(desk: Desk, visit: Visit) -> web.Response:
    """Also for maintainers of the organisation that `target` begins with."""
    actor, target = visit.asked("actor"), visit.asked("target")
    before = _moment(visit.asked("before"))
    found = await desk.administration.audit(visit.context, _ENTRIES, before, actor, target)
    following = None
    if len(found) == _ENTRIES:
        asked = {"actor": actor, "target": target, "before": repr(found[-1].at)}
        following = f"/audit?{urlencode(asked)}"
    shown = {"found": found, "actor": actor, "target": target, "following": following}
    return await desk.rendered(visit, "audit.html", shown)


def _moment(written: str) -> float | None:
    try:
        return float(written)
    except ValueError:
        return None


def _at(name: str) -> str:
    return f"/users/{quote(name)}"


_U = "/users/{user}"

ROUTES = (
    Route("GET", "/users", users),
    Route("POST", "/users", add_user, users),
    Route("GET", _U, user),
    Route("POST", _U, change_user, user),
    Route("POST", _U + "/password", set_password, user),
    Route("POST", _U + "/tokens/{id}/remove", remove_token, user),
    Route("GET", _U + "/delete", ask),
    Route("POST", _U + "/delete", remove, ask),
    Route("GET", "/audit", audit),
)
