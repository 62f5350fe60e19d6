"""IdentityRecords and SessionRecords: who may log in, and what they belong to, in a database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert  # SQLite takes it, too

from ....contracts.identity import (
    AccessToken,
    AuditEntry,
    Grant,
    Member,
    Organisation,
    Right,
    Robot,
    Role,
    Session,
    User,
)
from .database import Database
from .tables import (
    audit,
    members,
    namespaces,
    repositories,
    robots,
    sessions,
    signing_keys,
    tokens,
    users,
    webhooks,
)
from .words import clean

_USER, _ORGANISATION = "user", "organisation"

_MOST_AUDITED = 1_000_000
"""Entries of the audit log."""

_LOOK_EVERY = 1_000  # entries

_USER_ROW = (users.c.name, users.c.is_administrator, users.c.created_at, users.c.is_disabled)
_ORGANISATION_ROW = (namespaces.c.name, namespaces.c.created_at, namespaces.c.quota)
_ROBOT_ROW = (
    robots.c.organisation,
    robots.c.name,
    robots.c.grants,
    robots.c.created_at,
    robots.c.expires_at,
    robots.c.used_at,
)
_TOKEN_ROW = (
    tokens.c.id,
    tokens.c.user,
    tokens.c.name,
    tokens.c.access,
    tokens.c.created_at,
    tokens.c.expires_at,
    tokens.c.used_at,
)
_AUDIT_ROW = (
    audit.c.at,
    audit.c.actor,
    audit.c.client,
    audit.c.action,
    audit.c.target,
    audit.c.outcome,
    audit.c.detail,
)

# Those that requests ask for.
_FIND_USER = select(*_USER_ROW).where(users.c.name == bindparam("name"))
_FIND_HASH = select(users.c.password_hash).where(users.c.name == bindparam("name"))
_FIND_MEMBERSHIPS = (
    select(members.c.organisation, members.c.role)
    .where(members.c.user == bindparam("name"))
    .order_by(members.c.organisation)
)
_is_robot = (robots.c.organisation == bindparam("organisation")) & (
    robots.c.name == bindparam("name")
)
_FIND_ROBOT = select(*_ROBOT_ROW).where(_is_robot)
_FIND_ROBOT_SECRET = select(robots.c.secret_hash).where(_is_robot)
_FIND_TOKEN = select(*_TOKEN_ROW).where(tokens.c.secret_hash == bindparam("secret_hash"))
_FIND_SESSION = select(
    sessions.c.user, sessions.c.password_mark, sessions.c.created_at, sessions.c.expires_at
).where(sessions.c.key == bindparam("key"))
_FIND_ORGANISATION = select(*_ORGANISATION_ROW).where(
    namespaces.c.name == bindparam("name"), namespaces.c.kind == _ORGANISATION
)


class AccountRecords:
    """IdentityRecords and SessionRecords (see contracts)."""

    def __init__(self, database: Database) -> None:
        self._read = database.read
        self._write = database.write

    # Users.

    async def user(self, name: str) -> User | None:
        row = await self._read(_first, _FIND_USER, {"name": clean(name)})
        return None if row is None else User(*row)

    async def password_hash(self, user: str) -> str | None:
        row = await self._read(_first, _FIND_HASH, {"name": clean(user)})
        return None if row is None else str(row[0])

    async def users(self) -> Sequence[User]:
        rows = await self._read(_all, select(*_USER_ROW).order_by(users.c.name))
        return [User(*row) for row in rows]

    async def add_user(self, user: User, password_hash: str) -> bool:
        return await self._write(_add_user, user, password_hash)

    async def set_password(self, user: str, password_hash: str) -> bool:
        return await self._set_user(user, password_hash=password_hash)

    async def set_user(
        self, user: str, *, administrator: bool | None = None, disabled: bool | None = None
    ) -> bool:
        return await self._set_user(user, is_administrator=administrator, is_disabled=disabled)

    async def _set_user(self, user: str, **values: object) -> bool:
        given = {name: value for name, value in values.items() if value is not None}
        if not given:
            return await self.user(user) is not None
        change = update(users).where(users.c.name == user).values(given)
        return await self._write(_count, change) > 0

    async def remove_user(self, user: str) -> bool:
        return await self._write(_remove_user, user)

    # Organisations.

    async def organisation(self, name: str) -> Organisation | None:
        row = await self._read(_first, _FIND_ORGANISATION, {"name": clean(name)})
        return None if row is None else Organisation(*row)

    async def organisations(self) -> Sequence[Organisation]:
        of_all = select(*_ORGANISATION_ROW).where(namespaces.c.kind == _ORGANISATION)
        rows = await self._read(_all, of_all.order_by(namespaces.c.name))
        return [Organisation(*row) for row in rows]

    async def add_organisation(self, organisation: Organisation) -> bool:
        return await self._write(_add_organisation, organisation)

    async def set_quota(self, organisation: str, quota: int | None) -> bool:
        change = update(namespaces).where(_is_organisation(organisation)).values(quota=quota)
        return await self._write(_count, change) > 0

    async def remove_organisation(self, name: str) -> bool:
        return await self._write(_remove_organisation, name)

    async def members(self, organisation: str) -> Sequence[Member]:
        of_it = select(members.c.user, members.c.role).where(members.c.organisation == organisation)
        rows = await self._read(_all, of_it.order_by(members.c.user))
        return [Member(user, Role(role)) for user, role in rows]

    async def set_member(self, organisation: str, user: str, role: Role | None) -> bool:
        return await self._write(_set_member, organisation, user, role)

    async def memberships(self, user: str) -> Sequence[tuple[str, Role]]:
        rows = await self._read(_all, _FIND_MEMBERSHIPS, {"name": clean(user)})
        return [(organisation, Role(role)) for organisation, role in rows]

    # Robots.

    async def robots(self, organisation: str) -> Sequence[Robot]:
        of_it = select(*_ROBOT_ROW).where(robots.c.organisation == organisation)
        return [_robot_of(row) for row in await self._read(_all, of_it.order_by(robots.c.name))]

    async def robot(self, login: str) -> Robot | None:
        row = await self._read(_first, _FIND_ROBOT, _of_login(login))
        return None if row is None else _robot_of(row)

    async def robot_secret(self, login: str) -> bytes | None:
        row = await self._read(_first, _FIND_ROBOT_SECRET, _of_login(login))
        return None if row is None else bytes(row[0])

    async def add_robot(self, robot: Robot, secret_hash: bytes) -> bool:
        return await self._write(_add_robot, robot, secret_hash)

    async def remove_robot(self, organisation: str, name: str) -> bool:
        of_it = (robots.c.organisation == organisation) & (robots.c.name == name)
        return await self._write(_count, delete(robots).where(of_it)) > 0

    # Personal access tokens.

    async def tokens(self, user: str) -> Sequence[AccessToken]:
        of_user = select(*_TOKEN_ROW).where(tokens.c.user == user)
        rows = await self._read(_all, of_user.order_by(tokens.c.created_at, tokens.c.id))
        return [_token_of(row) for row in rows]

    async def token(self, secret_hash: bytes) -> AccessToken | None:
        row = await self._read(_first, _FIND_TOKEN, {"secret_hash": secret_hash})
        return None if row is None else _token_of(row)

    async def add_token(self, token: AccessToken, secret_hash: bytes) -> bool:
        return await self._write(_add_token, token, secret_hash)

    async def remove_token(self, user: str, id: str) -> bool:
        of_user = (tokens.c.user == user) & (tokens.c.id == id)
        return await self._write(_count, delete(tokens).where(of_user)) > 0

    async def used(self, logins: Sequence[str], token_ids: Sequence[str], now: float) -> None:
        await self._write(_used, logins, token_ids, now)

    # Keys that sign tokens.

    async def signing_keys(self) -> Sequence[tuple[str, bytes, float]]:
        keys = select(signing_keys.c.id, signing_keys.c.secret, signing_keys.c.made_at)
        newest = keys.order_by(signing_keys.c.made_at.desc(), signing_keys.c.id)
        return [(id, bytes(secret), at) for id, secret, at in await self._read(_all, newest)]

    async def rotate_signing_key(self, id: str, secret: bytes, now: float, keep: int) -> None:
        await self._write(_rotate, id, secret, now, keep)

    # The audit log.

    async def note_audit(self, entries: Sequence[AuditEntry]) -> None:
        if entries:
            await self._write(_note_audit, entries)

    async def audit(
        self, count: int, before: float | None, actor: str, target: str
    ) -> Sequence[AuditEntry]:
        """Of this target, and of what is below it."""
        wanted = select(*_AUDIT_ROW)
        if before is not None:
            wanted = wanted.where(audit.c.at < before)
        if actor:
            wanted = wanted.where(audit.c.actor == clean(actor))
        if target:
            below = audit.c.target.startswith(f"{clean(target)}/", autoescape=True)
            wanted = wanted.where((audit.c.target == clean(target)) | below)
        wanted = wanted.order_by(audit.c.at.desc(), audit.c.id.desc()).limit(count)
        return [AuditEntry(*row) for row in await self._read(_all, wanted)]

    # Sessions.

    async def add_session(self, key: bytes, session: Session, most: int) -> None:
        await self._write(_add_session, key, session, most)

    async def session(self, key: bytes) -> Session | None:
        row = await self._read(_first, _FIND_SESSION, {"key": key})
        return None if row is None else Session(row[0], bytes(row[1]), row[2], row[3])

    async def remove_session(self, key: bytes) -> None:
        await self._write(_count, delete(sessions).where(sessions.c.key == key))


def _first(connection: Connection, statement: Any, asked: dict[str, object]) -> Any:
    return connection.execute(statement, asked).first()


def _all(
    connection: Connection, statement: Any, asked: dict[str, object] | None = None
) -> Sequence[Any]:
    return connection.execute(statement, asked or {}).all()


def _count(connection: Connection, statement: Any) -> int:
    return connection.execute(statement).rowcount


def _is_organisation(name: str) -> Any:
    return (namespaces.c.name == name) & (namespaces.c.kind == _ORGANISATION)


def _claim(connection: Connection, name: str, kind: str, now: float) -> bool:
    """The namespace is this one's from now on; False where it is somebody's. Repositories may be
    there already, of one who had the name before."""
    connection.execute(
        upsert(namespaces).on_conflict_do_nothing(), {"name": name, "created_at": now}
    )
    nobodys = (namespaces.c.name == name) & (namespaces.c.kind == "")
    values = {"kind": kind, "created_at": now, "quota": None}
    return connection.execute(update(namespaces).where(nobodys).values(values)).rowcount > 0


def _add_user(connection: Connection, user: User, password_hash: str) -> bool:
    if not _claim(connection, user.name, _USER, user.created_at):
        return False
    connection.execute(
        insert(users),
        {
            "name": user.name,
            "password_hash": password_hash,
            "is_administrator": user.is_administrator,
            "is_disabled": user.is_disabled,
            "created_at": user.created_at,
        },
    )
    return True


def _remove_user(connection: Connection, user: str) -> bool:
    id = _empty_namespace(connection, (namespaces.c.name == user) & (namespaces.c.kind == _USER))
    if id is None:
        return False
    connection.execute(delete(users).where(users.c.name == user))
    connection.execute(delete(webhooks).where(webhooks.c.namespace == user))
    connection.execute(delete(namespaces).where(namespaces.c.id == id))
    return True


def _empty_namespace(connection: Connection, which: Any) -> int | None:
    """The namespace, locked; None where there is none, or it has repositories."""
    id = connection.execute(select(namespaces.c.id).where(which).with_for_update()).scalar()
    of_it = select(repositories.c.id).where(repositories.c.namespace_id == id).limit(1)
    if id is None or connection.execute(of_it).first() is not None:
        return None
    return int(id)


def _add_organisation(connection: Connection, organisation: Organisation) -> bool:
    if not _claim(connection, organisation.name, _ORGANISATION, organisation.created_at):
        return False
    mine = namespaces.c.name == organisation.name
    connection.execute(update(namespaces).where(mine).values(quota=organisation.quota))
    return True


def _remove_organisation(connection: Connection, name: str) -> bool:
    id = _empty_namespace(connection, _is_organisation(name))
    if id is None:
        return False
    for column in (members.c.organisation, robots.c.organisation, webhooks.c.namespace):
        connection.execute(delete(column.table).where(column == name))
    connection.execute(delete(namespaces).where(namespaces.c.id == id))
    return True


def _set_member(connection: Connection, organisation: str, user: str, role: Role | None) -> bool:
    of_it = select(namespaces.c.id).where(_is_organisation(organisation))
    is_user = select(users.c.name).where(users.c.name == user)
    if any(connection.execute(each).first() is None for each in (of_it, is_user)):
        return False
    if role is None:
        member = (members.c.organisation == organisation) & (members.c.user == user)
        connection.execute(delete(members).where(member))
        return True
    connection.execute(
        upsert(members).on_conflict_do_update(
            index_elements=[members.c.organisation, members.c.user], set_={"role": role.value}
        ),
        {"organisation": organisation, "user": user, "role": role.value},
    )
    return True


def _of_login(login: str) -> dict[str, object]:
    organisation, _, name = clean(login).partition("+")
    return {"organisation": organisation, "name": name}


def _robot_of(row: Sequence[Any]) -> Robot:
    organisation, name, grants, created_at, expires_at, used_at = row
    return Robot(
        organisation,
        name,
        tuple(Grant(pattern, Right(right)) for pattern, right in json.loads(grants)),
        created_at,
        expires_at,
        used_at,
    )


def _add_robot(connection: Connection, robot: Robot, secret_hash: bytes) -> bool:
    of_it = select(namespaces.c.id).where(_is_organisation(robot.organisation))
    if connection.execute(of_it).first() is None:
        return False
    row = {
        "organisation": robot.organisation,
        "name": robot.name,
        "grants": json.dumps([(grant.pattern, grant.right.value) for grant in robot.grants]),
        "secret_hash": secret_hash,
        "created_at": robot.created_at,
        "expires_at": robot.expires_at,
        "used_at": robot.used_at,
    }
    added = upsert(robots).on_conflict_do_nothing().returning(robots.c.name)
    return connection.execute(added, row).first() is not None


def _token_of(row: Sequence[Any]) -> AccessToken:
    id, user, name, access, *times = row
    return AccessToken(id, user, name, Right(access), *times)


def _add_token(connection: Connection, token: AccessToken, secret_hash: bytes) -> bool:
    is_user = select(users.c.name).where(users.c.name == token.user)
    if connection.execute(is_user).first() is None:
        return False
    row = {
        "id": token.id,
        "user": token.user,
        "name": clean(token.name),
        "access": token.right.value,
        "secret_hash": secret_hash,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "used_at": token.used_at,
    }
    added = upsert(tokens).on_conflict_do_nothing().returning(tokens.c.id)
    return connection.execute(added, row).first() is not None


def _used(
    connection: Connection, logins: Sequence[str], token_ids: Sequence[str], now: float
) -> None:
    for login in sorted(logins):
        named = _of_login(login)
        of_it = robots.c.organisation == named["organisation"]
        mine = of_it & (robots.c.name == named["name"])
        connection.execute(update(robots).where(mine).values(used_at=now))
    for id in sorted(token_ids):
        connection.execute(update(tokens).where(tokens.c.id == id).values(used_at=now))


def _rotate(connection: Connection, id: str, secret: bytes, now: float, keep: int) -> None:
    connection.execute(insert(signing_keys), {"id": id, "secret": secret, "made_at": now})
    newest = select(signing_keys.c.id).order_by(
        signing_keys.c.made_at.desc(), signing_keys.c.id == id
    )
    stay = connection.execute(newest.limit(keep)).scalars().all()
    connection.execute(delete(signing_keys).where(signing_keys.c.id.not_in(stay)))


def _note_audit(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    rows = [
        {
            "at": entry.at,
            "actor": clean(entry.actor)[:129],
            "client": clean(entry.client)[:64],
            "action": clean(entry.action)[:64],
            "target": clean(entry.target),
            "outcome": clean(entry.outcome)[:16],
            "detail": clean(entry.detail),
        }
        for entry in entries
    ]
    newest = max(connection.execute(insert(audit).returning(audit.c.id), rows).scalars())
    if newest % _LOOK_EVERY < len(rows):
        connection.execute(delete(audit).where(audit.c.id <= newest - _MOST_AUDITED))


def _add_session(connection: Connection, key: bytes, session: Session, most: int) -> None:
    is_user = select(users.c.name).where(users.c.name == session.user)
    if connection.execute(is_user).first() is None:
        return
    over = delete(sessions).where(sessions.c.expires_at <= session.created_at)
    connection.execute(over)
    connection.execute(
        insert(sessions),
        {
            "key": key,
            "user": session.user,
            "password_mark": session.password_mark,
            "created_at": session.created_at,
            "expires_at": session.expires_at,
        },
    )
    mine = sessions.c.user == session.user
    newest = select(sessions.c.key).where(mine).order_by(sessions.c.created_at.desc()).limit(most)
    stay = connection.execute(newest).scalars().all()
    connection.execute(delete(sessions).where(mine, sessions.c.key.not_in(stay)))
