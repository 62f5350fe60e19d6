"""Who may do what with repositories of one's own."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from ..frozen import dataclass
from .context import Principal, RequestContext
from .hosted import Seen


class Role(StrEnum):
    """Of a member in an organisation. Each has what the one before has. A user is the maintainer
    of the repositories below the own name."""

    READER = "reader"  # pulls
    WRITER = "writer"  # pushes, moves tags
    MAINTAINER = "maintainer"  # deletes; members, robots, webhooks, settings of repositories


class Action(StrEnum):
    """What is done with a repository. `DELETE` is of tags, manifests and blobs; `MANAGE` of its
    settings, and of the organisation's members, robots and webhooks."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    MANAGE = "manage"


class Right(StrEnum):
    """Of a robot, for the repositories that a pattern means. `PUSH` pulls, too."""

    PULL = "pull"
    PUSH = "push"


TOKEN_PREFIX, ROBOT_PREFIX = "rmt_", "rmr_"
"""What the secrets of personal access tokens and of robots begin with: by it they are known from
passwords before any is hashed, and by those who look for secrets that were published."""


def new_secret(prefix: str) -> str:
    """A prefix, and 256 random bits in letters, digits, `-` and `_`."""
    return prefix + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """What is kept of a secret. SHA-256 does where nobody can guess (NIST SP 800-63B, 5.1.2.2)."""
    return hashlib.sha256(secret.encode()).digest()


class Passwords(Protocol):
    """Hashes of passwords that people choose."""

    async def hash(self, password: str) -> str:
        """A bcrypt hash. Raises ValueError, whose message says why, for what bcrypt does not take:
        more than 72 bytes of UTF-8, control characters."""

    async def matches(self, password: str, hash: str) -> bool: ...

    def imported(self, hash: str) -> str:
        """A bcrypt hash that another program has made, as it is kept. Raises ValueError, whose
        message says what is wrong with it, for anything else."""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    is_administrator: bool
    created_at: float
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class Organisation:
    """`quota` in bytes, None for none."""

    name: str
    created_at: float
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    user: str
    role: Role


@dataclass(frozen=True, slots=True)
class Grant:
    """`pattern` is of repositories' names, without the organisation: `app`, `*`, `team/*`."""

    pattern: str
    right: Right


@dataclass(frozen=True, slots=True)
class Robot:
    """`login` is what it shows as its user's name: `organisation+name`."""

    organisation: str
    name: str
    grants: tuple[Grant, ...]
    created_at: float
    expires_at: float | None = None
    used_at: float | None = None

    @property
    def login(self) -> str:
        return f"{self.organisation}+{self.name}"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A user's personal access token; its secret was shown once."""

    id: str
    user: str
    name: str
    right: Right
    created_at: float
    expires_at: float | None = None
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """All that a principal's rights follow from, as the records have it now."""

    principal: Principal
    is_administrator: bool = False
    memberships: tuple[tuple[str, Role], ...] = ()
    grants: tuple[tuple[str, Grant], ...] = ()  # of a robot: its organisation, what it may there


@dataclass(frozen=True, slots=True)
class Refusal:
    """A login that failed. `retry_after`: seconds until the next is looked at, 0 for at once."""

    reason: str
    retry_after: float = 0.0


class Authenticator(Protocol):
    """Finds out who a client is."""

    async def authenticate(self, authorization: str | None, client: str) -> Principal | Refusal:
        """By an Authorization header (Basic or Bearer); ANONYMOUS where there is none. `client` is
        the address, for which failures are counted."""

    async def login(self, name: str, password: str, client: str) -> Principal | Refusal:
        """By a name and a password, of a user (or its personal access token) or a robot."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """`expires_in` seconds from `issued_at` (seconds since the epoch)."""

    token: str
    expires_in: int
    issued_at: float


class TokenRealm(Protocol):
    """Gives tokens to clients, by Docker's token specification."""

    @property
    def service(self) -> str:
        """For whom tokens are, as challenges name it."""

    async def issue(
        self, authorization: str | None, asked: Mapping[str, frozenset[str]], client: str
    ) -> IssuedToken | Refusal:
        """A token for what is asked (see mirror/oci/scopes.py) as far as who shows this header
        (Basic; None: anybody) may do it, which may be nothing. `client` as of Authenticator."""


