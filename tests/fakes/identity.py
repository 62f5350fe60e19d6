"""Users, organisations, robots and tokens in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mirror.contracts.identity import (
    AccessToken,
    AuditEntry,
    Member,
    Organisation,
    Robot,
    Role,
    User,
)


class MemoryIdentity:
    """IdentityRecords without a database."""

    def __init__(self) -> None:
        self._users: dict[str, tuple[User, str]] = {}
        self._organisations: dict[str, Organisation] = {}
        self._members: dict[tuple[str, str], Role] = {}
        self._robots: dict[str, tuple[Robot, bytes]] = {}
        self._tokens: dict[bytes, AccessToken] = {}
        self._keys: list[tuple[str, bytes, float]] = []
        self.audited: list[AuditEntry] = []

    async def user(self, name: str) -> User | None:
        found = self._users.get(name)
        return found[0] if found else None

    async def password_hash(self, user: str) -> str | None:
        found = self._users.get(user)
        return found[1] if found else None

    async def users(self) -> Sequence[User]:
        return [self._users[name][0] for name in sorted(self._users)]

    async def add_user(self, user: User, password_hash: str) -> bool:
        if self._is_taken(user.name):
            return False
        self._users[user.name] = (user, password_hash)
        return True

    async def set_password(self, user: str, password_hash: str) -> bool:
        if user not in self._users:
            return False
        self._users[user] = (self._users[user][0], password_hash)
        return True

    async def set_user(
        self, user: str, *, administrator: bool | None = None, disabled: bool | None = None
    ) -> bool:
        if user not in self._users:
            return False
        found, password_hash = self._users[user]
        if administrator is not None:
            found = replace(found, is_administrator=administrator)
        if disabled is not None:
            found = replace(found, is_disabled=disabled)
        self._users[user] = (found, password_hash)
        return True

    async def remove_user(self, user: str) -> bool:
        if self._users.pop(user, None) is None:
            return False
        self._members = {key: role for key, role in self._members.items() if key[1] != user}
        self._tokens = {key: each for key, each in self._tokens.items() if each.user != user}
        return True

    async def organisation(self, name: str) -> Organisation | None:
        return self._organisations.get(name)

    async def organisations(self) -> Sequence[Organisation]:
        return [self._organisations[name] for name in sorted(self._organisations)]

    async def add_organisation(self, organisation: Organisation) -> bool:
        if self._is_taken(organisation.name):
            return False
        self._organisations[organisation.name] = organisation
        return True

    async def set_quota(self, organisation: str, quota: int | None) -> bool:
        if organisation not in self._organisations:
            return False
        changed = replace(self._organisations[organisation], quota=quota)
        self._organisations[organisation] = changed
        return True

    async def remove_organisation(self, name: str) -> bool:
        if self._organisations.pop(name, None) is None:
            return False
        self._members = {key: role for key, role in self._members.items() if key[0] != name}
        self._robots = {
            login: each for login, each in self._robots.items() if each[0].organisation != name
        }
        return True

    async def members(self, organisation: str) -> Sequence[Member]:
        return [
            Member(user, role)
            for (name, user), role in sorted(self._members.items())
            if name == organisation
        ]

    async def set_member(self, organisation: str, user: str, role: Role | None) -> bool:
        if organisation not in self._organisations or user not in self._users:
            return False
        if role is None:
            return self._members.pop((organisation, user), None) is not None
        self._members[organisation, user] = role
        return True

    async def memberships(self, user: str) -> Sequence[tuple[str, Role]]:
        return [(name, role) for (name, who), role in sorted(self._members.items()) if who == user]

    async def robots(self, organisation: str) -> Sequence[Robot]:
        found = (robot for robot, _ in self._robots.values() if robot.organisation == organisation)
        return sorted(found, key=lambda robot: robot.name)

    async def robot(self, login: str) -> Robot | None:
        found = self._robots.get(login)
        return found[0] if found else None

    async def robot_secret(self, login: str) -> bytes | None:
        found = self._robots.get(login)
        return found[1] if found else None

    async def add_robot(self, robot: Robot, secret_hash: bytes) -> bool:
        if robot.organisation not in self._organisations or robot.login in self._robots:
            return False
        self._robots[robot.login] = (robot, secret_hash)
        return True

    async def remove_robot(self, organisation: str, name: str) -> bool:
        return self._robots.pop(f"{organisation}+{name}", None) is not None

    async def tokens(self, user: str) -> Sequence[AccessToken]:
        return [each for each in self._tokens.values() if each.user == user]

    async def token(self, secret_hash: bytes) -> AccessToken | None:
        return self._tokens.get(secret_hash)

    async def add_token(self, token: AccessToken, secret_hash: bytes) -> bool:
        if token.user not in self._users:
            return False
        self._tokens[secret_hash] = token
        return True

    async def remove_token(self, user: str, id: str) -> bool:
        for key, token in self._tokens.items():
            if token.user == user and token.id == id:
                del self._tokens[key]
                return True
        return False

    async def used(self, logins: Sequence[str], token_ids: Sequence[str], now: float) -> None:
        for login in logins:
            if login in self._robots:
                robot, secret = self._robots[login]
                self._robots[login] = (replace(robot, used_at=now), secret)
        for key, token in self._tokens.items():
            if token.id in token_ids:
                self._tokens[key] = replace(token, used_at=now)

    async def signing_keys(self) -> Sequence[tuple[str, bytes, float]]:
        return list(self._keys)

    async def rotate_signing_key(self, id: str, secret: bytes, now: float, keep: int) -> None:
        self._keys = [(id, secret, now), *self._keys][:keep]

    async def note_audit(self, entries: Sequence[AuditEntry]) -> None:
        self.audited.extend(entries)

    async def audit(
        self, count: int, before: float | None, actor: str, target: str
    ) -> Sequence[AuditEntry]:
        found = [
            entry
            for entry in reversed(self.audited)
            if (before is None or entry.at < before)
            and actor in ("", entry.actor)
            and (target in ("", entry.target) or entry.target.startswith(f"{target}/"))
        ]
        return found[:count]

    def _is_taken(self, name: str) -> bool:
        return name in self._users or name in self._organisations
