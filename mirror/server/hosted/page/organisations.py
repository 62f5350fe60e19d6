"""Organisations: members, robots, what they use, and webhooks."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from ....contracts.administration import NotAllowed, NotThere, OrganisationDetail
from ....contracts.identity import Grant, Right, Role
from ....contracts.webhooks import Subject, Webhook
from .desk import Desk, redirect
from .forms import days, gib, lines, one_of
from .routes import Route
from .visits import Visit

_DELIVERIES = 50
ADMINISTRATORS = "-"
"""In addresses: the webhooks of administrators, which are told of all."""


async def all_of_them(desk: Desk, visit: Visit) -> web.Response:
    found = await desk.administration.organisations.list(visit.context)
    return await desk.rendered(visit, "organisations.html", {"found": found})


async def add(desk: Desk, visit: Visit) -> web.Response:
    name, quota = visit.written("name"), gib(visit.written("quota"), "The quota")
    made = await desk.administration.organisations.add(visit.context, name, quota)
    return redirect(f"{_at(made.organisation.name)}?done=made")


async def one(desk: Desk, visit: Visit) -> web.Response:
    administration, name = desk.administration, visit.names["organisation"]
    detail = await administration.organisations.one(visit.context, name)
    manages = await _manages(desk, visit, detail)
    shown = {
        "detail": detail,
        "organisation": detail.organisation,
        "at": _at(name),
        "manages": manages,
        "members": await administration.organisations.members(visit.context, name),
        "robots": await administration.robots.list(visit.context, name) if manages else (),
        "roles": tuple(Role),
        "rights": tuple(Right),
    }
    return await desk.rendered(visit, "organisation.html", shown)


async def _manages(desk: Desk, visit: Visit, detail: OrganisationDetail) -> bool:
    if detail.role is Role.MAINTAINER:
        return True
    return (await desk.administration.users.myself(visit.context)).is_administrator


async def set_member(desk: Desk, visit: Visit) -> web.Response:
    name, user = visit.names["organisation"], visit.written("user")
    role = one_of(Role, visit.written("role"), "The role")
    await desk.administration.organisations.set_member(visit.context, name, user, role)
    return redirect(f"{_at(name)}?done=saved")


async def remove_member(desk: Desk, visit: Visit) -> web.Response:
    name, user = visit.names["organisation"], visit.names["user"]
    await desk.administration.organisations.set_member(visit.context, name, user, None)
    return redirect(f"{_at(name)}?done=removed")


async def add_robot(desk: Desk, visit: Visit) -> web.Response:
    """Its secret is in the answer, and nowhere else: it is no redirect."""
    name = visit.names["organisation"]
    right = one_of(Right, visit.written("right"), "The right")
    made = await desk.administration.robots.add(
        visit.context,
        name,
        visit.written("name"),
        [Grant(pattern, right) for pattern in lines(visit.written("repositories"))],
        days(visit.written("expires"), "The end"),
    )
    shown = {
        "title": f"The robot {made.robot.name} is made",
        "login": made.login,
        "secret": made.secret,
        "is_login": True,
        "back": _at(name),
    }
    return await desk.rendered(visit, "secret.html", shown)


async def remove_robot(desk: Desk, visit: Visit) -> web.Response:
    organisation = visit.names["organisation"]
    await desk.administration.robots.remove(visit.context, organisation, visit.names["name"])
    return redirect(f"{_at(organisation)}?done=removed")


async def set_quota(desk: Desk, visit: Visit) -> web.Response:
    name, quota = visit.names["organisation"], gib(visit.written("quota"), "The quota")
    await desk.administration.organisations.set_quota(visit.context, name, quota)
    return redirect(f"{_at(name)}?done=saved")


async def ask(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["organisation"]
    await desk.administration.organisations.one(visit.context, name)
    if not (await desk.administration.users.myself(visit.context)).is_administrator:
        raise NotAllowed("only administrators delete organisations")
    shown = {
        "title": f"Delete the organisation {name}?",
        "subject": name,
        "words": ["Its members and robots go with it. Its repositories have to go before."],
        "button": "Delete the organisation",
        "back": _at(name),
    }
    return await desk.rendered(visit, "confirm.html", shown)


async def remove(desk: Desk, visit: Visit) -> web.Response:
    await desk.administration.organisations.remove(visit.context, visit.names["organisation"])
    return redirect("/organisations?done=deleted")


def _at(name: str) -> str:
    return f"/o/{quote(name)}"


# Webhooks.


async def webhooks(desk: Desk, visit: Visit) -> web.Response:
    namespace = _namespace(visit)
    found = await desk.administration.webhooks.list(visit.context, namespace)
    subjects = [
        each
        for each in Subject
        if each is not Subject.PING and (each is not Subject.FILL or not namespace)
    ]
    shown = {"namespace": namespace, "at": _hooks(visit), "found": found, "subjects": subjects}
    return await desk.rendered(visit, "webhooks.html", shown)


async def add_webhook(desk: Desk, visit: Visit) -> web.Response:
    subjects = [
        one_of(Subject, each, "What it is told of") for each in lines(visit.written("subjects"))
    ]
    made = await desk.administration.webhooks.add(
        visit.context,
        _namespace(visit),
        visit.written("url"),
        subjects,
        visit.written("pattern") or "*",
    )
    shown = {
        "title": "The webhook is made",
        "login": "",
        "secret": made.secret,
        "is_login": False,
        "back": f"{_hooks(visit)}/{made.webhook.id}",
    }
    return await desk.rendered(visit, "secret.html", shown)


async def webhook(desk: Desk, visit: Visit) -> web.Response:
    found = await _webhook(desk, visit)
    deliveries = await desk.administration.webhooks.deliveries(visit.context, found.id, _DELIVERIES)
    shown = {
        "namespace": _namespace(visit),
        "at": f"{_hooks(visit)}/{found.id}",
        "hooks": _hooks(visit),
        "webhook": found,
        "deliveries": deliveries,
    }
    return await desk.rendered(visit, "webhook.html", shown)


async def ping(desk: Desk, visit: Visit) -> web.Response:
    found = await _webhook(desk, visit)
    await desk.administration.webhooks.ping(visit.context, found.id)
    return redirect(f"{_hooks(visit)}/{found.id}?done=sent")


async def switch(desk: Desk, visit: Visit) -> web.Response:
    found = await _webhook(desk, visit)
    await desk.administration.webhooks.switch(
        visit.context, found.id, disabled=visit.written("disabled") == "yes"
    )
    return redirect(f"{_hooks(visit)}/{found.id}?done=saved")


async def remove_webhook(desk: Desk, visit: Visit) -> web.Response:
    found = await _webhook(desk, visit)
    await desk.administration.webhooks.remove(visit.context, found.id)
    return redirect(f"{_hooks(visit)}?done=removed")


async def redeliver(desk: Desk, visit: Visit) -> web.Response:
    found = await _webhook(desk, visit)
    await desk.administration.webhooks.redeliver(visit.context, found.id, visit.written("delivery"))
    return redirect(f"{_hooks(visit)}/{found.id}?done=sent")


async def _webhook(desk: Desk, visit: Visit) -> Webhook:
    """Of this very namespace: the address does not lie about whose it is."""
    wanted = visit.names["id"]
    for each in await desk.administration.webhooks.list(visit.context, _namespace(visit)):
        if each.id == wanted:
            return each
    raise NotThere("webhook", wanted)


def _namespace(visit: Visit) -> str:
    name = visit.names["organisation"]
    return "" if name == ADMINISTRATORS else name


def _hooks(visit: Visit) -> str:
    return f"/webhooks/{quote(visit.names['organisation'])}"


_O = "/o/{organisation}"
_W = "/webhooks/{organisation}"

ROUTES = (
    Route("GET", "/organisations", all_of_them),
    Route("POST", "/organisations", add, all_of_them),
    Route("GET", _O, one),
    Route("POST", _O + "/members", set_member, one),
    Route("POST", _O + "/members/{user}/remove", remove_member, one),
    Route("POST", _O + "/robots", add_robot, one),
    Route("POST", _O + "/robots/{name}/remove", remove_robot, one),
    Route("POST", _O + "/quota", set_quota, one),
    Route("GET", _O + "/delete", ask),
    Route("POST", _O + "/delete", remove, ask),
    Route("GET", _W, webhooks),
    Route("POST", _W, add_webhook, webhooks),
    Route("GET", _W + "/{id}", webhook),
    Route("POST", _W + "/{id}/ping", ping, webhook),
    Route("POST", _W + "/{id}/switch", switch, webhook),
    Route("POST", _W + "/{id}/remove", remove_webhook, webhook),
    Route("POST", _W + "/{id}/redeliver", redeliver, webhook),
)