class Rights(Protocol):
    """What principals may. Looked up when used: what was taken away is gone within a second."""

    async def may(self, principal: Principal, action: Action, repository: str) -> bool:
        """Also whether the token that was shown is for it (Principal.scopes)."""

    async def may_create(self, principal: Principal, repository: str) -> bool:
        """Whether a push may make this repository: its namespace is an organisation's or the
        user's own."""

    async def seen(self, principal: Principal) -> Seen:
        """Which repositories listings show."""

    async def is_administrator(self, principal: Principal) -> bool: ...


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`outcome` done or refused; `target` what it was done to, in words: a repository, a user."""

    at: float
    actor: str
    client: str
    action: str
    target: str
    outcome: str = "done"
    detail: str = ""


class AuditLog(Protocol):
    def note(
        self,
        context: RequestContext,
        action: str,
        target: str,
        outcome: str = "done",
        detail: str = "",
    ) -> None:
        """Returns at once; it is written behind, in order, and never holds anything back."""

    async def entries(
        self, count: int = 100, before: float | None = None, actor: str = "", target: str = ""
    ) -> Sequence[AuditEntry]:
        """The newest first."""


class IdentityRecords(Protocol):
    """Users, organisations, members, robots, tokens. Secrets come in as hashes only."""

    async def user(self, name: str) -> User | None: ...

    async def password_hash(self, user: str) -> str | None: ...

    async def users(self) -> Sequence[User]: ...

    async def add_user(self, user: User, password_hash: str) -> bool:
        """False when the name is taken, by a user or an organisation."""

    async def set_password(self, user: str, password_hash: str) -> bool: ...

    async def set_user(
        self, user: str, *, administrator: bool | None = None, disabled: bool | None = None
    ) -> bool: ...

    async def remove_user(self, user: str) -> bool:
        """With memberships and tokens. False where there is none, or it has repositories: whoever
        is given the name next would have them."""

    async def organisation(self, name: str) -> Organisation | None: ...

    async def organisations(self) -> Sequence[Organisation]: ...

    async def add_organisation(self, organisation: Organisation) -> bool: ...

    async def set_quota(self, organisation: str, quota: int | None) -> bool: ...

    async def remove_organisation(self, name: str) -> bool:
        """With members and robots. False where there is none, or it has repositories."""

    async def members(self, organisation: str) -> Sequence[Member]: ...

    async def set_member(self, organisation: str, user: str, role: Role | None) -> bool:
        """None takes the membership away. False where there is no such user or organisation."""

    async def memberships(self, user: str) -> Sequence[tuple[str, Role]]: ...

    async def robots(self, organisation: str) -> Sequence[Robot]: ...

    async def robot(self, login: str) -> Robot | None: ...

    async def robot_secret(self, login: str) -> bytes | None:
        """SHA-256 of its secret."""

    async def add_robot(self, robot: Robot, secret_hash: bytes) -> bool: ...

    async def remove_robot(self, organisation: str, name: str) -> bool: ...

    async def tokens(self, user: str) -> Sequence[AccessToken]: ...

    async def token(self, secret_hash: bytes) -> AccessToken | None: ...

    async def add_token(self, token: AccessToken, secret_hash: bytes) -> bool: ...

    async def remove_token(self, user: str, id: str) -> bool: ...

    async def used(self, logins: Sequence[str], token_ids: Sequence[str], now: float) -> None:
        """When robots and tokens were used; behind, some seconds late."""

    async def signing_keys(self) -> Sequence[tuple[str, bytes, float]]:
        """(id, secret, made at), the newest first."""

    async def rotate_signing_key(self, id: str, secret: bytes, now: float, keep: int) -> None:
        """Adds one, and removes all but the `keep` newest."""

    async def note_audit(self, entries: Sequence[AuditEntry]) -> None: ...

    async def audit(
        self, count: int, before: float | None, actor: str, target: str
    ) -> Sequence[AuditEntry]: ...


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that a user has signed in by. `password_mark`: SHA-256 of the password's hash as it
    was then: with another password the session is over."""

    user: str
    password_mark: bytes
    created_at: float
    expires_at: float


class SessionRecords(Protocol):
    """Sessions of the page, by the SHA-256 of what is in the browser's cookie. Every method is one
    transaction."""

    async def add_session(self, key: bytes, session: Session, most: int) -> None:
        """Of this user, the `most` newest stay; sessions that have expired go."""

    async def session(self, key: bytes) -> Session | None:
        """Also one that has expired."""

    async def remove_session(self, key: bytes) -> None: ...
