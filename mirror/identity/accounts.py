"""Accounts as the records have them, looked up again each second."""

from __future__ import annotations

from collections.abc import Callable

from ..contracts.identity import AccessToken, IdentityRecords, Robot, Role, User
from ..frozen import dataclass
from .memory import ShortMemory

BELIEVED = 1.0
"""Seconds for which what was read is used: then a right, an account or a password that was taken
away counts for nothing, on every node."""

_MOST = 4096  # of each kind


@dataclass(frozen=True, slots=True)
class UserAccount:
    user: User
    password_hash: str
    memberships: tuple[tuple[str, Role], ...]


@dataclass(frozen=True, slots=True)
class RobotAccount:
    robot: Robot
    secret_hash: bytes


class Accounts:
    """Each method gives None for what there is none of, and for what was disabled or has ended."""

    def __init__(
        self,
        records: IdentityRecords,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._records = records
        self._wall = wall
        self._users: ShortMemory[str, UserAccount | None] = ShortMemory(BELIEVED, _MOST, monotonic)
        self._robots: ShortMemory[str, RobotAccount | None] = ShortMemory(
            BELIEVED, _MOST, monotonic
        )
        self._tokens: ShortMemory[bytes, AccessToken | None] = ShortMemory(
            BELIEVED, _MOST, monotonic
        )

    async def user(self, name: str) -> UserAccount | None:
        return await self._users.get(name, lambda: self._read_user(name))

    async def robot(self, login: str) -> RobotAccount | None:
        found = await self._robots.get(login, lambda: self._read_robot(login))
        return None if found is None or self._has_ended(found.robot.expires_at) else found

    async def token(self, secret_hash: bytes) -> AccessToken | None:
        found = await self._tokens.get(secret_hash, lambda: self._records.token(secret_hash))
        return None if found is None or self._has_ended(found.expires_at) else found

    def _has_ended(self, expires_at: float | None) -> bool:
        return expires_at is not None and expires_at <= self._wall()

    async def _read_user(self, name: str) -> UserAccount | None:
        user = await self._records.user(name)
        password_hash = await self._records.password_hash(name)
        memberships = await self._records.memberships(name)
        if user is None or user.is_disabled or password_hash is None:
            return None
        return UserAccount(user, password_hash, tuple(memberships))

    async def _read_robot(self, login: str) -> RobotAccount | None:
        robot = await self._records.robot(login)
        secret_hash = await self._records.robot_secret(login)
        if robot is None or secret_hash is None:
            return None
        return RobotAccount(robot, secret_hash)
