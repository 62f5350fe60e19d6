"""Logins and tokens: who is let in, and who is not, however hard it tries."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Iterator
from typing import Any

import bcrypt
import jwt
import pytest

from mirror.contracts.context import ANONYMOUS, Principal, PrincipalKind, RequestContext
from mirror.contracts.hosted import Visibility
from mirror.contracts.identity import (
    ROBOT_PREFIX,
    TOKEN_PREFIX,
    AccessToken,
    Action,
    Grant,
    IssuedToken,
    Organisation,
    Refusal,
    Right,
    Robot,
    Role,
    User,
    new_secret,
    secret_hash,
)
from mirror.identity.identity import Identity
from mirror.identity.passwords import PasswordInvalid, hash_password, imported_hash, is_password
from mirror.identity.throttle import LoginThrottle
from mirror.oci.scopes import asked_scopes

from ..fakes import HandClock, MemoryIdentity, MemoryRecords

HERE, THERE = "192.0.2.1", "198.51.100.9"
PASSWORD = "correct horse"
SERVICE = "registry.corp.lan"


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class House:
    """Accounts: ada, who writes in team; bob, who is nobody's member; robots and tokens."""

    def __init__(self, service: str = SERVICE) -> None:
        self.clock = HandClock()
        self.records = MemoryIdentity()
        self.hosted = MemoryRecords()
        self.identity = Identity(self.records, self.hosted, service, self.clock.clock())
        self.robot_secret = new_secret(ROBOT_PREFIX)
        self.token_secret = new_secret(TOKEN_PREFIX)

    async def furnish(self) -> House:
        records = self.records
        for name in ("ada", "bob"):
            await records.add_user(User(name, False, 0.0), hashed(PASSWORD + name))
        await records.add_organisation(Organisation("team", 0.0))
        await records.set_member("team", "ada", Role.WRITER)
        robot = Robot("team", "ci", (Grant("*", Right.PUSH),), 0.0, self.clock.wall + 3600)
        await records.add_robot(robot, secret_hash(self.robot_secret))
        token = AccessToken("1", "ada", "laptop", Right.PULL, 0.0, self.clock.wall + 3600)
        await records.add_token(token, secret_hash(self.token_secret))
        await self.hosted.create("team/app", Visibility.PRIVATE, 0.0, "ada")
        await self.hosted.create("team/shown", Visibility.PUBLIC, 0.0, "ada")
        return self

    async def asks(self, authorization: str | None, client: str = HERE) -> Principal | Refusal:
        return await self.identity.authenticator.authenticate(authorization, client)

    async def token(self, authorization: str | None, *scopes: str, client: str = HERE) -> str:
        found = await self.identity.realm.issue(authorization, asked_scopes(scopes), client)
        assert isinstance(found, IssuedToken), found
        return found.token

    async def by_token(self, token: str) -> Principal | Refusal:
        return await self.asks(f"Bearer {token}")


@pytest.fixture
async def house() -> House:
    return await House().furnish()


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """How often a password was hashed, and against what."""
    made: list[str] = []
    check = bcrypt.checkpw

    def counted(password: bytes, hash: bytes) -> bool:
        made.append(hash.decode())
        return check(password, hash)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return iter([made])


ADA = basic("ada", PASSWORD + "ada")


async def test_a_password_a_secret_and_a_personal_token_are_logins(house: House) -> None:
    assert await house.asks(None) == ANONYMOUS
    assert await house.asks(ADA) == Principal("ada")
    assert await house.asks(basic("team+ci", house.robot_secret)) == Principal(
        "team+ci", PrincipalKind.ROBOT
    )
    by_token = Principal("ada", read_only=True, by_token=True)
    assert await house.asks(basic("ada", house.token_secret)) == by_token


WRONG = [
    ("ada", "wrong"),
    ("ada", PASSWORD + "bob"),
    ("nobody", PASSWORD),
    ("ada", ""),
    ("Ada", PASSWORD + "ada"),
    ("ada\0", PASSWORD + "ada"),
    ("ada", PASSWORD + "ada\0"),
    ("ada", "x" * 73),
    ("ada", "x" * 5000),
    ("a" * 300, "x"),
    ("team+ci", "wrong"),
    ("team+ci", ROBOT_PREFIX + "A" * 43),
    ("team+none", ROBOT_PREFIX + "A" * 43),
    ("team+ci+x", "x"),
    ("+", "x"),
    ("ada", TOKEN_PREFIX + "A" * 43),
    ("operator", "x"),
]


