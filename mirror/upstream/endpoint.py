"""What one registry endpoint is, and the bounds of every wait on it."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import Protocol

from ..frozen import dataclass
from ..oci.manifests import MAX_MANIFEST
from ..secret_text import SecretStr
from ..times import EXCHANGES, Exchanges
from .egress import Allowed
from .proxies import Routes

KIB = 1024
MIB = 1024 * KIB

CONNECTIONS = 32  # to one host


class Trust(StrEnum):
    """How far an endpoint's word goes."""

    TAGS = "tags"  # it may say what a tag points to
    CONTENT = "content"  # bytes by digest only: they prove themselves


class SecretSource(Protocol):
    """Where a secret is kept, and may be changed meanwhile."""

    def read(self) -> SecretStr | None:
        """The secret as it is there now; None when it cannot be had. Blocking."""

    def stamp(self) -> str:
        """Changes when the secret is written anew; "" where that cannot be told. Blocking."""

    def place(self) -> str:
        """Where it is kept, in words for the operator; no client is told."""


@dataclass(frozen=True, slots=True)
class Login:
    """A name and password: shown to the token realm, or to a registry that asks for Basic."""

    username: str
    secret: SecretStr
    source: SecretSource | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """A refresh token, which the token realm changes into tokens (OAuth 2.0; Docker's clients call
    it an identity token). A registry that asks for Basic is shown it as the password."""

    username: str
    secret: SecretStr
    source: SecretSource | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class GivenToken:
    """A bearer token from the configuration: shown to the registry as it is, never negotiated."""

    secret: SecretStr
    source: SecretSource | None = field(default=None, compare=False)


Credentials = Login | IdentityToken | GivenToken


class NoLogin(Exception):
    """A program tells no login; the message says why."""


class LoginSource(Protocol):
    """A program that tells a login, and may tell another one each time."""

    def ask(self) -> Login | IdentityToken:
        """The login as it is now. Raises NoLogin. Blocking, for `times.HELPER` seconds at most."""

    def place(self) -> str:
        """What is asked, in words for the operator."""


@dataclass(frozen=True, slots=True)
class HelperLogin:
    """The login that a credential helper of Docker's tells for this server: nothing is known of it
    before the program was asked. `name` is what metrics and messages call it."""

    name: str
    helper: str
    server: str
    program: LoginSource = field(compare=False)


Configured = Credentials | HelperLogin
"""A login as the configuration has it."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """Bounds of what an endpoint is asked: `waits` in seconds, `manifest` and `token` in bytes."""

    waits: Exchanges = EXCHANGES
    connections: int = CONNECTIONS  # per host; a blob holds one for as long as it takes
    manifest: int = MAX_MANIFEST
    token: int = 32 * KIB


@dataclass(frozen=True, slots=True)
class Logins:
    """What an endpoint is shown. Of several `credentials` the one that has most left is shown.
    `realm`: the token realm that may see them although its host is another than the endpoint's.
    `quota_low`: the share of the manifests that it grants to one of them, below which the rest is
    scarce."""

    credentials: tuple[Configured, ...] = ()
    realm: str | None = None
    quota_low: float = 0.2


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where an endpoint may be, and lead to. `configured` False: a client named it, so its own
    address has to be a public one. `allowed`: private addresses that it may lead to."""

    configured: bool = True
    allowed: Allowed = field(default_factory=Allowed)


@dataclass(frozen=True, slots=True)
class Connecting:
    """How connections are made, for the endpoint and wherever it leads. `routes`: the proxies; None
    for those of the environment. `authorities` (PEM) are trusted besides the system's. `shown`, our
    certificate with its key, is for the endpoint itself alone."""

    routes: Routes | None = None
    authorities: str = field(default="", repr=False)
    shown: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One registry at one URL.

    `name` stands in messages and metrics, `registry` (as the configuration or the client calls the
    one whose content it has) in metrics. `url` has no query and no login; what its path means
    is in oci/layout.py.
    """

    name: str
    url: str
    registry: str = ""
    trust: Trust = Trust.TAGS
    logins: Logins = field(default_factory=Logins)
    addresses: Addresses = field(default_factory=Addresses)
    connecting: Connecting = field(default_factory=Connecting)
    limits: EndpointLimits = field(default_factory=EndpointLimits)
