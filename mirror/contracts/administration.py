"""What people do with repositories of one's own: accounts, rights, settings, what is in them.

The commands, the page and its API for programs do it by this, and no other way.

Each method's first parameter is the request, whose principal decides: OPERATOR, who uses the
control socket, may do everything; an administrator likewise, but for secrets of others; a
maintainer what is of the organisation; a user what is the own. Each raises NotAllowed for who may
see the thing and not do it, NotThere for what is not there or is not for this principal's eyes, in
the same words, and NotValid for what is written wrong. What changes anything is in the audit log,
and so is what was refused. Robots, and who shows a token, see repositories and change nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from enum import Enum
from typing import Any, Protocol

from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.manifests import Platform
from .context import RequestContext
from .hosted import HostedManifest, HostedRepository, RetentionRule, TagMove, TagOrder, Visibility
from .identity import (
    AccessToken,
    Action,
    AuditEntry,
    Grant,
    Member,
    Organisation,
    Right,
    Robot,
    Role,
    User,
)
from .webhooks import Delivery, Subject, Webhook


class AdministrationError(Exception):
    """Something was not done; the message says why, and what to do, to a person."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotAllowed(AdministrationError):
    """The principal may not do this."""


class NotThere(AdministrationError):
    """There is no such thing, as far as the principal may know. `kind`: user, organisation, robot,
    token, repository, tag, manifest,
    member, webhook or delivery."""

    def __init__(self, kind: str, name: str, message: str = "") -> None:
        super().__init__(message or f"there is no {kind} {name}")
        self.kind, self.name = kind, name


class AlreadyThere(AdministrationError):
    """Its name is taken, or what it holds has to go first."""


class NotValid(AdministrationError):
    """What was written is no name, pattern or time that can be taken; the message says what to
    write instead."""


# What it gives. Times are seconds since the epoch.


@dataclass(frozen=True, slots=True)
class Myself:
    """Who asks. `memberships`: of a user, by organisation; `namespaces`: below which it may make
    repositories, the own name among them."""

    name: str
    kind: str
    is_administrator: bool
    memberships: tuple[tuple[str, Role], ...] = ()
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UserDetail:
    user: User
    memberships: tuple[tuple[str, Role], ...]


@dataclass(frozen=True, slots=True)
class HtpasswdImport:
    """`added`, and `updated`: had an account, whose password is now that of the file. `refused`:
    lines, by their number, and why: another hash than bcrypt, or no name."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    refused: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class OrganisationDetail:
    """`used`: bytes of all that is in it, each digest once. `role`: of who asks, None for an
    administrator who is no member."""

    organisation: Organisation
    used: int
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class NewRobot:
    """`secret` is shown this once, and is kept nowhere."""

    robot: Robot
    login: str
    secret: str


@dataclass(frozen=True, slots=True)
class NewToken:
    """`login` is the user's name, and `secret`, which is shown this once, stands for its
    password."""

    token: AccessToken
    login: str
    secret: str


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """`may`: what who asks may do with it. `size`: bytes of its blobs and manifests."""

    repository: HostedRepository
    may: tuple[Action, ...]
    size: int = 0


@dataclass(frozen=True, slots=True)
class RepositoryList:
    """`after`: the marker of the next page, None at the end."""

    repositories: tuple[RepositoryEntry, ...]
    after: str | None = None


@dataclass(frozen=True, slots=True)
class TagEntry:
    """`size`: bytes of the image's blobs; of an index, of those of all its images. `immutable`: the
    repository's settings have it stay where it is."""

    name: str
    digest: Digest
    media_type: str
    size: int
    platforms: tuple[Platform, ...]
    moved_at: float
    moved_by: str
    artifact_type: str | None = None
    immutable: bool = False