@pytest.mark.parametrize(("name", "password"), WRONG)
async def test_anything_else_is_refused_in_the_same_words(
    house: House, name: str, password: str
) -> None:
    found = await house.asks(basic(name, password))
    assert found == Refusal("the name or the password is wrong")


async def test_a_token_of_another_user_is_none(house: House) -> None:
    assert isinstance(await house.asks(basic("bob", house.token_secret)), Refusal)


@pytest.mark.parametrize(
    "header",
    ["", " ", "Basic", "Basic ", "Basic !!!", "Basic YWRh", "Basic /////w==", "Digest x", "Bearer",
     "Bearer ", "Bearer x", "Bearer a.b.c", "Bearer \u00e9", "Basic " + "A" * 100_000,
     "Bearer " + "A" * 100_000, "Bearer " + "." * 60_000, "Bearer e30.e30.", "Bearer W10.W10.x",
     "Negotiate YWJj"],
)  # fmt: skip
async def test_no_header_is_too_strange_to_be_refused(house: House, header: str) -> None:
    assert isinstance(await house.asks(header), Refusal)


async def test_a_login_without_a_name_and_a_password_is_none(house: House) -> None:
    """Docker sends one over TLS when somebody searches and is not logged in."""
    assert await house.asks(basic("", "")) == ANONYMOUS
    assert isinstance(await house.asks(basic("", "x")), Refusal)


async def test_half_a_character_is_no_password(house: House) -> None:
    found = await house.identity.authenticator.login("ada", "\ud800", HERE)
    assert isinstance(found, Refusal)


async def test_who_is_not_there_takes_as_long_to_refuse_as_a_wrong_password(
    house: House, hashes: Iterator[list[str]]
) -> None:
    made = next(hashes)
    strong = hash_password(PASSWORD)
    await house.records.add_user(User("strong", False, 0.0), strong)
    costs = {}
    for name in ("strong", "nobody", "ada"):  # ada's is of htpasswd, and weaker
        made.clear()
        await house.asks(basic(name, "wrong"))
        costs[name] = max(hash.split("$")[2] for hash in made)
    assert costs["strong"] == costs["nobody"] == costs["ada"]


async def test_a_password_that_was_right_is_hashed_once_a_minute_and_as_long_as_it_is_right(
    house: House, hashes: Iterator[list[str]]
) -> None:
    made = next(hashes)
    assert await asyncio.gather(*(house.asks(ADA) for _ in range(20))) == [Principal("ada")] * 20
    assert len(made) == 1
    house.clock.now += 59
    await house.asks(ADA)
    assert len(made) == 1
    house.clock.now += 2
    await house.asks(ADA)
    assert len(made) == 2
    await house.records.set_password("ada", hashed("another one"))
    house.clock.now += 1
    assert isinstance(await house.asks(ADA), Refusal)
    assert await house.asks(basic("ada", "another one")) == Principal("ada")


async def test_a_disabled_user_has_no_login_and_no_token(house: House) -> None:
    tokens = [
        await house.token(ADA, "repository:team/app:pull"),
        await house.token(basic("ada", house.token_secret), "repository:team/app:pull"),
    ]
    await house.records.set_user("ada", disabled=True)
    house.clock.now += 1
    assert isinstance(await house.asks(ADA), Refusal)
    assert isinstance(await house.asks(basic("ada", house.token_secret)), Refusal)
    for token in tokens:
        assert isinstance(await house.by_token(token), Refusal)


