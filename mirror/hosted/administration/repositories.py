"""Repositories: found, made, set, removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from ...contracts.administration import (
    AlreadyThere,
    NotAllowed,
    NotThere,
    NotValid,
    RepositoryEntry,
    RepositoryList,
    RetentionPlan,
)
from ...contracts.context import PrincipalKind, RequestContext
from ...contracts.events import RepositoryChanged
from ...contracts.hosted import HostedRepository, RetentionRule, Seen, Visibility
from ...contracts.identity import Action
from ...events import Events
from ...oci.reference import Repository, namespace_of
from . import names
from .gate import Gate

Retention = Callable[[str, bool], Awaitable[RetentionPlan]]
"""Applies the rules of a repository, or (True) says only what they would take away."""

_LONGEST_QUERY = 255


class HostedRepositories:
    def __init__(self, gate: Gate, registry: str, events: Events, retention: Retention) -> None:
        """`registry`: the name that the repositories are given to others by."""
        self._gate = gate
        self._records = gate.hosted
        self._registry = registry
        self._events = events
        self._retention = retention

    async def list(
        self,
        context: RequestContext,
        query: str = "",
        count: int = 100,
        after: str | None = None,
    ) -> RepositoryList:
        if len(query) > _LONGEST_QUERY:
            raise NotValid(f"what is looked for has {_LONGEST_QUERY} characters at most")
        count = names.count(count)
        found = await self._records.repositories(await self._seen(context), query, count + 1, after)
        shown = found[:count]
        sizes = await self._records.sizes([each.name for each in shown])
        entries = [await self._entry(context, each, sizes) for each in shown]
        return RepositoryList(tuple(entries), shown[-1].name if len(found) > count else None)

    async def one(self, context: RequestContext, name: str) -> RepositoryEntry:
        return await self._entry(context, await self._gate.sees_repository(context, name))

    async def add(
        self, context: RequestContext, name: str, visibility: Visibility
    ) -> RepositoryEntry:
        names.repository(name)
        await self._gate.changes(context, "repo add", name)
        await self._may_make(context, name)
        if await self._records.repository(name) is not None:
            raise AlreadyThere(f"there is a repository {name} already")
        now, by = self._gate.clock.wall(), context.principal.name
        made = await self._records.create(name, visibility, now, by)
        self._changed(context, name)
        self._gate.done(context, "repo add", name, visibility.value)
        return await self._entry(context, made)

    async def change(
        self,
        context: RequestContext,
        name: str,
        *,
        visibility: Visibility | None = None,
        description: str | None = None,
        immutable: Sequence[str] | None = None,
        retention: Sequence[RetentionRule] | None = None,
    ) -> RepositoryEntry:
        await self._gate.acts(context, name, Action.MANAGE, "repo set")
        changed = await self._records.change(
            name,
            visibility=visibility,
            description=None if description is None else names.description(description),
            immutable=None if immutable is None else names.tag_patterns(immutable),
            retention=None if retention is None else names.rules(retention),
        )
        if changed is None:
            raise NotThere("repository", name)
        self._changed(context, name)
        words = {
            "visibility": visibility and visibility.value,
            "description": description,
            "immutable": immutable and " ".join(immutable),
            "retention": retention and f"{len(retention)} rules",
        }
        detail = ", ".join(
            f"{key} {value or 'none'}"[:200] for key, value in words.items() if value is not None
        )
        self._gate.done(context, "repo set", name, detail)
        return await self._entry(context, changed)

    async def remove(self, context: RequestContext, name: str) -> None:
        await self._gate.acts(context, name, Action.MANAGE, "repo remove")
        now, by = self._gate.clock.wall(), context.principal.name
        if not await self._records.delete_repository(name, now, by):
            raise NotThere("repository", name)
        self._changed(context, name)
        self._gate.done(context, "repo remove", name)

    async def apply_retention(
        self, context: RequestContext, name: str, *, is_trial: bool
    ) -> RetentionPlan:
        await self._gate.acts(context, name, Action.MANAGE, "retention run")
        if is_trial:
            return await self._retention(name, True)
        plan = await self._retention(name, False)
        detail = f"{len(plan.tags)} tags, {len(plan.manifests)} manifests"
        self._gate.done(context, "retention run", name, detail)
        return plan

    async def _may_make(self, context: RequestContext, name: str) -> None:
        gate, namespace = self._gate, namespace_of(name)
        is_there = (
            await gate.identity.organisation(namespace) is not None
            or await gate.identity.user(namespace) is not None
        )
        if context.principal.kind is PrincipalKind.OPERATOR:
            if not is_there:
                raise NotThere("organisation", namespace)
        elif not await gate.rights.may_create(context.principal, name):
            gate.refused(context, "repo add", name)
            if is_there and await gate.role(context, namespace):
                raise NotAllowed(f"this is for writers and maintainers of {namespace}")
            raise NotThere("organisation", namespace)

    async def _seen(self, context: RequestContext) -> Seen:
        if context.principal.kind is PrincipalKind.OPERATOR:
            return Seen(everything=True)
        return await self._gate.rights.seen(context.principal)

    async def _entry(
        self,
        context: RequestContext,
        repository: HostedRepository,
        sizes: Mapping[str, int] | None = None,
    ) -> RepositoryEntry:
        name = repository.name
        if sizes is None:
            sizes = await self._records.sizes([name])
        may = [each for each in Action if await self._gate.may(context, each, name)]
        return RepositoryEntry(repository, tuple(may), sizes.get(name, 0))

    def _changed(self, context: RequestContext, name: str) -> None:
        repository = Repository(self._registry, name)
        self._events.emit(RepositoryChanged(repository, context.principal.name))
