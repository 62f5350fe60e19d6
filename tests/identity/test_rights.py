"""Who may do what: principals by repositories, and that what was taken away counts at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mirror.contracts.context import ANONYMOUS, OPERATOR, Principal, PrincipalKind
from mirror.contracts.hosted import HostedRecords, HostedRepository, Seen, Visibility
from mirror.contracts.identity import (
    Action,
    Grant,
    IdentityRecords,
    Organisation,
    Right,
    Robot,
    Role,
    Standing,
    User,
)
from mirror.identity.accounts import Accounts, UserAccount
from mirror.identity.rights import HostedRights, permits, standing_of_robot, standing_of_user

from ..fakes import HandClock, MemoryIdentity, MemoryRecords

ADA = Principal("ada")
BOT = Principal("team+ci", PrincipalKind.ROBOT)


def user(
    role: Role | None = None, *, administrator: bool = False, principal: Principal = ADA
) -> Standing:
    memberships = () if role is None else (("team", role),)
    return standing_of_user(
        principal, UserAccount(User("ada", administrator, 0.0), "hash", memberships)
    )


def robot(*grants: Grant, principal: Principal = BOT) -> Standing:
    return standing_of_robot(principal, Robot("team", "ci", grants, 0.0))


def only(*scopes: tuple[str, str], principal: Principal = ADA) -> Principal:
    return replace(principal, scopes=frozenset(scopes))


NOTHING, PULL = "", "pull"
PUSH, ALL = "pull push", "pull push delete manage"
TEAM = [("team/app", a) for a in ("pull", "push", "delete", "manage")]

# What each may do in: team/app (private), team/shown (public), other/app (private), other/shown
# (public), ada/own (private), and new/app, of which there is none.
PLACES = [
    ("team/app", Visibility.PRIVATE),
    ("team/shown", Visibility.PUBLIC),
    ("other/app", Visibility.PRIVATE),
    ("other/shown", Visibility.PUBLIC),
    ("ada/own", Visibility.PRIVATE),
    ("new/app", None),
]
READ_ONLY = replace(ADA, read_only=True)
TABLE: dict[str, tuple[Standing, list[str]]] = {
    "nobody": (Standing(ANONYMOUS), [NOTHING, PULL, NOTHING, PULL, NOTHING, NOTHING]),
    "a user without a role": (user(), [NOTHING, PULL, NOTHING, PULL, ALL, NOTHING]),
    "a reader": (user(Role.READER), [PULL, PULL, NOTHING, PULL, ALL, NOTHING]),
    "a writer": (user(Role.WRITER), [PUSH, PUSH, NOTHING, PULL, ALL, NOTHING]),
    "a maintainer": (user(Role.MAINTAINER), [ALL, ALL, NOTHING, PULL, ALL, NOTHING]),
    "an administrator": (user(administrator=True), [ALL] * 6),
    "the operator": (Standing(OPERATOR), [ALL] * 6),
    "who has no account any more, or a disabled one": (
        standing_of_user(ADA, None),
        [NOTHING, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a maintainer by a token that only pulls": (
        user(Role.MAINTAINER, principal=READ_ONLY),
        [PULL, PULL, NOTHING, PULL, PULL, NOTHING],
    ),
    "an administrator by a token that only pulls": (
        user(administrator=True, principal=READ_ONLY),
        [PULL] * 6,
    ),
    "a maintainer by a token for one pull": (
        user(Role.MAINTAINER, principal=only(("team/app", "pull"))),
        [PULL, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a reader by a token for all": (
        user(Role.READER, principal=only(*TEAM)),
        [PULL, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "an administrator by a token for one push": (
        user(administrator=True, principal=only(("team/app", "push"))),
        ["push", PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a maintainer by a token for nothing": (
        user(Role.MAINTAINER, principal=only()),
        [NOTHING, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a robot that pulls all": (
        robot(Grant("*", Right.PULL)),
        [PULL, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a robot that pushes one": (
        robot(Grant("app", Right.PUSH)),
        [PUSH, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a robot of other repositories": (
        robot(Grant("ap", Right.PUSH), Grant("team/*", Right.PUSH), Grant("*/app", Right.PUSH)),
        [NOTHING, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a robot by a token for a pull": (
        robot(Grant("*", Right.PUSH), principal=only(("team/app", "pull"), principal=BOT)),
        [PULL, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
    "a robot that is gone, or whose time is over": (
        standing_of_robot(BOT, None),
        [NOTHING, PULL, NOTHING, PULL, NOTHING, NOTHING],
    ),
}


@pytest.mark.parametrize("who", TABLE)
def test_the_matrix(who: str) -> None:
    standing, expected = TABLE[who]
    found = [
        " ".join(action for action in Action if permits(standing, action, name, visibility))
        for name, visibility in PLACES
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("pattern", "name", "means"),
    [
        ("*", "team/app", True),
        ("*", "team/deep/app", True),
        ("deep/*", "team/deep/app", True),
        ("deep/*", "team/deep", False),
        ("app", "team/app", True),
        ("app", "team/app2", False),
        ("app", "teams/app", False),
        ("*", "teams/app", False),
        ("*", "team-x/app", False),
        ("../other/*", "other/app", False),
    ],
)
def test_a_robots_pattern_stays_within_its_organisation(
    pattern: str, name: str, means: bool
) -> None:
    standing = robot(Grant(pattern, Right.PULL))
    assert permits(standing, Action.PULL, name, Visibility.PRIVATE) is means


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


class House:
    """Records with an organisation, a writer, a robot that ends, and three repositories."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.identity = MemoryIdentity()
        self.hosted = MemoryRecords()
        self.generation = 0
        records: IdentityRecords = self.identity
        hosted: HostedRecords = self.hosted
        accounts = Accounts(records, wall=lambda: clock.wall, monotonic=clock)
        self.rights = HostedRights(accounts, records, hosted, monotonic=clock, still=self.still)

    def still(self, repository: str) -> Callable[[], bool]:
        then = self.generation
        return lambda: self.generation == then

    async def furnish(self) -> House:
        await self.identity.add_user(User("ada", False, 0.0), "hash")
        await self.identity.add_organisation(Organisation("team", 0.0))
        await self.identity.add_organisation(Organisation("other", 0.0))
        await self.identity.set_member("team", "ada", Role.WRITER)
        ends = self.clock.wall + 60
        grant = Grant("app", Right.PUSH)
        await self.identity.add_robot(Robot("team", "ci", (grant,), 0.0, ends), b"secret")
        for name, visibility in PLACES[:4]:
            await self.hosted.create(name, visibility, 0.0, "ada")
        return self