async def test_a_token_is_for_what_its_owner_may_of_what_was_asked(house: House) -> None:
    token = await house.token(
        ADA,
        "repository:team/app:pull repository:team/app:pull,push,delete",
        "repository:team/new:*",
        "repository:other/app:pull",
        "registry:catalog:*",
        "repository:ada/own:*",
    )
    found = await house.by_token(token)
    assert isinstance(found, Principal)
    assert found.name == "ada"
    assert found.scopes == {
        ("team/app", "pull"),
        ("team/app", "push"),
        ("team/new", "pull"),
        ("team/new", "push"),
        ("ada/own", "pull"),
        ("ada/own", "push"),
        ("ada/own", "delete"),
        ("registry:catalog", "*"),
    }
    may = house.identity.rights.may
    assert await may(found, Action.PUSH, "team/app")
    await house.records.set_member("team", "ada", None)
    house.clock.now += 1
    still = await house.by_token(token)
    assert isinstance(still, Principal)
    assert not await may(still, Action.PULL, "team/app")


async def test_a_personal_token_that_pulls_gives_no_token_that_pushes(house: House) -> None:
    token = await house.token(basic("ada", house.token_secret), "repository:team/app:pull,push")
    found = await house.by_token(token)
    assert isinstance(found, Principal)
    assert found.read_only
    assert found.scopes == {("team/app", "pull")}


async def test_nobody_has_a_token_for_what_is_public(house: House) -> None:
    token = await house.token(None, "repository:team/shown:pull repository:team/app:pull")
    read = jwt.decode(token, options={"verify_signature": False})
    assert read["access"] == [{"type": "repository", "name": "team/shown", "actions": ["pull"]}]
    assert read["exp"] - read["iat"] == 300
    assert await house.by_token(token) == ANONYMOUS


async def test_a_token_is_worth_what_the_login_is_that_it_was_given_for(house: House) -> None:
    by_password = await house.token(ADA)
    by_token = await house.token(basic("ada", house.token_secret))
    by_robot = await house.token(basic("team+ci", house.robot_secret))
    for token in (by_password, by_token, by_robot):
        assert isinstance(await house.by_token(token), Principal)
    await house.records.set_password("ada", hashed("another one"))
    await house.records.remove_token("ada", "1")
    await house.records.remove_robot("team", "ci")
    robot = Robot("team", "ci", (Grant("*", Right.PUSH),), 0.0)
    await house.records.add_robot(robot, secret_hash(new_secret(ROBOT_PREFIX)))
    house.clock.now += 1
    for token in (by_password, by_token, by_robot):
        assert isinstance(await house.by_token(token), Refusal)


async def test_a_token_ends_and_so_does_the_robot(house: House) -> None:
    token = await house.token(ADA)
    house.clock.now += 299
    assert isinstance(await house.by_token(token), Principal)
    house.clock.now += 1
    assert isinstance(await house.by_token(token), Refusal)
    house.clock.now += 3600
    assert isinstance(await house.asks(basic("team+ci", house.robot_secret)), Refusal)
    assert isinstance(await house.asks(basic("ada", house.token_secret)), Refusal)


@pytest.mark.filterwarnings("ignore:The HMAC key")
async def test_a_forged_token_is_none(house: House) -> None:
    good = await house.token(ADA, "repository:team/app:pull")
    header = jwt.get_unverified_header(good)
    claims = jwt.decode(good, options={"verify_signature": False})
    id, key, _ = (await house.records.signing_keys())[0]

    def signed(**changed: Any) -> str:
        payload = json.dumps({**claims, **changed}).encode()
        return jwt.api_jws.encode(payload, key, "HS256", headers={"kid": id})

    assert isinstance(await house.by_token(signed()), Principal)  # what follows is not for nothing
    head, body, signature = good.split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": id}).encode()).decode()
    forged = [
        f"{none.rstrip('=')}.{body}.",
        f"{none.rstrip('=')}.{body}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-2]}",
        jwt.encode(claims, "x" * 32, "HS256", headers=header),
        jwt.encode(claims, key, "HS384", headers={"kid": id}),
        jwt.encode(claims, key, "HS256"),
        jwt.encode(claims, key, "HS256", headers={"kid": "../../etc/passwd"}),
        signed(aud="another.service"),
        signed(aud=[]),
        signed(iss="another"),
        signed(nbf=claims["nbf"] + 3600, exp=claims["exp"] + 3600),
        signed(exp="never"),
        signed(sub=7),
        signed(sub="bob"),
        signed(kind="operator"),
        signed(kind="robot"),
        signed(mark=f"token:{'00' * 32}"),
        signed(mark=""),
        signed(access=7),
        signed(access=[7]),
        *(signed(**{name: None}) for name in ("exp", "nbf", "aud", "iss", "sub", "kind", "mark")),
    ]
    for token in forged:
        assert isinstance(await house.by_token(token), Refusal), token


