"""Repositories, their tags and images, and their settings."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from aiohttp import web

from ....contracts.administration import NotAllowed, RepositoryEntry
from ....contracts.hosted import TagOrder, Visibility
from ....contracts.identity import Action
from .desk import Desk, redirect
from .forms import MOST_RULES, lines, one_of, rules
from .routes import Route
from .visits import Visit

_PAGE = 50
_HISTORY = 50


# What there is.


async def all_of_them(desk: Desk, visit: Visit) -> web.Response:
    query = visit.asked("q")
    after = visit.asked("after") or None
    found = await desk.administration.repositories.list(visit.context, query, _PAGE, after)
    following = found.after and "/?" + urlencode({"q": query, "after": found.after})
    shown = {"found": found.repositories, "query": query, "after": after, "following": following}
    return await desk.rendered(visit, "repositories.html", shown)


async def new_form(desk: Desk, visit: Visit) -> web.Response:
    return await desk.rendered(visit, "new_repository.html", {})


async def make(desk: Desk, visit: Visit) -> web.Response:
    visibility = one_of(Visibility, visit.written("visibility"), "Visibility")
    name = f"{visit.written('namespace')}/{visit.written('name')}"
    made = await desk.administration.repositories.add(visit.context, name, visibility)
    return redirect(f"{_at(made.repository.name)}?done=made")


async def one(desk: Desk, visit: Visit) -> web.Response:
    administration, name = desk.administration, visit.names["repository"]
    entry = await administration.repositories.one(visit.context, name)
    after = visit.asked("after") or None
    order = one_of(TagOrder, visit.asked("order") or TagOrder.NAME.value, "The order")
    found = await administration.images.tags(visit.context, name, _PAGE, after, order)
    there = {"order": order.value, "after": found.after or ""}
    following = found.after and f"{_at(name)}?" + urlencode(there)
    shown = {
        **_about(entry),
        "tags": found.tags,
        "after": after,
        "following": following,
        "order": order.value,
    }
    return await desk.rendered(visit, "repository.html", shown)


async def image(desk: Desk, visit: Visit) -> web.Response:
    """By a tag, or by a digest."""
    administration, name = desk.administration, visit.names["repository"]
    tag = visit.names.get("tag", "")
    entry = await administration.repositories.one(visit.context, name)
    detail = await administration.images.manifest(visit.context, name, tag or visit.names["digest"])
    history = await administration.images.history(visit.context, name, tag, _HISTORY) if tag else ()
    shown = {**_about(entry), "tag": tag, "detail": detail, "history": history}
    return await desk.rendered(visit, "image.html", shown)


def _about(entry: RepositoryEntry) -> dict[str, object]:
    repository, may = entry.repository, entry.may
    return {"repository": repository, "may": may, "at": _at(repository.name)}


def _at(name: str) -> str:
    return f"/r/{quote(name)}"


# What is taken out.


async def ask_about_tag(desk: Desk, visit: Visit) -> web.Response:
    name, tag = visit.names["repository"], visit.names["tag"]
    await _may(desk, visit, Action.DELETE)
    detail = await desk.administration.images.manifest(visit.context, name, tag)
    shown = {
        "title": f"Delete the tag {tag}?",
        "subject": f"{name}:{tag}",
        "words": [
            f"It points to {detail.manifest.digest}, which stays, and can be pulled by its digest."
        ],
        "button": "Delete the tag",
        "back": f"{_at(name)}/-/tags/{tag}",
    }
    return await desk.rendered(visit, "confirm.html", shown)


async def delete_tag(desk: Desk, visit: Visit) -> web.Response:
    name, tag = visit.names["repository"], visit.names["tag"]
    await desk.administration.images.remove_tag(visit.context, name, tag)
    return redirect(f"{_at(name)}?done=deleted")


async def ask_about_manifest(desk: Desk, visit: Visit) -> web.Response:
    name, digest = visit.names["repository"], visit.names["digest"]
    await _may(desk, visit, Action.DELETE)
    detail = await desk.administration.images.manifest(visit.context, name, digest)
    words = ["Nobody can pull it any more, also not by its digest."]
    if detail.tags:
        words.append(f"These tags go with it: {', '.join(detail.tags)}.")
    shown = {
        "title": "Delete this image?",
        "subject": f"{name}@{digest}",
        "words": words,
        "button": "Delete the image",
        "back": f"{_at(name)}/-/manifests/{digest}",
    }
    return await desk.rendered(visit, "confirm.html", shown)


async def delete_manifest(desk: Desk, visit: Visit) -> web.Response:
    name, digest = visit.names["repository"], visit.names["digest"]
    await desk.administration.images.remove_manifest(visit.context, name, digest)
    return redirect(f"{_at(name)}?done=deleted")


async def ask_about_repository(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["repository"]
    await _may(desk, visit, Action.MANAGE)
    shown = {
        "title": f"Delete {name}?",
        "subject": name,
        "words": ["All of its tags and images go with it. This cannot be taken back."],
        "button": "Delete the repository",
        "back": f"{_at(name)}/-/settings",
        "type_it": name,
    }
    return await desk.rendered(visit, "confirm.html", shown)


async def delete_repository(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["repository"]
    if visit.written("typed") != name:
        visit.wrong = "Write the repository's name, to say that it is meant."
        return await ask_about_repository(desk, visit)
    await desk.administration.repositories.remove(visit.context, name)
    return redirect("/?done=deleted")


async def _may(desk: Desk, visit: Visit, action: Action) -> None:
    """So that nobody is asked to confirm what is then refused."""
    entry = await desk.administration.repositories.one(visit.context, visit.names["repository"])
    if action not in entry.may:
        raise NotAllowed(f"you may not {action.value} here")


# Settings.


async def settings(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["repository"]
    await _may(desk, visit, Action.MANAGE)
    entry = await desk.administration.repositories.one(visit.context, name)
    shown = {**_about(entry), "most_rules": MOST_RULES}
    return await desk.rendered(visit, "settings.html", shown)


async def save(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["repository"]
    await desk.administration.repositories.change(
        visit.context,
        name,
        visibility=one_of(Visibility, visit.written("visibility"), "Visibility"),
        description=visit.written("description"),
        immutable=lines(visit.written("immutable")),
    )
    return redirect(f"{_at(name)}/-/settings?done=saved")


async def save_rules(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["repository"]
    await desk.administration.repositories.change(visit.context, name, retention=rules(visit.form))
    return redirect(f"{_at(name)}/-/retention?done=saved")


async def plan(desk: Desk, visit: Visit) -> web.Response:
    """What the rules would take away now."""
    name = visit.names["repository"]
    entry = await desk.administration.repositories.one(visit.context, name)
    found = await desk.administration.repositories.apply_retention(
        visit.context, name, is_trial=True
    )
    return await desk.rendered(visit, "retention.html", {**_about(entry), "plan": found})


async def apply(desk: Desk, visit: Visit) -> web.Response:
    name = visit.names["repository"]
    await desk.administration.repositories.apply_retention(visit.context, name, is_trial=False)
    return redirect(f"{_at(name)}?done=removed")


_R = "/r/{repository}"

ROUTES = (
    Route("GET", "/", all_of_them),
    Route("GET", "/new", new_form),
    Route("POST", "/new", make, new_form),
    Route("GET", _R, one),
    Route("GET", _R + "/-/tags/{tag}", image),
    Route("GET", _R + "/-/manifests/{digest}", image),
    Route("GET", _R + "/-/tags/{tag}/delete", ask_about_tag),
    Route("POST", _R + "/-/tags/{tag}/delete", delete_tag, ask_about_tag),
    Route("GET", _R + "/-/manifests/{digest}/delete", ask_about_manifest),
    Route("POST", _R + "/-/manifests/{digest}/delete", delete_manifest, ask_about_manifest),
    Route("GET", _R + "/-/settings", settings),
    Route("POST", _R + "/-/settings", save, settings),
    Route("GET", _R + "/-/retention", plan),
    Route("POST", _R + "/-/retention", save_rules, settings),
    Route("POST", _R + "/-/retention/apply", apply, plan),
    Route("GET", _R + "/-/delete", ask_about_repository),
    Route("POST", _R + "/-/delete", delete_repository, ask_about_repository),
)