@dataclass(frozen=True, slots=True)
class TagList:
    """`after`: the marker of the next page, None at the end."""

    tags: tuple[TagEntry, ...]
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob that a manifest names: its config first, then the layers as they are stacked."""

    digest: Digest
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Child:
    """A manifest that an index names. `size` as of a TagEntry, None where it is not here."""

    digest: Digest
    media_type: str
    platform: Platform | None
    size: int | None


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image's configuration says, in its maker's words: `created` is a time in RFC 3339,
    `ports` are as `8080/tcp`, `steps` what its layers were made by."""

    created: str = ""
    user: str = ""
    working_folder: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestDetail:
    """`tags`: those that point to it, and `layers` or `children`, whichever it has. `size` as of a
    TagEntry. `config`: an image's, None of what is none."""

    manifest: HostedManifest
    size: int
    tags: tuple[str, ...]
    layers: tuple[Layer, ...]
    children: tuple[Child, ...]
    referrers: tuple[HostedManifest, ...]
    config: ImageConfig | None = None


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What the rules take away of a repository; `is_trial`: would. `manifests`: without a tag.
    `why`: the reasons, which name the rule, of the tags and then of the manifests."""

    repository: str
    tags: tuple[str, ...]
    manifests: tuple[Digest, ...]
    is_trial: bool
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """`secret`, by which its deliveries are signed, is shown this once."""

    webhook: Webhook
    secret: str


# What is done. A secret comes in as it is, and is kept as a hash.


class Users(Protocol):
    async def myself(self, context: RequestContext) -> Myself:
        """Anybody may ask, and be told that it is nobody."""

    async def list(self, context: RequestContext) -> Sequence[User]:
        """By name. For administrators."""

    async def one(self, context: RequestContext, name: str) -> UserDetail:
        """For administrators, and for itself."""

    async def add(
        self, context: RequestContext, name: str, password: str, *, administrator: bool = False
    ) -> User:
        """For administrators. Raises AlreadyThere when a user or an organisation has the name."""

    async def set_password(
        self, context: RequestContext, name: str, password: str, *, before: str | None = None
    ) -> None:
        """For administrators, and for itself, who shows the one that was good `before`."""

    async def change(
        self,
        context: RequestContext,
        name: str,
        *,
        administrator: bool | None = None,
        disabled: bool | None = None,
    ) -> User:
        """For administrators. Raises NotAllowed where no administrator would be left."""

    async def remove(self, context: RequestContext, name: str) -> None:
        """With memberships and tokens; what is in its repositories stays. As `change`."""

    async def import_htpasswd(self, context: RequestContext, text: str) -> HtpasswdImport:
        """Lines as `htpasswd -B` writes them. For administrators."""


class Organisations(Protocol):
    async def list(self, context: RequestContext) -> Sequence[OrganisationDetail]:
        """By name: those that the user is a member of; an administrator's: all."""

    async def one(self, context: RequestContext, name: str) -> OrganisationDetail:
        """For members."""

    async def add(
        self, context: RequestContext, name: str, quota: int | None = None
    ) -> OrganisationDetail:
        """For administrators. `quota` in bytes."""

    async def set_quota(
        self, context: RequestContext, name: str, quota: int | None
    ) -> OrganisationDetail:
        """For administrators. One that is exceeded already refuses pushes, and removes nothing."""

    async def remove(self, context: RequestContext, name: str) -> None:
        """With members and robots, for administrators. Raises AlreadyThere while it has
        repositories."""

    async def members(self, context: RequestContext, name: str) -> Sequence[Member]:
        """By name, for members."""

    async def set_member(
        self, context: RequestContext, name: str, user: str, role: Role | None
    ) -> None:
        """None: takes the membership away. For maintainers."""


class Robots(Protocol):
    """For maintainers of the organisation."""

    async def list(self, context: RequestContext, organisation: str) -> Sequence[Robot]: ...

    async def add(
        self,
        context: RequestContext,
        organisation: str,
        name: str,
        grants: Sequence[Grant],
        expires_in: float | None = None,
    ) -> NewRobot:
        """`expires_in` seconds from now."""

    async def remove(self, context: RequestContext, organisation: str, name: str) -> None: ...


class AccessTokens(Protocol):
    """Personal ones: of the user that asks. OPERATOR makes them for others too; administrators
    list and remove those of others."""

    async def list(self, context: RequestContext, user: str) -> Sequence[AccessToken]: ...

    async def add(
        self,
        context: RequestContext,
        user: str,
        name: str,
        right: Right,
        expires_in: float | None = None,
    ) -> NewToken:
        """`expires_in` seconds from now. `name` is what its user calls it."""

    async def remove(self, context: RequestContext, user: str, id: str) -> None:
        """`id`, or the name that its user gave it."""


