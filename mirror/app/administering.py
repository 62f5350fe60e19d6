"""The commands about repositories of one's own, as they come over the control socket."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from ..contracts.administration import (
    Administration,
    AdministrationError,
    NotThere,
    NotValid,
    rendered,
)
from ..contracts.context import OPERATOR, RequestContext
from ..contracts.hosted import RetentionRule, Visibility
from ..contracts.identity import Grant, Right, Role
from ..contracts.webhooks import Subject
from ..server.control import Command, CommandFailed, Parameters, Tells

Line = Mapping[str, Any]
_Answer = Callable[[Administration, RequestContext, Parameters], Awaitable[object]]
"""Gives one thing that can be rendered, a sequence of them, or None where it is only done."""

NOT_CONFIGURED = (
    "this mirror hosts no repositories: write hosted: {listen: 127.0.0.1:5002} into its "
    "mirror.yaml, and restart it"
)

_HINTS = {
    "organisation": "registry-mirror org add {name} makes it, org list tells of those there are",
    "user": "registry-mirror user add {name} makes it, user list tells of those there are",
    "robot": "robot list tells of those there are",
    "repository": "repo list tells of those there are; a push makes it",
    "webhook": "webhook list tells of those there are",
}


def administration_commands(
    administration: Callable[[], Administration | None],
) -> Mapping[str, Command]:
    """By their names. `administration`: None where nothing is hosted."""
    return {name: _command(administration, answer) for name, answer in _ANSWERS.items()}


def _command(administration: Callable[[], Administration | None], answer: _Answer) -> Command:
    async def run(given: Parameters) -> AsyncGenerator[Line, None]:
        found = administration()
        if found is None:
            raise CommandFailed(NOT_CONFIGURED, 2)
        with told():
            answered = await answer(found, operator(), given)
        for each in answered if isinstance(answered, list | tuple) else (answered,):
            yield {} if each is None else rendered(each)

    return Tells(run)


def operator() -> RequestContext:
    return RequestContext(secrets.token_hex(8), "control socket", OPERATOR)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What administration refuses, as a command's failure."""
    try:
        yield
    except NotThere as error:
        hint = _HINTS.get(error.kind, "").format(name=error.name)
        raise CommandFailed(f"{error.message}: {hint}" if hint else error.message) from None
    except AdministrationError as error:
        raise CommandFailed(error.message, 2 if isinstance(error, NotValid) else 1) from None


# Users.


