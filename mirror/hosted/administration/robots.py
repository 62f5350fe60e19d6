"""Robots of organisations, and personal access tokens of users: both have a secret, shown once."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ...contracts.administration import (
    AlreadyThere,
    NewRobot,
    NewToken,
    NotAllowed,
    NotThere,
    NotValid,
)
from ...contracts.context import PrincipalKind, RequestContext
from ...contracts.identity import (
    ROBOT_PREFIX,
    TOKEN_PREFIX,
    AccessToken,
    Grant,
    Right,
    Robot,
    new_secret,
    secret_hash,
)
from . import names
from .gate import Gate

_MOST = 1000  # robots of one organisation, and tokens of one user


class HostedRobots:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._records = gate.identity

    async def list(self, context: RequestContext, organisation: str) -> Sequence[Robot]:
        await self._gate.maintains(context, organisation, "robot list", changes=False)
        return await self._records.robots(organisation)

    async def add(
        self,
        context: RequestContext,
        organisation: str,
        name: str,
        grants: Sequence[Grant],
        expires_in: float | None = None,
    ) -> NewRobot:
        await self._gate.maintains(context, organisation, "robot add")
        now = self._gate.clock.wall()
        life = names.life(expires_in)
        robot = Robot(
            organisation,
            names.account(name, "a robot"),
            names.grants(grants, organisation),
            now,
            None if life is None else now + life,
        )
        if len(await self._records.robots(organisation)) >= _MOST:
            raise NotValid(f"{organisation} has {_MOST} robots: remove some")
        secret = new_secret(ROBOT_PREFIX)
        if not await self._records.add_robot(robot, secret_hash(secret)):
            raise AlreadyThere(f"there is a robot {robot.login} already")
        rights = ", ".join(f"{each.right.value} {each.pattern}" for each in robot.grants)
        self._gate.done(context, "robot add", robot.login, rights)
        return NewRobot(robot, robot.login, secret)

    async def remove(self, context: RequestContext, organisation: str, name: str) -> None:
        await self._gate.maintains(context, organisation, "robot remove")
        name = name.removeprefix(f"{organisation}+")
        login = f"{organisation}+{name}"
        if not await self._records.remove_robot(organisation, name):
            raise NotThere("robot", login)
        self._gate.done(context, "robot remove", login)


class HostedTokens:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._records = gate.identity

    async def list(self, context: RequestContext, user: str) -> Sequence[AccessToken]:
        await self._is_for(context, user)
        return await self._records.tokens(user)

    async def add(
        self,
        context: RequestContext,
        user: str,
        name: str,
        right: Right,
        expires_in: float | None = None,
    ) -> NewToken:
        await self._is_for(context, user)
        await self._gate.changes(context, "token add", user)
        if context.principal.kind is not PrincipalKind.OPERATOR and not self._gate.is_user(
            context, user
        ):
            self._gate.refused(context, "token add", user)
            raise NotAllowed(f"a token of {user} is made by {user} alone")
        now = self._gate.clock.wall()
        life = names.life(expires_in)
        token = AccessToken(
            secrets.token_hex(8),
            user,
            names.label(name, "a token's name"),
            right,
            now,
            None if life is None else now + life,
        )
        there = await self._records.tokens(user)
        if len(there) >= _MOST:
            raise NotValid(f"{user} has {_MOST} tokens: remove some")
        if token.name in [each.name for each in there]:
            raise AlreadyThere(f"{user} has a token {token.name} already")
        secret = new_secret(TOKEN_PREFIX)
        if not await self._records.add_token(token, secret_hash(secret)):
            raise NotThere("user", user)
        self._gate.done(context, "token add", user, f"{token.name}, {right.value}")
        return NewToken(token, user, secret)

    async def remove(self, context: RequestContext, user: str, id: str) -> None:
        await self._is_for(context, user)
        await self._gate.changes(context, "token remove", user)
        there = await self._records.tokens(user)
        found = next((each for each in there if id in (each.id, each.name)), None)
        if found is None or not await self._records.remove_token(user, found.id):
            raise NotThere("token", id, f"{user} has no token {id}")
        self._gate.done(context, "token remove", user, found.name)

    async def _is_for(self, context: RequestContext, user: str) -> None:
        is_for = await self._gate.is_self_or_administrator(context, user)
        if not is_for or await self._records.user(user) is None:
            raise NotThere("user", user)