class Repositories(Protocol):
    """Whoever may pull sees; `change` and `remove` are for who may manage."""

    async def list(
        self,
        context: RequestContext,
        query: str = "",
        count: int = 100,
        after: str | None = None,
    ) -> RepositoryList:
        """By name; `query`: those whose name or description has this text."""

    async def one(self, context: RequestContext, name: str) -> RepositoryEntry: ...

    async def add(
        self, context: RequestContext, name: str, visibility: Visibility
    ) -> RepositoryEntry:
        """For who may make it by a push. Raises AlreadyThere."""

    async def change(
        self,
        context: RequestContext,
        name: str,
        *,
        visibility: Visibility | None = None,
        description: str | None = None,
        immutable: Sequence[str] | None = None,
        retention: Sequence[RetentionRule] | None = None,
    ) -> RepositoryEntry:
        """What is given, and nothing else."""

    async def remove(self, context: RequestContext, name: str) -> None:
        """With all that is in it."""

    async def apply_retention(
        self, context: RequestContext, name: str, *, is_trial: bool
    ) -> RetentionPlan: ...


class Images(Protocol):
    """What is in one repository. Whoever may pull sees; to take out needs Action.DELETE."""

    async def tags(
        self,
        context: RequestContext,
        repository: str,
        count: int = 100,
        after: str | None = None,
        order: TagOrder = TagOrder.NAME,
    ) -> TagList: ...

    async def history(
        self, context: RequestContext, repository: str, tag: str, count: int = 100
    ) -> Sequence[TagMove]:
        """The newest first; also of a tag that is gone."""

    async def manifest(
        self, context: RequestContext, repository: str, reference: str
    ) -> ManifestDetail:
        """By a tag or a digest."""

    async def remove_tag(self, context: RequestContext, repository: str, tag: str) -> None: ...

    async def remove_manifest(self, context: RequestContext, repository: str, digest: str) -> None:
        """With its tags."""


class Webhooks(Protocol):
    """For maintainers of the `namespace`; those of "", which are told of all, for administrators.
    One that is not the principal's is NotThere."""

    async def list(self, context: RequestContext, namespace: str) -> Sequence[Webhook]: ...

    async def add(
        self,
        context: RequestContext,
        namespace: str,
        url: str,
        subjects: Sequence[Subject],
        pattern: str = "*",
        secret: str = "",
    ) -> NewWebhook:
        """Without a `secret` one is made."""

    async def switch(self, context: RequestContext, id: str, *, disabled: bool) -> Webhook: ...

    async def remove(self, context: RequestContext, id: str) -> None: ...

    async def ping(self, context: RequestContext, id: str) -> Delivery:
        """Has it told of nothing, to try it."""

    async def deliveries(
        self, context: RequestContext, id: str, count: int = 50, before: float | None = None
    ) -> Sequence[Delivery]:
        """The newest first."""

    async def redeliver(self, context: RequestContext, id: str, delivery: str) -> Delivery: ...


class Administration(Protocol):
    @property
    def users(self) -> Users: ...

    @property
    def organisations(self) -> Organisations: ...

    @property
    def robots(self) -> Robots: ...

    @property
    def tokens(self) -> AccessTokens: ...

    @property
    def repositories(self) -> Repositories: ...

    @property
    def images(self) -> Images: ...

    @property
    def webhooks(self) -> Webhooks: ...

    async def audit(
        self,
        context: RequestContext,
        count: int = 100,
        before: float | None = None,
        actor: str = "",
        target: str = "",
    ) -> Sequence[AuditEntry]:
        """The newest first. For administrators; a maintainer is told what was done to the own
        organisation, which is `target` then or what follows it and a slash."""


class Backup(Protocol):
    """All of the records, and the content that they need, as one tar. By commands only."""

    def write(self) -> AsyncIterator[bytes]:
        """As of the moment of the call; pushes go on meanwhile."""

    def restore(self, archive: AsyncIterator[bytes]) -> AsyncIterator[str]:
        """Into records that are empty, and says how far it is. All of it, or nothing."""


def rendered(told: object) -> dict[str, Any]:
    """The one JSON of what is given here: for `--json`, the control socket and the API. Fields by
    their names; digests, platforms and words as texts; a robot has its `login` beside.

    >>> rendered(Member("ada", Role.READER))
    {'user': 'ada', 'role': 'reader'}
    """
    found: dict[str, Any] = _plain(told)
    return found


def _plain(told: object) -> Any:
    match told:
        case Enum():
            return told.value
        case Digest() | Platform():
            return str(told)
        case Robot():
            return {"login": told.login, **_fields(told)}
        case Mapping():
            return {str(key): _plain(value) for key, value in told.items()}
        case tuple() | list():
            return [_plain(each) for each in told]
    return _fields(told) if is_dataclass(told) else told


def _fields(told: Any) -> dict[str, Any]:
    return {each.name: _plain(getattr(told, each.name)) for each in fields(told)}
