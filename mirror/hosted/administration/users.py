"""Users: added, changed, removed, imported."""

from __future__ import annotations

from collections.abc import Sequence

from ...contracts.administration import (
    AlreadyThere,
    HtpasswdImport,
    Myself,
    NotAllowed,
    NotThere,
    NotValid,
    UserDetail,
)
from ...contracts.context import PrincipalKind, RequestContext
from ...contracts.identity import Passwords, Role, User
from . import names
from .gate import Gate

_MOST_LINES = 100_000
_MOST_REFUSED = 1000


class HostedUsers:
    def __init__(self, gate: Gate, passwords: Passwords) -> None:
        self._gate = gate
        self._records = gate.identity
        self._passwords = passwords

    async def myself(self, context: RequestContext) -> Myself:
        principal = context.principal
        user = await self._gate.user(context)
        if user is None:
            is_operator = principal.kind is PrincipalKind.OPERATOR
            return Myself(principal.name, principal.kind.value, is_operator)
        memberships = tuple(await self._records.memberships(user.name))
        pushes = [name for name, role in memberships if role is not Role.READER]
        return Myself(
            user.name,
            principal.kind.value,
            user.is_administrator,
            memberships,
            (user.name, *pushes),
        )

    async def list(self, context: RequestContext) -> Sequence[User]:
        await self._gate.administers(context, "user list", "", changes=False)
        return await self._records.users()

    async def one(self, context: RequestContext, name: str) -> UserDetail:
        if not await self._gate.is_self_or_administrator(context, name):
            raise NotThere("user", name)
        return UserDetail(await self._user(name), tuple(await self._records.memberships(name)))

    async def add(
        self, context: RequestContext, name: str, password: str, *, administrator: bool = False
    ) -> User:
        await self._gate.administers(context, "user add", name)
        names.account(name, "a user")
        user = User(name, administrator, self._gate.clock.wall())
        hash = await self._hash(context, password)
        if not await self._records.add_user(user, hash):
            raise await self._taken(name)
        self._gate.done(context, "user add", name, "as an administrator" if administrator else "")
        return user

    async def set_password(
        self, context: RequestContext, name: str, password: str, *, before: str | None = None
    ) -> None:
        is_own = self._gate.is_user(context, name)
        if is_own:
            await self._gate.changes(context, "user passwd", name)
            known = await self._records.password_hash(name)
            if known is None or not await self._passwords.matches(before or "", known):
                self._gate.refused(context, "user passwd", name)
                raise NotAllowed("the password that you have now is another one")
        else:
            await self._gate.administers(context, "user passwd", name)
        await self._user(name)
        hash = await self._hash(context, password)
        if not await self._records.set_password(name, hash):
            raise NotThere("user", name)
        self._gate.done(context, "user passwd", name)

    async def change(
        self,
        context: RequestContext,
        name: str,
        *,
        administrator: bool | None = None,
        disabled: bool | None = None,
    ) -> User:
        await self._gate.administers(context, "user change", name)
        user = await self._user(name)
        if administrator is False or disabled:
            await self._keep_an_administrator(user)
        if not await self._records.set_user(name, administrator=administrator, disabled=disabled):
            raise NotThere("user", name)
        words = {"administrator": administrator, "disabled": disabled}
        detail = ", ".join(f"{key} {value}" for key, value in words.items() if value is not None)
        self._gate.done(context, "user change", name, detail)
        return await self._user(name)

    async def remove(self, context: RequestContext, name: str) -> None:
        await self._gate.administers(context, "user remove", name)
        await self._keep_an_administrator(await self._user(name))
        if not await self._records.remove_user(name):
            raise AlreadyThere(f"{await self._gate.what_is_left(name)}; or disable the user")
        self._gate.done(context, "user remove", name)

    async def import_htpasswd(self, context: RequestContext, text: str) -> HtpasswdImport:
        await self._gate.administers(context, "user import-htpasswd", "")
        lines = text.splitlines()
        if len(lines) > _MOST_LINES:
            raise NotValid(f"the file has more than {_MOST_LINES} lines")
        added, updated, refused = [], [], []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, hash = line.strip().partition(":")
            try:
                names.account(name, "a user")
                hash = self._imported(hash)
                if await self._records.set_password(name, hash):
                    updated.append(name)
                elif await self._records.add_user(User(name, False, self._gate.clock.wall()), hash):
                    added.append(name)
                else:
                    raise await self._taken(name)
            except (NotValid, AlreadyThere) as error:
                refused.append((number, error.message))
                continue
            self._gate.done(context, "user import-htpasswd", name)
        return HtpasswdImport(tuple(added), tuple(updated), tuple(refused[:_MOST_REFUSED]))

    async def _user(self, name: str) -> User:
        found = await self._records.user(name)
        if found is None:
            raise NotThere("user", name)
        return found

    async def _keep_an_administrator(self, user: User) -> None:
        if not user.is_administrator or user.is_disabled:
            return
        others = [each for each in await self._records.users() if each.name != user.name]
        if not any(each.is_administrator and not each.is_disabled for each in others):
            raise NotAllowed(f"{user.name} is the last administrator: make another one first")

    async def _taken(self, name: str) -> AlreadyThere:
        is_user = await self._records.user(name) is not None
        return AlreadyThere(f"there is {'a user' if is_user else 'an organisation'} {name} already")

    async def _hash(self, context: RequestContext, password: str) -> str:
        """The operator's own machine may have the passwords that the operator likes."""
        if context.principal.kind is not PrincipalKind.OPERATOR:
            names.chosen_password(password)
        if not password:
            raise NotValid("the password is empty")
        try:
            return await self._passwords.hash(password)
        except ValueError as error:
            raise NotValid(str(error)) from None

    def _imported(self, hash: str) -> str:
        try:
            return self._passwords.imported(hash)
        except ValueError as error:
            raise NotValid(str(error)) from None
