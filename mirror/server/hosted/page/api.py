"""/api/v1 of hosted names: what the page does, for programs. Each request shows a login by Basic:
a password, a personal access token, or a robot's secret."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import Any

from aiohttp import hdrs, web

from ....contracts.administration import Administration, rendered
from ....contracts.hosted import RetentionRule, Visibility
from ....contracts.identity import Grant, Right, Role
from ....contracts.webhooks import Subject
from ....frozen import dataclass
from ...browsing.bodies import Body, whole_number
from ...browsing.failures import Refused
from ...browsing.openapi import Operation, Parameter, document
from .forms import one_of
from .routes import Route, Routes
from .visits import Visit

BASE = "/api/v1"
_PATIENCE = 30.0  # seconds that a body may take
_MOST = 1000  # of one list


@dataclass(frozen=True, slots=True)
class _Call:
    """One operation for one request. `body` is empty where the operation takes none."""

    administration: Administration
    visit: Visit
    body: Body

    def named(self, name: str) -> str:
        return self.visit.names[name]

    @property
    def count(self) -> int:
        return whole_number(self.visit.query, "n", 100, 1, _MOST)

    @property
    def after(self) -> str | None:
        return self.visit.asked("last") or None

    @property
    def before(self) -> float | None:
        given = self.visit.asked("before")
        try:
            return float(given) if given else None
        except ValueError:
            raise Refused(400, "INVALID", "before is a time in seconds") from None


_Do = Callable[[_Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Operation:
    """`body`: the keys of the JSON object that it takes, None for no body. `status` of success."""

    method: str
    path: str
    summary: str
    do: _Do
    body: dict[str, str] | None = None
    query: Sequence[Parameter] = ()
    status: int = 200


class Api:
    def __init__(self, administration: Administration) -> None:
        self._administration = administration
        self._operations = {f"{each.method} {each.path}": each for each in OPERATIONS}
        self._routes = Routes(
            [Route(each.method, BASE + each.path, each.do) for each in OPERATIONS]
        )
        self._described = described()

    async def answer(self, visit: Visit) -> web.Response:
        """Raises Refused, and what the administration raises."""
        if visit.path == f"{BASE}/openapi.json":
            return web.json_response(self._described)
        found = self._routes.find(visit.request.method, visit.path)
        if not isinstance(found, tuple):
            status = 405 if found else 404
            words = (
                f"there is no {visit.request.method} {visit.path[:200]}: see {BASE}/openapi.json"
            )
            raise Refused(status, "METHOD_NOT_ALLOWED" if found else "NOT_FOUND", words)
        route, visit.names = found
        operation = self._operations[f"{route.method} {route.path.removeprefix(BASE)}"]
        body = Body({})
        if operation.body is not None:
            _check_json(visit.request)
            try:
                async with asyncio.timeout(_PATIENCE):
                    body = await Body.read(visit.request)
            except TimeoutError:
                raise Refused(408, "SLOW", "the body did not come in time") from None
        done = await operation.do(_Call(self._administration, visit, body))
        if done is None:
            return web.Response(status=204)
        return web.json_response(done, status=operation.status)


def _check_json(request: web.BaseRequest) -> None:
    """A page of another site sends no such body without asking first (Fetch standard, preflight),
    which is refused."""
    if request.content_type != "application/json":
        raise Refused(415, "UNSUPPORTED", "the body is JSON: Content-Type: application/json")


def refused(refusal: Refused) -> web.Response:
    told = {"error": {"code": refusal.code, "message": refusal.message}}
    answer = web.json_response(told, status=refusal.status)
    if refusal.retry_after is not None:
        answer.headers[hdrs.RETRY_AFTER] = str(refusal.retry_after)
    if refusal.status == 401:
        answer.headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="registry"'
    return answer


def unauthorized(reason: str, retry_after: float) -> Refused:
    wait = ceil(retry_after)
    return Refused(429 if wait else 401, "UNAUTHORIZED", reason, retry_after=wait or None)


# Who asks; users.


async def _myself(call: _Call) -> Any:
    return rendered(await call.administration.users.myself(call.visit.context))


async def _users(call: _Call) -> Any:
    return _listed("users", await call.administration.users.list(call.visit.context))


async def _user(call: _Call) -> Any:
    return rendered(await call.administration.users.one(call.visit.context, call.named("user")))


async def _add_user(call: _Call) -> Any:
    name, password = call.body.text("name"), call.body.text("password")
    administrator = call.body.yes_or_no("administrator")
    call.body.end()
    made = await call.administration.users.add(
        call.visit.context, name, password, administrator=administrator
    )
    return rendered(made)


async def _change_user(call: _Call) -> Any:
    administrator = call.body.yes_no_or_none("administrator")
    disabled = call.body.yes_no_or_none("disabled")
    call.body.end()
    changed = await call.administration.users.change(
        call.visit.context, call.named("user"), administrator=administrator, disabled=disabled
    )
    return rendered(changed)


async def _set_password(call: _Call) -> None:
    password, before = call.body.text("password"), call.body.text("before", "")
    call.body.end()
    await call.administration.users.set_password(
        call.visit.context, call.named("user"), password, before=before or None
    )


async def _remove_user(call: _Call) -> None:
    await call.administration.users.remove(call.visit.context, call.named("user"))


async def _tokens(call: _Call) -> Any:
    found = await call.administration.tokens.list(call.visit.context, call.named("user"))
    return _listed("tokens", found)


async def _add_token(call: _Call) -> Any:
    name, right = call.body.text("name"), one_of(Right, call.body.text("right"), "right")
    expires_in = call.body.number("expires_in")
    call.body.end()
    made = await call.administration.tokens.add(
        call.visit.context, call.named("user"), name, right, expires_in
    )
    return rendered(made)


async def _remove_token(call: _Call) -> None:
    await call.administration.tokens.remove(
        call.visit.context, call.named("user"), call.named("id")
    )


# Organisations.


async def _organisations(call: _Call) -> Any:
    found = await call.administration.organisations.list(call.visit.context)
    return _listed("organisations", found)


async def _organisation(call: _Call) -> Any:
    name = call.named("organisation")
    return rendered(await call.administration.organisations.one(call.visit.context, name))


async def _add_organisation(call: _Call) -> Any:
    name, quota = call.body.text("name"), _bytes(call.body)
    call.body.end()
    return rendered(await call.administration.organisations.add(call.visit.context, name, quota))


async def _set_quota(call: _Call) -> Any:
    name, quota = call.named("organisation"), _bytes(call.body)
    call.body.end()
    changed = await call.administration.organisations.set_quota(call.visit.context, name, quota)
    return rendered(changed)


async def _remove_organisation(call: _Call) -> None:
    await call.administration.organisations.remove(call.visit.context, call.named("organisation"))


async def _members(call: _Call) -> Any:
    name = call.named("organisation")
    found = await call.administration.organisations.members(call.visit.context, name)
    return _listed("members", found)


async def _set_member(call: _Call) -> None:
    role = one_of(Role, call.body.text("role"), "role")
    call.body.end()
    await call.administration.organisations.set_member(
        call.visit.context, call.named("organisation"), call.named("user"), role
    )


async def _remove_member(call: _Call) -> None:
    await call.administration.organisations.set_member(
        call.visit.context, call.named("organisation"), call.named("user"), None
    )


async def _robots(call: _Call) -> Any:
    name = call.named("organisation")
    return _listed("robots", await call.administration.robots.list(call.visit.context, name))


async def _add_robot(call: _Call) -> Any:
    name, right = call.body.text("name"), one_of(Right, call.body.text("right"), "right")
    patterns, expires_in = call.body.texts("repositories"), call.body.number("expires_in")
    call.body.end()
    made = await call.administration.robots.add(
        call.visit.context,
        call.named("organisation"),
        name,
        [Grant(each, right) for each in patterns],
        expires_in,
    )
    return rendered(made)


async def _remove_robot(call: _Call) -> None:
    await call.administration.robots.remove(
        call.visit.context, call.named("organisation"), call.named("name")
    )


# Repositories.


async def _repositories(call: _Call) -> Any:
    found = await call.administration.repositories.list(
        call.visit.context, call.visit.asked("q"), call.count, call.after
    )
    return rendered(found)


async def _repository(call: _Call) -> Any:
    name = call.named("repository")
    return rendered(await call.administration.repositories.one(call.visit.context, name))


async def _add_repository(call: _Call) -> Any:
    name = call.body.text("name")
    visibility = one_of(Visibility, call.body.text("visibility", "private"), "visibility")
    call.body.end()
    made = await call.administration.repositories.add(call.visit.context, name, visibility)
    return rendered(made)


async def _change_repository(call: _Call) -> Any:
    visibility = call.body.text_or_none("visibility")
    description = call.body.text_or_none("description")
    immutable = call.body.texts("immutable") if call.body.has("immutable") else None
    retention = _rules(call.body) if call.body.has("retention") else None
    call.body.end()
    changed = await call.administration.repositories.change(
        call.visit.context,
        call.named("repository"),
        visibility=None if visibility is None else one_of(Visibility, visibility, "visibility"),
        description=description,
        immutable=immutable,
        retention=retention,
    )
    return rendered(changed)


async def _remove_repository(call: _Call) -> None:
    await call.administration.repositories.remove(call.visit.context, call.named("repository"))


async def _retention(call: _Call) -> Any:
    is_trial = call.body.yes_or_no("is_trial")
    call.body.end()
    plan = await call.administration.repositories.apply_retention(
        call.visit.context, call.named("repository"), is_trial=is_trial
    )
    return rendered(plan)


async def _tags(call: _Call) -> Any:
    found = await call.administration.images.tags(
        call.visit.context, call.named("repository"), call.count, call.after
    )
    return rendered(found)


async def _history(call: _Call) -> Any:
    found = await call.administration.images.history(
        call.visit.context, call.named("repository"), call.named("tag"), call.count
    )
    return _listed("history", found)


async def _remove_tag(call: _Call) -> None:
    await call.administration.images.remove_tag(
        call.visit.context, call.named("repository"), call.named("tag")
    )


async def _manifest(call: _Call) -> Any:
    found = await call.administration.images.manifest(
        call.visit.context, call.named("repository"), call.named("reference")
    )
    return rendered(found)


async def _remove_manifest(call: _Call) -> None:
    await call.administration.images.remove_manifest(
        call.visit.context, call.named("repository"), call.named("digest")
    )


# Webhooks, the audit log.


async def _webhooks(call: _Call) -> Any:
    found = await call.administration.webhooks.list(
        call.visit.context, call.visit.asked("namespace")
    )
    return _listed("webhooks", found)


async def _add_webhook(call: _Call) -> Any:
    namespace, url = call.body.text("namespace", ""), call.body.text("url")
    subjects = [one_of(Subject, each, "a subject") for each in call.body.texts("subjects")]
    pattern, secret = call.body.text("pattern", "*"), call.body.text("secret", "")
    call.body.end()
    made = await call.administration.webhooks.add(
        call.visit.context, namespace, url, subjects, pattern, secret
    )
    return rendered(made)


async def _switch_webhook(call: _Call) -> Any:
    disabled = call.body.yes_or_no("disabled")
    call.body.end()
    changed = await call.administration.webhooks.switch(
        call.visit.context, call.named("id"), disabled=disabled
    )
    return rendered(changed)


async def _remove_webhook(call: _Call) -> None:
    await call.administration.webhooks.remove(call.visit.context, call.named("id"))


async def _ping(call: _Call) -> Any:
    call.body.end()
    return rendered(await call.administration.webhooks.ping(call.visit.context, call.named("id")))


async def _deliveries(call: _Call) -> Any:
    found = await call.administration.webhooks.deliveries(
        call.visit.context, call.named("id"), call.count, call.before
    )
    return _listed("deliveries", found)


async def _redeliver(call: _Call) -> Any:
    delivery = call.body.text("delivery")
    call.body.end()
    found = await call.administration.webhooks.redeliver(
        call.visit.context, call.named("id"), delivery
    )
    return rendered(found)


async def _audit(call: _Call) -> Any:
    found = await call.administration.audit(
        call.visit.context,
        call.count,
        call.before,
        call.visit.asked("actor"),
        call.visit.asked("target"),
    )
    return _listed("entries", found)


# Bodies.


def _listed(name: str, found: Sequence[object]) -> dict[str, Any]:
    return {name: [rendered(each) for each in found]}


def _bytes(body: Body) -> int | None:
    found = body.number("quota")
    if found is not None and (found != int(found) or not 0 < found < 2**60):
        raise Refused(400, "INVALID", "quota is a whole number of bytes, or null")
    return None if found is None else int(found)


def _rules(body: Body) -> list[RetentionRule]:
    found = []
    for each in body.objects("retention"):
        match, keep = each.texts("match") or ["*"], each.number("keep")
        younger, untagged = each.number("younger"), each.number("untagged")
        each.end()
        if keep is not None and (keep != int(keep) or not 0 < keep < 10**6):
            raise Refused(400, "INVALID", "keep is a whole number from 1")
        found.append(
            RetentionRule(tuple(match), None if keep is None else int(keep), younger, untagged)
        )
    return found


# All of it.

_N = Parameter("n", "integer", f"how many, from 1 to {_MOST}")
_LAST = Parameter("last", "string", "the `after` of the page before")
_BEFORE = Parameter("before", "number", "the time of the last one of the page before")
_Q = Parameter("q", "string", "those whose name or description has this text")
_USER = "/users/{user}"
_ORG = "/organisations/{organisation}"
_REPO = "/repositories/{repository}"
_HOOK = "/webhooks/{id}"
_ROBOT = {"name": "string", "right": "string", "repositories": "array", "expires_in": "number"}
_TOKEN = {"name": "string", "right": "string", "expires_in": "number"}
_SETTINGS = {
    "visibility": "string",
    "description": "string",
    "immutable": "array",
    "retention": "array",
}
_NEW_HOOK = {
    "namespace": "string",
    "url": "string",
    "subjects": "array",
    "pattern": "string",
    "secret": "string",
}

OPERATIONS = (
    _Operation("GET", "/myself", "Who asks, and where it may push", _myself),
    _Operation("GET", "/users", "Users, for administrators", _users),
    _Operation(
        "POST",
        "/users",
        "Adds a user",
        _add_user,
        {"name": "string", "password": "string", "administrator": "boolean"},
        status=201,
    ),
    _Operation("GET", _USER, "One user, and its memberships", _user),
    _Operation(
        "PATCH",
        _USER,
        "Makes a user an administrator, or disables it; and back",
        _change_user,
        {"administrator": "boolean", "disabled": "boolean"},
    ),
    _Operation("DELETE", _USER, "Removes a user, with memberships and tokens", _remove_user),
    _Operation(
        "PUT",
        _USER + "/password",
        "Another password; of one's own account, with the one before",
        _set_password,
        {"password": "string", "before": "string"},
    ),
    _Operation("GET", _USER + "/tokens", "Personal access tokens", _tokens),
    _Operation(
        "POST",
        _USER + "/tokens",
        "Makes a token; its secret is in the answer, and nowhere else",
        _add_token,
        _TOKEN,
        status=201,
    ),
    _Operation("DELETE", _USER + "/tokens/{id}", "Removes a token", _remove_token),
    _Operation("GET", "/organisations", "Organisations of who asks", _organisations),
    _Operation(
        "POST",
        "/organisations",
        "Adds an organisation; quota in bytes",
        _add_organisation,
        {"name": "string", "quota": "number"},
        status=201,
    ),
    _Operation("GET", _ORG, "One organisation, and what it uses", _organisation),
    _Operation("PATCH", _ORG, "Sets its quota; null for none", _set_quota, {"quota": "number"}),
    _Operation("DELETE", _ORG, "Removes one without repositories", _remove_organisation),
    _Operation("GET", _ORG + "/members", "Members and their roles", _members),
    _Operation(
        "PUT",
        _ORG + "/members/{user}",
        "Makes a user a member: reader, writer or maintainer",
        _set_member,
        {"role": "string"},
    ),
    _Operation("DELETE", _ORG + "/members/{user}", "Takes a membership away", _remove_member),
    _Operation("GET", _ORG + "/robots", "Robots, for maintainers", _robots),
    _Operation(
        "POST",
        _ORG + "/robots",
        "Makes a robot; its secret is in the answer, and nowhere else",
        _add_robot,
        _ROBOT,
        status=201,
    ),
    _Operation("DELETE", _ORG + "/robots/{name}", "Removes a robot", _remove_robot),
    _Operation(
        "GET",
        "/repositories",
        "Repositories that who asks may pull, in pages",
        _repositories,
        query=(_Q, _N, _LAST),
    ),
    _Operation(
        "POST",
        "/repositories",
        "Makes a repository before its first push",
        _add_repository,
        {"name": "string", "visibility": "string"},
        status=201,
    ),
    _Operation("GET", _REPO + "/-/tags", "Tags in pages", _tags, query=(_N, _LAST)),
    _Operation(
        "GET", _REPO + "/-/tags/{tag}/history", "Where a tag has pointed", _history, query=(_N,)
    ),
    _Operation("DELETE", _REPO + "/-/tags/{tag}", "Removes a tag", _remove_tag),
    _Operation(
        "GET",
        _REPO + "/-/manifests/{reference}",
        "An image, by tag or digest: layers, platforms, referrers",
        _manifest,
    ),
    _Operation(
        "DELETE",
        _REPO + "/-/manifests/{digest}",
        "Removes an image with its tags",
        _remove_manifest,
    ),
    _Operation(
        "POST",
        _REPO + "/-/retention",
        "Takes away what its rules do not keep; with is_trial says what would go",
        _retention,
        {"is_trial": "boolean"},
    ),
    _Operation("GET", _REPO, "One repository, and what who asks may do", _repository),
    _Operation(
        "PATCH", _REPO, "Changes the settings that are given", _change_repository, _SETTINGS
    ),
    _Operation("DELETE", _REPO, "Removes a repository with all that is in it", _remove_repository),
    _Operation(
        "GET",
        "/webhooks",
        "Webhooks of a namespace; without one, those of administrators",
        _webhooks,
        query=(Parameter("namespace", "string", "an organisation, or the own name"),),
    ),
    _Operation(
        "POST",
        "/webhooks",
        "Makes a webhook; its secret is in the answer, and nowhere else",
        _add_webhook,
        _NEW_HOOK,
        status=201,
    ),
    _Operation(
        "PATCH", _HOOK, "Disables a webhook, or not", _switch_webhook, {"disabled": "boolean"}
    ),
    _Operation("DELETE", _HOOK, "Removes a webhook and its log", _remove_webhook),
    _Operation("POST", _HOOK + "/ping", "Has it told of nothing, to try it", _ping, {}),
    _Operation(
        "GET", _HOOK + "/deliveries", "Its log, the newest first", _deliveries, query=(_N, _BEFORE)
    ),
    _Operation(
        "POST",
        _HOOK + "/redeliver",
        "Has a delivery made once more",
        _redeliver,
        {"delivery": "string"},
    ),
    _Operation(
        "GET",
        "/audit",
        "What was done, the newest first",
        _audit,
        query=(
            _N,
            _BEFORE,
            Parameter("actor", "string", "by whom"),
            Parameter("target", "string", "to what"),
        ),
    ),
)

_ABOUT = (
    "Who asks shows a name, and a password, a personal access token or a robot's secret, by Basic. "
    "What nobody may know of is 404, as what is not there."
)


def described() -> Any:
    """The OpenAPI document."""
    return document(
        BASE,
        [
            Operation(
                each.method,
                each.path,
                each.summary,
                (*_in_path(each.path), *each.query),
                each.body,
                status=each.status,
            )
            for each in OPERATIONS
        ],
        _ABOUT,
        logins=("basic",),
    )


def _in_path(path: str) -> list[Parameter]:
    names = [part.partition("}")[0] for part in path.split("{")[1:]]
    return [Parameter(name, "string", "", is_path=True) for name in names]
