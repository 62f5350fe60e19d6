"""What principals may do with repositories: pure, and looked up when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from ..contracts.context import Principal, PrincipalKind
from ..contracts.hosted import HostedRecords, Seen, Visibility
from ..contracts.identity import Action, IdentityRecords, Right, Robot, Role, Standing
from ..frozen import dataclass
from ..oci.scopes import CATALOG, CATALOG_ACTIONS
from .accounts import BELIEVED, Accounts, UserAccount
from .memory import ShortMemory

_OF_ROLE: Mapping[Role, frozenset[Action]] = {
    Role.READER: frozenset((Action.PULL,)),
    Role.WRITER: frozenset((Action.PULL, Action.PUSH)),
    Role.MAINTAINER: frozenset(Action),
}
_OF_RIGHT: Mapping[Right, frozenset[Action]] = {
    Right.PULL: frozenset((Action.PULL,)),
    Right.PUSH: frozenset((Action.PULL, Action.PUSH)),
}
_MOST_REPOSITORIES = 4096


def standing_of_user(principal: Principal, account: UserAccount | None) -> Standing:
    """None for an account that is not there any more, or is disabled: it stands as nobody does.
    The own name is a namespace that the user maintains."""
    if account is None:
        return Standing(principal)
    own = (account.user.name, Role.MAINTAINER)
    return Standing(principal, account.user.is_administrator, (own, *account.memberships))


def standing_of_robot(principal: Principal, robot: Robot | None) -> Standing:
    """None for a robot that is not there any more, or whose time is over."""
    if robot is None:
        return Standing(principal)
    return Standing(principal, grants=tuple((robot.organisation, each) for each in robot.grants))


def permits(
    standing: Standing, action: Action, repository: str, visibility: Visibility | None
) -> bool:
    """Whether this principal may do this with a repository of this visibility, None where there is
    none of that name or it is not known: nothing but a pull depends on it."""
    principal = standing.principal
    if principal.kind is PrincipalKind.OPERATOR:
        return True
    if action is Action.PULL and visibility is Visibility.PUBLIC:
        return True  # anybody may: no token has to be for it
    if principal.read_only and action is not Action.PULL:
        return False
    if principal.scopes is not None and (repository, action.value) not in principal.scopes:
        return False
    if standing.is_administrator:
        return True
    namespace, _, rest = repository.partition("/")
    return any(
        organisation == namespace and action in _OF_ROLE[role]
        for organisation, role in standing.memberships
    ) or any(
        organisation == namespace
        and action in _OF_RIGHT[grant.right]
        and fnmatchcase(rest, grant.pattern)
        for organisation, grant in standing.grants
    )


def seen_by(standing: Standing) -> Seen:
    """Which repositories listings show, beside the public ones. A token has to be for listings."""
    principal = standing.principal
    if principal.kind is PrincipalKind.OPERATOR:
        return Seen(everything=True)
    if principal.scopes is not None and not _is_for_listings(principal.scopes):
        return Seen()
    if standing.is_administrator:
        return Seen(everything=True)
    return Seen(
        namespaces=frozenset(name for name, _ in standing.memberships),
        patterns=tuple(f"{name}/{grant.pattern}" for name, grant in standing.grants),
    )


def _is_for_listings(scopes: frozenset[tuple[str, str]]) -> bool:
    return any((CATALOG, action) in scopes for action in CATALOG_ACTIONS)


@dataclass(frozen=True, slots=True)
class _Visible:
    visibility: Visibility | None
    still: Callable[[], bool]


class HostedRights:
    """Rights by the records, believed for a second."""

    def __init__(
        self,
        accounts: Accounts,
        records: IdentityRecords,
        hosted: HostedRecords,
        *,
        monotonic: Callable[[], float],
        still: Callable[[str], Callable[[], bool]] = lambda _: lambda: True,
    ) -> None:
        """`still`, of a repository before it is read: whether it is as it was then, as far as this
        host knows. What is not is read again: nobody is told that a private one is public, and
        keeps an answer for others by it."""
        self._accounts = accounts
        self._records = records
        self._hosted = hosted
        self._still = still
        self._visibility: ShortMemory[str, _Visible] = ShortMemory(
            BELIEVED, _MOST_REPOSITORIES, monotonic
        )

    async def may(self, principal: Principal, action: Action, repository: str) -> bool:
        standing = await self._standing(principal)
        if permits(standing, action, repository, None):
            return True
        if action is not Action.PULL:
            return False
        return await self._is_public(repository)

    async def may_create(self, principal: Principal, repository: str) -> bool:
        namespace, slash, _ = repository.partition("/")
        standing = await self._standing(principal)
        if not slash or not permits(standing, Action.PUSH, repository, None):
            return False
        named = (name for name, _ in (*standing.memberships, *standing.grants))
        return namespace in named or await self._is_namespace(namespace)

    async def seen(self, principal: Principal) -> Seen:
        return seen_by(await self._standing(principal))

    async def is_administrator(self, principal: Principal) -> bool:
        if principal.kind is PrincipalKind.OPERATOR:
            return True
        if principal.scopes is not None or principal.read_only:
            return False
        return (await self._standing(principal)).is_administrator

    async def _standing(self, principal: Principal) -> Standing:
        match principal.kind:
            case PrincipalKind.USER:
                return standing_of_user(principal, await self._accounts.user(principal.name))
            case PrincipalKind.ROBOT:
                found = await self._accounts.robot(principal.name)
                return standing_of_robot(principal, None if found is None else found.robot)
        return Standing(principal)

    async def _is_public(self, repository: str) -> bool:
        found = await self._visibility.get(repository, lambda: self._read_visibility(repository))
        while not found.still():
            self._visibility.forget(repository)
            found = await self._visibility.get(
                repository, lambda: self._read_visibility(repository)
            )
        return found.visibility is Visibility.PUBLIC

    async def _read_visibility(self, repository: str) -> _Visible:
        still = self._still(repository)
        found = await self._hosted.repository(repository)
        return _Visible(None if found is None else found.visibility, still)

    async def _is_namespace(self, name: str) -> bool:
        return (
            await self._records.organisation(name) is not None
            or await self._records.user(name) is not None
        )
