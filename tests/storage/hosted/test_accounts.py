"""IdentityRecords and SessionRecords, on each engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirror.contracts.hosted import Quota, QuotaExceeded, Visibility
from mirror.contracts.identity import (
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
from mirror.oci.digest import Digest
from mirror.storage.records.hosted.accounts import AccountRecords
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.repositories import RepositoryRecords

NOW = 1_000_000.0
ANN = User("ann", False, NOW)
TEAM = Organisation("team", NOW)


@pytest.fixture
def accounts(database: Database) -> AccountRecords:
    return AccountRecords(database)


async def test_users(accounts: AccountRecords) -> None:
    assert await accounts.user("ann") is None
    assert await accounts.password_hash("ann\0") is None
    assert await accounts.add_user(ANN, "hash")
    assert not await accounts.add_user(ANN, "other")
    assert await accounts.user("ann") == ANN
    assert await accounts.password_hash("ann") == "hash"
    assert await accounts.set_password("ann", "new")
    assert await accounts.password_hash("ann") == "new"
    assert await accounts.set_user("ann", administrator=True)
    assert await accounts.set_user("ann", disabled=True)
    assert not await accounts.set_user("bob", disabled=True)
    assert await accounts.users() == [replace(ANN, is_administrator=True, is_disabled=True)]
    assert await accounts.remove_user("ann")
    assert not await accounts.remove_user("ann")
    assert await accounts.users() == []


async def test_users_and_organisations_share_their_names(accounts: AccountRecords) -> None:
    assert await accounts.add_user(ANN, "hash")
    assert not await accounts.add_organisation(Organisation("ann", NOW))
    assert await accounts.add_organisation(TEAM)
    assert not await accounts.add_user(replace(ANN, name="team"), "hash")
    assert await accounts.organisation("ann") is None
    assert await accounts.organisations() == [TEAM]
    assert await accounts.remove_organisation("team")
    assert await accounts.add_user(replace(ANN, name="team"), "hash")


async def test_members(accounts: AccountRecords) -> None:
    await accounts.add_user(ANN, "hash")
    await accounts.add_organisation(TEAM)
    assert not await accounts.set_member("team", "bob", Role.READER)
    assert not await accounts.set_member("ann", "ann", Role.READER)
    assert await accounts.set_member("team", "ann", Role.READER)
    assert await accounts.set_member("team", "ann", Role.MAINTAINER)
    assert await accounts.members("team") == [Member("ann", Role.MAINTAINER)]
    assert await accounts.memberships("ann") == [("team", Role.MAINTAINER)]
    assert await accounts.set_member("team", "ann", None)
    assert await accounts.members("team") == []
    await accounts.set_member("team", "ann", Role.WRITER)
    await accounts.remove_user("ann")
    assert await accounts.members("team") == []


async def test_robots(accounts: AccountRecords) -> None:
    grants = (Grant("app", Right.PUSH), Grant("*", Right.PULL))
    robot = Robot("team", "ci", grants, NOW, NOW + 9)
    assert not await accounts.add_robot(robot, b"secret")
    await accounts.add_organisation(TEAM)
    assert await accounts.add_robot(robot, b"secret")
    assert not await accounts.add_robot(robot, b"other")
    assert await accounts.robot("team+ci") == robot
    assert await accounts.robot("team+\0") is None
    assert await accounts.robot_secret("team+ci") == b"secret"
    await accounts.used(["team+ci", "team+none"], [], NOW + 5)
    assert await accounts.robots("team") == [replace(robot, used_at=NOW + 5)]
    assert await accounts.remove_robot("team", "ci")
    assert not await accounts.remove_robot("team", "ci")
    await accounts.add_robot(robot, b"secret")
    assert await accounts.remove_organisation("team")
    assert await accounts.robot("team+ci") is None


async def test_tokens(accounts: AccountRecords) -> None:
    token = AccessToken("1", "ann", "laptop", Right.PULL, NOW)
    assert not await accounts.add_token(token, b"x")
    await accounts.add_user(ANN, "hash")
    assert await accounts.add_token(token, b"x")
    assert not await accounts.add_token(replace(token, id="2"), b"x")
    assert await accounts.token(b"x") == token
    await accounts.used([], ["1"], NOW + 5)
    assert await accounts.tokens("ann") == [replace(token, used_at=NOW + 5)]
    assert not await accounts.remove_token("bob", "1")
    assert await accounts.remove_token("ann", "1")
    assert await accounts.token(b"x") is None


async def test_signing_keys_rotate(accounts: AccountRecords) -> None:
    for number in range(4):
        await accounts.rotate_signing_key(f"{number}", b"s", NOW + number, 2)
    assert await accounts.signing_keys() == [("3", b"s", NOW + 3), ("2", b"s", NOW + 2)]


async def test_an_organisation_with_repositories_stays(
    accounts: AccountRecords, database: Database
) -> None:
    repositories = RepositoryRecords(database)
    await accounts.add_organisation(TEAM)
    await repositories.create("team/app", Visibility.PRIVATE, NOW, "ann")
    assert not await accounts.remove_organisation("team")
    await repositories.delete_repository("team/app", NOW, "ann")
    assert await accounts.remove_organisation("team")


async def test_a_user_who_has_repositories_is_not_removed(
    accounts: AccountRecords, database: Database
) -> None:
    """Whoever is given the name next would have them."""
    repositories = RepositoryRecords(database)
    await accounts.add_user(ANN, "hash")
    await repositories.create("ann/app", Visibility.PRIVATE, NOW, "ann")
    assert not await accounts.remove_user("ann")
    assert await accounts.user("ann") == ANN
    await repositories.delete_repository("ann/app", NOW, "ann")
    assert await accounts.remove_user("ann")


async def test_quota(accounts: AccountRecords, database: Database) -> None:
    repositories = RepositoryRecords(database)
    await accounts.add_organisation(replace(TEAM, quota=25))
    one, two, three = (Digest.of(text) for text in (b"one", b"two", b"three"))
    await repositories.add_blob("team/a", one, 10, NOW, "ann")
    await repositories.add_blob("team/b", one, 10, NOW, "ann")
    await repositories.add_blob("team/b", two, 15, NOW, "ann")
    with pytest.raises(QuotaExceeded) as raised:
        await repositories.add_blob("team/c", three, 1, NOW, "ann")
    told = raised.value
    assert (told.namespace, told.used, told.limit, told.asked) == ("team", 25, 25, 1)
    assert await repositories.repository("team/c") is None
    assert await repositories.quota("team") == Quota(25, 25)
    await repositories.add_blob("team/c", one, 10, NOW, "ann")
    assert await accounts.set_quota("team", None)
    assert not await accounts.set_quota("nobody", None)
    await repositories.add_blob("team/c", three, 1, NOW, "ann")
    assert await repositories.usage("team") == 26
    assert await repositories.quota("team") is None
    assert await repositories.quota("nobody") is None


async def test_audit(accounts: AccountRecords) -> None:
    entries = [
        AuditEntry(NOW + number, f"user{number % 2}\0", "::1", "push", f"team/{'a%' * number}")
        for number in range(4)
    ]
    await accounts.note_audit(entries)
    await accounts.note_audit([AuditEntry(NOW, "x" * 500, "::1", "login", "team")])
    assert [entry.at for entry in await accounts.audit(2, None, "", "")] == [NOW + 3, NOW + 2]
    assert [entry.at for entry in await accounts.audit(9, NOW + 2, "user1", "")] == [NOW + 1]
    assert len(await accounts.audit(9, None, "", "team")) == 5
    assert await accounts.audit(9, None, "", "tea") == []


async def test_sessions(accounts: AccountRecords) -> None:
    await accounts.add_user(ANN, "hash")
    for number in range(4):
        session = Session("ann", b"mark", NOW + number, NOW + 100)
        await accounts.add_session(b"%d" % number, session, 2)
    assert await accounts.session(b"1") is None
    assert await accounts.session(b"2") == Session("ann", b"mark", NOW + 2, NOW + 100)
    await accounts.remove_session(b"2")
    assert await accounts.session(b"2") is None
    await accounts.add_session(b"9", Session("ann", b"mark", NOW + 100, NOW + 200), 2)
    assert await accounts.session(b"3") is None
    await accounts.remove_user("ann")
    assert await accounts.session(b"9") is None