async def _user_list(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.users.list(by)


async def _user_add(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.users.add(
        by, given["name"], given["password"], administrator=given.get("administrator", False)
    )


async def _user_passwd(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.users.set_password(by, given["name"], given["password"])


async def _user_set(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.users.change(
        by,
        given["name"],
        administrator=given.get("administrator"),
        disabled=given.get("disabled"),
    )


async def _user_show(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.users.one(by, given["name"])


async def _user_remove(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.users.remove(by, given["name"])


async def _user_import(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.users.import_htpasswd(by, given["text"])


# Organisations.


async def _org_list(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.organisations.list(by)


async def _org_add(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.organisations.add(by, given["name"], given.get("quota"))


async def _org_quota(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.organisations.set_quota(by, given["name"], given["quota"])


async def _org_remove(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.organisations.remove(by, given["name"])


async def _org_members(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.organisations.members(by, given["name"])


async def _org_member(on: Administration, by: RequestContext, given: Parameters) -> None:
    role = None if given["role"] is None else Role(given["role"])
    await on.organisations.set_member(by, given["name"], given["user"], role)


# Robots and tokens.


async def _robot_list(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.robots.list(by, given["organisation"])


async def _robot_add(on: Administration, by: RequestContext, given: Parameters) -> object:
    grants = [Grant(each["pattern"], Right(each["right"])) for each in given["grants"]]
    return await on.robots.add(
        by, given["organisation"], given["name"], grants, given.get("expires_in")
    )


async def _robot_remove(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.robots.remove(by, given["organisation"], given["name"])


async def _token_list(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.tokens.list(by, given["user"])


async def _token_add(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.tokens.add(
        by, given["user"], given["name"], Right(given["right"]), given.get("expires_in")
    )


async def _token_remove(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.tokens.remove(by, given["user"], given["id"])


# Repositories, and what is in them.


async def _repo_list(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.repositories.list(
        by, given.get("query", ""), given.get("count", 100), given.get("after")
    )


async def _repo_show(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.repositories.one(by, given["name"])


async def _repo_add(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.repositories.add(by, given["name"], Visibility(given["visibility"]))


async def _repo_set(on: Administration, by: RequestContext, given: Parameters) -> object:
    visibility, rules = given.get("visibility"), given.get("retention")
    return await on.repositories.change(
        by,
        given["name"],
        visibility=None if visibility is None else Visibility(visibility),
        description=given.get("description"),
        immutable=given.get("immutable"),
        retention=None if rules is None else [_rule(each) for each in rules],
    )


def _rule(given: Mapping[str, Any]) -> RetentionRule:
    return RetentionRule(
        tuple(given.get("match", ("*",))),
        given.get("keep"),
        given.get("younger"),
        given.get("untagged"),
    )


async def _repo_remove(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.repositories.remove(by, given["name"])


async def _repo_tags(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.images.tags(by, given["name"], given.get("count", 100), given.get("after"))


async def _repo_history(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.images.history(by, given["name"], given["tag"])


async def _repo_image(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.images.manifest(by, given["name"], given["reference"])


async def _repo_untag(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.images.remove_tag(by, given["name"], given["tag"])


async def _repo_delete(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.images.remove_manifest(by, given["name"], given["digest"])


async def _retention_run(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.repositories.apply_retention(by, given["name"], is_trial=given["is_trial"])


# Webhooks, and what was done.


async def _webhook_list(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.webhooks.list(by, given["namespace"])


async def _webhook_add(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.webhooks.add(
        by,
        given["namespace"],
        given["url"],
        [Subject(each) for each in given["subjects"]],
        given["pattern"],
        given.get("secret", ""),
    )


async def _webhook_switch(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.webhooks.switch(by, given["id"], disabled=given["disabled"])


async def _webhook_remove(on: Administration, by: RequestContext, given: Parameters) -> None:
    await on.webhooks.remove(by, given["id"])


async def _webhook_ping(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.webhooks.ping(by, given["id"])


async def _deliveries(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.webhooks.deliveries(by, given["id"], given.get("count", 50))


async def _redeliver(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.webhooks.redeliver(by, given["id"], given["delivery"])


async def _audit(on: Administration, by: RequestContext, given: Parameters) -> object:
    return await on.audit(
        by,
        given.get("count", 100),
        given.get("before"),
        given.get("actor", ""),
        given.get("target", ""),
    )


_ANSWERS: Mapping[str, _Answer] = {
    "user-list": _user_list,
    "user-add": _user_add,
    "user-passwd": _user_passwd,
    "user-set": _user_set,
    "user-show": _user_show,
    "user-remove": _user_remove,
    "user-import-htpasswd": _user_import,
    "org-list": _org_list,
    "org-add": _org_add,
    "org-quota": _org_quota,
    "org-remove": _org_remove,
    "org-members": _org_members,
    "org-member": _org_member,
    "robot-list": _robot_list,
    "robot-add": _robot_add,
    "robot-remove": _robot_remove,
    "token-list": _token_list,
    "token-add": _token_add,
    "token-remove": _token_remove,
    "repo-list": _repo_list,
    "repo-show": _repo_show,
    "repo-add": _repo_add,
    "repo-set": _repo_set,
    "repo-remove": _repo_remove,
    "repo-tags": _repo_tags,
    "repo-history": _repo_history,
    "repo-image": _repo_image,
    "repo-untag": _repo_untag,
    "repo-delete": _repo_delete,
    "retention-run": _retention_run,
    "webhook-list": _webhook_list,
    "webhook-add": _webhook_add,
    "webhook-switch": _webhook_switch,
    "webhook-remove": _webhook_remove,
    "webhook-ping": _webhook_ping,
    "webhook-deliveries": _deliveries,
    "webhook-redeliver": _redeliver,
    "audit": _audit,
}
