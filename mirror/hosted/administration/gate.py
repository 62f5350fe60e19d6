"""Who may do what of administration, asked in one place; and the audit log told of it."""

from __future__ import annotations

from ...clock import Clock
from ...contracts.administration import NotAllowed, NotThere
from ...contracts.context import PrincipalKind, RequestContext
from ...contracts.hosted import HostedRecords, HostedRepository, Seen
from ...contracts.identity import (
    Action,
    AuditLog,
    IdentityRecords,
    Organisation,
    Rights,
    Role,
    User,
)
from ...frozen import dataclass


@dataclass(frozen=True, slots=True)
class Gate:
    """Each question raises NotAllowed or NotThere, and notes that in the audit log where something
    was to be changed. `action` and `target` are the audit log's words."""

    hosted: HostedRecords
    identity: IdentityRecords
    rights: Rights
    log: AuditLog
    clock: Clock

    def done(self, context: RequestContext, action: str, target: str, detail: str = "") -> None:
        self.log.note(context, action, target, detail=detail)

    def refused(self, context: RequestContext, action: str, target: str) -> None:
        self.log.note(context, action, target, "refused")

    # Who asks.

    async def user(self, context: RequestContext) -> User | None:
        """The user that asks, as the records have it now; None for anybody else, and for who shows
        a token: that is there for images, and was given for no more."""
        principal = context.principal
        is_whole = principal.scopes is None and not principal.by_token
        if principal.kind is not PrincipalKind.USER or not is_whole:
            return None
        found = await self.identity.user(context.principal.name)
        return None if found is None or found.is_disabled else found

    async def is_administrator(self, context: RequestContext) -> bool:
        if context.principal.kind is PrincipalKind.OPERATOR:
            return True
        user = await self.user(context)
        return user is not None and user.is_administrator

    async def is_self_or_administrator(self, context: RequestContext, name: str) -> bool:
        user = await self.user(context)
        if user is not None and user.name == name:
            return True
        return await self.is_administrator(context)

    def is_user(self, context: RequestContext, name: str) -> bool:
        principal = context.principal
        return principal.kind is PrincipalKind.USER and principal.name == name

    async def role(self, context: RequestContext, namespace: str) -> Role | None:
        """In this organisation; of the own name a maintainer's."""
        user = await self.user(context)
        if user is None:
            return None
        if user.name == namespace:
            return Role.MAINTAINER
        return dict(await self.identity.memberships(user.name)).get(namespace)

    # What may be done.

    async def changes(self, context: RequestContext, action: str, target: str) -> None:
        is_operator = context.principal.kind is PrincipalKind.OPERATOR
        if not is_operator and await self.user(context) is None:
            self.refused(context, action, target)
            raise NotAllowed("sign in as a user, with a password, to change this")

    async def administers(
        self, context: RequestContext, action: str, target: str, *, changes: bool = True
    ) -> None:
        if changes:
            await self.changes(context, action, target)
        if not await self.is_administrator(context):
            if changes:
                self.refused(context, action, target)
            raise NotAllowed("this is for administrators")

    async def sees_organisation(self, context: RequestContext, name: str) -> Organisation:
        found = await self.identity.organisation(name)
        if found is None or not (
            await self.is_administrator(context) or await self.role(context, name)
        ):
            raise NotThere("organisation", name)
        return found

    async def maintains(
        self, context: RequestContext, name: str, action: str, *, changes: bool = True
    ) -> None:
        """An organisation."""
        await self.sees_organisation(context, name)
        await self._maintains(context, name, action, changes)

    async def maintains_namespace(
        self, context: RequestContext, name: str, action: str, *, changes: bool = True
    ) -> None:
        """An organisation, or the name of a user."""
        if await self.identity.user(name) is None:
            await self.maintains(context, name, action, changes=changes)
            return
        if not await self.is_self_or_administrator(context, name):
            raise NotThere("organisation", name)
        await self._maintains(context, name, action, changes)

    async def _maintains(
        self, context: RequestContext, name: str, action: str, changes: bool
    ) -> None:
        if changes:
            await self.changes(context, action, name)
        if await self.is_administrator(context):
            return
        if await self.role(context, name) is not Role.MAINTAINER:
            if changes:
                self.refused(context, action, name)
            raise NotAllowed(f"this is for maintainers of {name}")

    async def sees_repository(self, context: RequestContext, name: str) -> HostedRepository:
        found = await self.hosted.repository(name)
        if found is None or not await self.may(context, Action.PULL, name):
            raise NotThere("repository", name)
        return found

    async def acts(
        self, context: RequestContext, name: str, right: Action, action: str, target: str = ""
    ) -> HostedRepository:
        """That a repository may be changed in this way."""
        found = await self.sees_repository(context, name)
        await self.changes(context, action, target or name)
        if not await self.may(context, right, name):
            self.refused(context, action, target or name)
            raise NotAllowed(f"this is for maintainers of {found.namespace}")
        return found

    async def may(self, context: RequestContext, right: Action, repository: str) -> bool:
        if context.principal.kind is PrincipalKind.OPERATOR:
            return True
        return await self.rights.may(context.principal, right, repository)

    async def what_is_left(self, name: str) -> str:
        """Why a namespace that has repositories is not removed."""
        seen = Seen(namespaces=frozenset({name}))
        found = await self.hosted.repositories(seen, last=f"{name}/", count=1000)
        own = [each.name for each in found if each.namespace == name]
        shown = ", ".join(own[:5]) + (" and others" if len(own) > 5 else "")
        return f"{name} has repositories, which are to be removed first: {shown}"
