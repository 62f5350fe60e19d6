"""The guard: each method needs its right, and nothing is told of what one may not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mirror.contracts.context import ANONYMOUS, Principal, RequestContext
from mirror.contracts.hosted import Seen
from mirror.contracts.identity import Action, AuditEntry
from mirror.contracts.registry import RepositoryPage, Stored
from mirror.identity.guard import Guard
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, RegistryError, Unauthorized
from mirror.oci.reference import Repository
from mirror.policy.forwarding import METHODS

APP = Repository("hosted", "team/app")
SOURCE = Repository("hosted", "other/secret")
DIGEST = Digest.of(b"content")
ADA = Principal("ada")
READ, WRITE, TAKE = Action.PULL, Action.PUSH, Action.DELETE

ASKED: dict[str, tuple[Action, tuple[Any, ...]]] = {
    "resolve": (READ, ("v1",)),
    "manifest": (READ, (DIGEST,)),
    "stat": (READ, (DIGEST,)),
    "blob": (READ, (DIGEST,)),
    "referrers": (READ, (DIGEST,)),
    "tags": (READ, ()),
    "begin_upload": (WRITE, ()),
    "append": (WRITE, ("session", None, None)),
    "uploaded": (WRITE, ("session",)),
    "finish_upload": (WRITE, ("session", DIGEST)),
    "cancel_upload": (WRITE, ("session",)),
    "mount": (WRITE, (DIGEST, None)),
    "put_manifest": (WRITE, ("v1", b"{}", "application/json")),
    "delete_tag": (TAKE, ("v1",)),
    "delete_manifest": (TAKE, (DIGEST,)),
    "delete_blob": (TAKE, (DIGEST,)),
}
MAKING = ("begin_upload", "finish_upload", "mount", "put_manifest")


class Inner:
    """Answers everything with `answer`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Any = True
        self.stored = Stored(Descriptor("application/json", DIGEST, 2))

    def __getattr__(self, name: str) -> Any:
        async def ask(*_: object) -> Any:
            self.asked.append(name)
            return self.stored if name == "put_manifest" else self.answer

        return ask


class Rights:
    """Those of one principal."""

    def __init__(self, *allowed: tuple[Action, str], creates: bool = True) -> None:
        self.allowed = set(allowed)
        self.creates = creates

    async def may(self, principal: Principal, action: Action, repository: str) -> bool:
        return (action, repository) in self.allowed

    async def may_create(self, principal: Principal, repository: str) -> bool:
        return self.creates

    async def seen(self, principal: Principal) -> Seen:
        return Seen()

    async def is_administrator(self, principal: Principal) -> bool:
        return False