async def test_a_token_for_another_service_is_none_here(house: House) -> None:
    elsewhere = Identity(house.records, house.hosted, "another.corp.lan", house.clock.clock())
    found = await elsewhere.realm.issue(ADA, {}, HERE)
    assert isinstance(found, IssuedToken)
    assert isinstance(await house.by_token(found.token), Refusal)


async def test_keys_are_the_same_for_all_and_change_each_day(house: House) -> None:
    neighbour = Identity(house.records, house.hosted, SERVICE, house.clock.clock())
    first = await house.token(ADA)
    assert isinstance(
        await neighbour.authenticator.authenticate(f"Bearer {first}", HERE), Principal
    )
    assert len(await house.records.signing_keys()) == 1
    house.clock.now += 86_300
    before = await house.token(ADA)
    house.clock.now += 200
    found = await neighbour.realm.issue(ADA, {}, HERE)
    assert isinstance(found, IssuedToken)
    kid = jwt.get_unverified_header
    assert kid(found.token)["kid"] != kid(before)["kid"]
    assert isinstance(await house.by_token(before), Principal)
    assert isinstance(await house.by_token(found.token), Principal)  # a key that is new here
    id, key, _ = (await house.records.signing_keys())[-1]
    house.clock.now += 3600
    claims = jwt.decode(found.token, options={"verify_signature": False})
    claims |= {"exp": int(house.clock.wall) + 300}
    old = jwt.encode(claims, key, "HS256", headers={"kid": id})
    assert isinstance(await house.by_token(old), Refusal)  # who finds an old key has nothing of it


# Guessing.


async def test_who_guesses_waits_longer_and_longer_and_nobody_else_does(house: House) -> None:
    ask = house.identity.authenticator.login
    assert await ask("ada", PASSWORD + "ada", THERE) == Principal("ada")
    waits = []
    for _ in range(8):
        found = await ask("ada", secrets.token_hex(8), HERE)
        assert isinstance(found, Refusal)
        waits.append(found.retry_after)
    assert waits[:5] == [0.0] * 5
    assert all(wait > 0 for wait in waits[5:])
    found = await ask("ada", PASSWORD + "ada", HERE)
    assert isinstance(found, Refusal)  # else whoever guesses right would know it
    assert found.retry_after > 0
    assert await ask("bob", PASSWORD + "bob", HERE) == Principal("bob")
    house.clock.now += 61
    assert await ask("ada", PASSWORD + "ada", THERE) == Principal("ada")
    assert await ask("ada", PASSWORD + "ada", HERE) == Principal("ada")


def begins(throttle: LoginThrottle, account: str, client: str) -> bool:
    """Whether a login is looked at, which then fails unless it is said to have succeeded."""
    if throttle.wait(account, client) > 0:
        return False
    throttle.begin(account, client)
    return True


def test_guesses_at_the_same_time_are_counted_before_they_are_looked_at() -> None:
    throttle = LoginThrottle(HandClock())
    assert sum(begins(throttle, "ada", HERE) for _ in range(100)) == 5


def test_a_guess_a_minute_is_what_is_left() -> None:
    clock = HandClock()
    throttle = LoginThrottle(clock)
    looked_at = 0
    for _ in range(3600):
        looked_at += begins(throttle, "ada", HERE)
        clock.now += 1
    assert 60 <= looked_at <= 75


def test_one_password_for_many_names_is_guessing_too() -> None:
    throttle = LoginThrottle(HandClock())
    begins(throttle, "owner", HERE)
    throttle.succeeded("owner", HERE)
    assert sum(begins(throttle, f"user{number}", HERE) for number in range(100)) == 20
    assert begins(throttle, "user1", THERE)
    assert begins(throttle, "owner", HERE)  # has logged in from there


