"""Organisations, and who is a member of them."""

from __future__ import annotations

from collections.abc import Sequence

from ...contracts.administration import AlreadyThere, NotThere, OrganisationDetail
from ...contracts.context import RequestContext
from ...contracts.identity import Member, Organisation, Role
from . import names
from .gate import Gate


class HostedOrganisations:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._records = gate.identity

    async def list(self, context: RequestContext) -> Sequence[OrganisationDetail]:
        everything = await self._records.organisations()
        if await self._gate.is_administrator(context):
            seen = everything
        else:
            user = await self._gate.user(context)
            memberships = await self._records.memberships(user.name) if user else ()
            own = {name for name, _ in memberships}
            seen = [each for each in everything if each.name in own]
        return [await self._detail(context, each) for each in seen]

    async def one(self, context: RequestContext, name: str) -> OrganisationDetail:
        return await self._detail(context, await self._gate.sees_organisation(context, name))

    async def add(
        self, context: RequestContext, name: str, quota: int | None = None
    ) -> OrganisationDetail:
        await self._gate.administers(context, "org add", name)
        names.account(name, "an organisation")
        organisation = Organisation(name, self._gate.clock.wall(), names.quota(quota))
        if not await self._records.add_organisation(organisation):
            is_user = await self._records.user(name) is not None
            raise AlreadyThere(
                f"there is {'a user' if is_user else 'an organisation'} {name} already"
            )
        self._gate.done(context, "org add", name)
        return await self._detail(context, organisation)

    async def set_quota(
        self, context: RequestContext, name: str, quota: int | None
    ) -> OrganisationDetail:
        await self._gate.administers(context, "org quota", name)
        if not await self._records.set_quota(name, names.quota(quota)):
            raise NotThere("organisation", name)
        self._gate.done(context, "org quota", name, "none" if quota is None else f"{quota} bytes")
        return await self.one(context, name)

    async def remove(self, context: RequestContext, name: str) -> None:
        await self._gate.administers(context, "org remove", name)
        await self._gate.sees_organisation(context, name)
        if not await self._records.remove_organisation(name):
            raise AlreadyThere(await self._gate.what_is_left(name))
        self._gate.done(context, "org remove", name)

    async def members(self, context: RequestContext, name: str) -> Sequence[Member]:
        await self._gate.sees_organisation(context, name)
        return await self._records.members(name)

    async def set_member(
        self, context: RequestContext, name: str, user: str, role: Role | None
    ) -> None:
        await self._gate.maintains(context, name, "org member")
        if role is None:
            members = await self._records.members(name)
            if user not in [each.user for each in members]:
                raise NotThere("member", user, f"{user} is no member of {name}")
        if not await self._records.set_member(name, user, role):
            raise NotThere("user", user)
        detail = f"{user} {'no more' if role is None else role.value}"
        self._gate.done(context, "org member", name, detail)

    async def _detail(
        self, context: RequestContext, organisation: Organisation
    ) -> OrganisationDetail:
        used = await self._gate.hosted.usage(organisation.name)
        role = await self._gate.role(context, organisation.name)
        return OrganisationDetail(organisation, used, role)