class Audit:
    """Of what was noted, in words."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, str]] = []

    def note(
        self,
        context: RequestContext,
        action: str,
        target: str,
        outcome: str = "done",
        detail: str = "",
    ) -> None:
        self.noted.append((action, target, outcome))

    async def entries(
        self, count: int = 100, before: float | None = None, actor: str = "", target: str = ""
    ) -> Sequence[AuditEntry]:
        return []


def asking(principal: Principal) -> RequestContext:
    return RequestContext("id", "192.0.2.1", principal)


async def ask(
    guard: Guard, method: str, principal: Principal = ADA, repository: Repository = APP
) -> Any:
    return await getattr(guard, method)(asking(principal), repository, *ASKED[method][1])


def guarded(*allowed: tuple[Action, str], creates: bool = True) -> tuple[Guard, Inner]:
    inner: Any = Inner()
    return Guard(inner, Rights(*allowed, creates=creates), Audit()), inner


def test_nothing_that_a_registry_does_is_without_its_guard() -> None:
    assert {*ASKED, "repositories"} == METHODS
    assert set(vars(Guard)) >= METHODS


@pytest.mark.parametrize("method", ASKED)
async def test_a_method_needs_its_right_and_no_other(method: str) -> None:
    needed = ASKED[method][0]
    guard, inner = guarded((needed, APP.name))
    assert await ask(guard, method) in (True, None, inner.stored)
    assert inner.asked == [method]
    others = [(each, APP.name) for each in Action if each is not needed]
    guard, inner = guarded(*others)
    with pytest.raises(Denied):
        await ask(guard, method)
    assert inner.asked == []


@pytest.mark.parametrize("method", ASKED)
async def test_who_has_no_login_is_told_for_what_to_log_in(method: str) -> None:
    guard, inner = guarded()
    with pytest.raises(Unauthorized) as refused:
        await ask(guard, method, ANONYMOUS)
    words = {READ: "pull", WRITE: "pull,push", TAKE: "delete"}[ASKED[method][0]]
    assert refused.value.scope == f"repository:team/app:{words}"
    assert inner.asked == []


@pytest.mark.parametrize("method", ASKED)
async def test_who_shows_a_token_for_something_else_is_told_to_have_another(method: str) -> None:
    guard, _ = guarded()
    narrow = replace(ADA, scopes=frozenset((("team/other", "pull"),)))
    with pytest.raises(Unauthorized) as refused:
        await ask(guard, method, narrow)
    assert refused.value.scope.startswith("repository:team/app:")
    for_it = replace(ADA, scopes=frozenset((APP.name, each.value) for each in Action))
    with pytest.raises(Denied):  # the right was taken away since
        await ask(guard, method, for_it)


@pytest.mark.parametrize("method", MAKING)
async def test_a_push_makes_nothing_below_a_name_that_nobody_has(method: str) -> None:
    guard, inner = guarded((WRITE, APP.name), creates=False)
    with pytest.raises(Denied, match="organisation"):
        await ask(guard, method)
    assert inner.asked == []


async def test_what_may_not_be_read_is_not_mounted_and_nothing_is_told_of_it() -> None:
    guard, inner = guarded((WRITE, APP.name))
    assert await guard.mount(asking(ADA), APP, DIGEST, SOURCE) is False
    assert inner.asked == []
    guard, inner = guarded((WRITE, APP.name), (READ, SOURCE.name))
    assert await guard.mount(asking(ADA), APP, DIGEST, SOURCE) is True
    guard, inner = guarded((READ, APP.name), (READ, SOURCE.name))
    with pytest.raises(Denied):
        await guard.mount(asking(ADA), APP, DIGEST, SOURCE)


async def test_a_refusal_says_the_same_of_any_name() -> None:
    """The inner registry, which knows what there is, is not asked before."""
    guard, inner = guarded()
    told: list[str] = []
    for name in ("team/app", "team/no1"):
        with pytest.raises(RegistryError) as refused:
            await ask(guard, "resolve", ADA, Repository("hosted", name))
        told.append(refused.value.message.replace(name, "NAME"))
    assert told[0] == told[1]
    assert inner.asked == []


@pytest.mark.parametrize(
    ("principal", "is_asked_to_log_in"),
    [
        (ANONYMOUS, True),
        (replace(ADA, scopes=frozenset()), True),
        (replace(ADA, scopes=frozenset((("registry:catalog", "*"),))), False),
        (ADA, False),
    ],
)
async def test_a_catalogue_with_nothing_to_show_asks_for_a_login(
    principal: Principal, is_asked_to_log_in: bool
) -> None:
    guard, inner = guarded()
    inner.answer = RepositoryPage([])
    if is_asked_to_log_in:
        with pytest.raises(Unauthorized) as refused:
            await guard.repositories(asking(principal), "hosted")
        assert refused.value.scope == "registry:catalog:*"
    else:
        assert await guard.repositories(asking(principal), "hosted") == RepositoryPage([])


async def test_nobody_is_listed_what_is_public_and_another_token_is_not_taken() -> None:
    guard, inner = guarded()
    inner.answer = RepositoryPage([APP])
    assert (await guard.repositories(asking(ANONYMOUS), "hosted")).repositories == [APP]
    with pytest.raises(Unauthorized):
        await guard.repositories(asking(replace(ADA, scopes=frozenset())), "hosted")


async def test_what_was_changed_and_what_was_refused_is_noted() -> None:
    inner: Any = Inner()
    audit = Audit()
    guard = Guard(inner, Rights((WRITE, APP.name), (TAKE, APP.name)), audit)
    for method in ("put_manifest", "delete_tag", "delete_manifest", "delete_blob", "begin_upload"):
        await ask(guard, method)
    assert audit.noted == [
        ("push", "team/app:v1", "done"),
        ("delete tag", "team/app:v1", "done"),
        ("delete manifest", f"team/app@{DIGEST}", "done"),
        ("delete blob", f"team/app@{DIGEST}", "done"),
    ]
    audit.noted.clear()
    for method in ("put_manifest", "delete_tag"):
        with pytest.raises(Denied):
            await ask(guard, method, ADA, SOURCE)
    with pytest.raises(Unauthorized):
        await ask(guard, "put_manifest", ANONYMOUS, SOURCE)
    assert audit.noted == [
        ("push", "other/secret", "refused"),
        ("delete", "other/secret", "refused"),
    ]