def test_a_client_that_is_set_up_wrong_holds_up_no_other_at_its_address() -> None:
    clock = HandClock()
    throttle = LoginThrottle(clock)
    for _ in range(1000):
        begins(throttle, "broken", HERE)
        clock.now += 1
    assert begins(throttle, "ada", HERE)


def test_guessing_from_everywhere_locks_nobody_out_at_a_known_address() -> None:
    throttle = LoginThrottle(HandClock())
    begins(throttle, "ada", HERE)
    throttle.succeeded("ada", HERE)
    addresses = [f"198.51.{number >> 8}.{number & 255}" for number in range(1000)]
    assert sum(begins(throttle, "ada", each) for each in addresses) == 10
    assert begins(throttle, "ada", HERE)


def test_what_others_do_pushes_out_no_failure() -> None:
    throttle = LoginThrottle(HandClock())
    for _ in range(5):
        begins(throttle, "ada", HERE)
    for number in range(20_000):
        begins(throttle, f"name{number}", f"10.0.{number // 20 >> 8}.{number // 20 & 255}")
    assert throttle.wait("ada", HERE) > 0


def test_what_was_not_looked_at_is_no_failure() -> None:
    throttle = LoginThrottle(HandClock())
    for _ in range(100):
        assert begins(throttle, "ada", HERE)
        throttle.withdrawn("ada", HERE)


async def test_a_flood_of_logins_leaves_turns_to_others(house: House) -> None:
    ask = house.identity.authenticator.login
    flood = [asyncio.ensure_future(ask(f"name{number}", "x", THERE)) for number in range(15)]
    await asyncio.sleep(0)
    assert await ask("bob", PASSWORD + "bob", HERE) == Principal("bob")
    assert sum(each.done() for each in flood) <= 5
    for each in flood:
        each.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


# Passwords.


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("x" * 73, "72 bytes"),
        ("ü" * 37, "72 bytes"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        (TOKEN_PREFIX + "x" * 43, "begins"),
    ],
)
def test_what_cannot_be_a_password(password: str, words: str) -> None:
    with pytest.raises(PasswordInvalid, match=words):
        hash_password(password)


def test_the_longest_password_counts_to_its_last_byte() -> None:
    kept = hash_password("x" * 71 + "y")
    assert is_password("x" * 71 + "y", kept)
    assert not is_password("x" * 72, kept)
    assert not is_password("x" * 71 + "y" + "z", kept)


@pytest.mark.parametrize("prefix", ["$2y$", "$2b$", "$2a$"])
def test_a_hash_of_htpasswd_is_taken(prefix: str) -> None:
    kept = imported_hash(prefix + hashed(PASSWORD)[4:])
    assert is_password(PASSWORD, kept)
    assert not is_password("wrong", kept)


@pytest.mark.parametrize("text", ["", "$apr1$x$y", "{SHA}x", "$2y$31$" + "a" * 53, "$2b$10$x"])
def test_another_hash_is_not_taken(text: str) -> None:
    with pytest.raises(PasswordInvalid):
        imported_hash(text)


def test_a_hash_that_is_none_matches_nothing() -> None:
    assert not is_password("x", "nonsense")
    assert not is_password("x", "$2b$05$" + "." * 53)


# The log of what was done.


async def test_logins_are_noted_and_do_not_fill_the_log(house: House) -> None:
    async with house.identity.running():
        for _ in range(10):
            await house.asks(ADA)
            await house.asks(basic("team+ci", house.robot_secret))
        for _ in range(100):
            await house.asks(basic("team+ci", "wrong"), THERE)
        context = RequestContext("id", HERE, Principal("ada"))
        house.identity.audit.note(context, "push", "team/app:v1")
        house.clock.now += 61
        await house.asks(basic("team+ci", "wrong"), THERE)
    noted = [(each.actor, each.action, each.outcome) for each in house.records.audited]
    assert noted.count(("ada", "login", "done")) == 1
    assert noted.count(("team+ci", "login", "done")) == 1
    assert noted.count(("team+ci", "login", "refused")) == 21
    assert noted[-2] == ("ada", "push", "done")
    assert "80 more" in house.records.audited[-1].detail
    robot = await house.records.robot("team+ci")
    assert robot is not None
    assert robot.used_at == house.clock.wall