@pytest.fixture
async def house(clock: HandClock) -> House:
    return await House(clock).furnish()


async def test_what_was_taken_away_counts_within_a_second(house: House) -> None:
    may = house.rights.may
    assert await may(ADA, Action.PUSH, "team/app")
    await house.identity.set_member("team", "ada", Role.READER)
    house.clock.now += 1
    assert not await may(ADA, Action.PUSH, "team/app")
    assert await may(ADA, Action.PULL, "team/app")
    await house.identity.set_member("team", "ada", None)
    house.clock.now += 1
    assert not await may(ADA, Action.PULL, "team/app")
    assert await may(ADA, Action.PUSH, "ada/own")
    await house.identity.set_user("ada", disabled=True)
    house.clock.now += 1
    assert not await may(ADA, Action.PUSH, "ada/own")
    assert not await house.rights.may_create(ADA, "ada/own")


async def test_a_robot_ends_in_its_second_however_it_is_remembered(house: House) -> None:
    assert await house.rights.may(BOT, Action.PUSH, "team/app")
    house.clock.now += 59.9
    assert await house.rights.may(BOT, Action.PUSH, "team/app")
    house.clock.now += 0.1
    assert not await house.rights.may(BOT, Action.PULL, "team/app")
    assert await house.rights.seen(BOT) == Seen()


async def test_what_is_made_private_is_private_at_once_on_this_node(house: House) -> None:
    assert await house.rights.may(ANONYMOUS, Action.PULL, "team/shown")
    await house.hosted.change("team/shown", visibility=Visibility.PRIVATE)
    house.generation += 1
    assert not await house.rights.may(ANONYMOUS, Action.PULL, "team/shown")


async def test_what_is_made_private_while_it_is_read_is_read_again(house: House) -> None:
    read = house.hosted.repository

    async def slowly(name: str) -> HostedRepository | None:
        found = await read(name)
        if house.generation == 0:
            await house.hosted.change(name, visibility=Visibility.PRIVATE)
            house.generation += 1
        return found

    house.hosted.repository = slowly  # type: ignore[method-assign]
    assert not await house.rights.may(ANONYMOUS, Action.PULL, "team/shown")


async def test_what_is_made_private_elsewhere_is_so_within_a_second(house: House) -> None:
    assert await house.rights.may(ANONYMOUS, Action.PULL, "team/shown")
    await house.hosted.change("team/shown", visibility=Visibility.PRIVATE)
    house.clock.now += 1
    assert not await house.rights.may(ANONYMOUS, Action.PULL, "team/shown")


@pytest.mark.parametrize(
    ("principal", "name", "may"),
    [
        (ADA, "team/new", True),
        (ADA, "ada/new", True),
        (ADA, "ada/deep/new", True),
        (ADA, "ada", False),
        (ADA, "other/new", False),
        (ADA, "nobody/new", False),
        (BOT, "team/app", True),
        (BOT, "team/new", False),
        (OPERATOR, "nobody/new", False),
        (OPERATOR, "other/new", True),
        (ANONYMOUS, "team/shown", False),
        (replace(ADA, read_only=True), "team/new", False),
    ],
)
async def test_a_push_makes_a_repository_below_a_name_that_there_is(
    house: House, principal: Principal, name: str, may: bool
) -> None:
    assert await house.rights.may_create(principal, name) is may


async def test_listings_show_what_is_ones_own(house: House) -> None:
    seen = house.rights.seen
    assert await seen(ANONYMOUS) == Seen()
    assert await seen(ADA) == Seen(namespaces=frozenset(("team", "ada")))
    assert await seen(BOT) == Seen(patterns=("team/app",))
    assert await seen(OPERATOR) == Seen(everything=True)
    assert await seen(only(("team/app", "pull"))) == Seen()
    listing = only(("registry:catalog", "*"))
    assert await seen(listing) == await seen(ADA)
    await house.identity.set_user("ada", administrator=True)
    house.clock.now += 1
    assert await seen(ADA) == Seen(everything=True)
    assert await seen(only(("team/app", "pull"))) == Seen()


async def test_an_administrator_is_one_by_a_login_alone(house: House) -> None:
    await house.identity.set_user("ada", administrator=True)
    assert await house.rights.is_administrator(ADA)
    assert not await house.rights.is_administrator(only())
    assert not await house.rights.is_administrator(replace(ADA, read_only=True))
    assert await house.rights.is_administrator(OPERATOR)
    assert not await house.rights.is_administrator(BOT)
