"""By what requests at hosted names are answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Protocol

from aiohttp import web

from ...contracts.context import RequestContext
from ...contracts.identity import Authenticator
from ...contracts.registry import Deleter, Lister, Reader, Writer
from ...frozen import dataclass
from ..http.receiving import Receiver
from ..v2.access_log import Exchange

Site = Callable[[web.BaseRequest, Exchange], Awaitable[web.StreamResponse]]
"""Answers whatever is below one first part of a path, for the principal of the exchange's context.
Raises RegistryError as long as nothing has been sent."""


Page = Callable[[web.BaseRequest, RequestContext], Awaitable[web.Response]]
"""Answers what is neither the registry's nor a site's, for people and for programs of theirs; finds
out itself who asks, and raises nothing."""


class Registry(Reader, Writer, Deleter, Lister, Protocol):
    """All four contracts."""


class Marks(Protocol):
    """Tell whether anything has changed in a repository, by whichever process of this host."""

    def still(self, repository: str) -> Callable[[], bool]:
        """Whether it is as it is now."""


Challenge = Callable[[str, str, str], str]
"""How a client may log in: the value of WWW-Authenticate, by what a token has to be for ("" for a
login alone), the origin (`scheme://host[:port]`) by which the client has asked, and what is wrong
with the token that it has shown ("" where it has shown none; RFC 6750, 3.1)."""


@dataclass(frozen=True, slots=True)
class HostedServing:
    """`name`: what this registry is called in logs, counts and its repositories' names. `url`: its
    origin, where clients are to know it by another than they ask by. `sites`: what is beside /v2/,
    by the first part of the path. `patience`, in seconds: how long a client may take, or send,
    nothing."""

    name: str
    registry: Registry
    authenticator: Authenticator
    challenge: Challenge
    marks: Marks
    url: str | None = None
    sites: Mapping[str, Site] = field(default_factory=dict)
    page: Page | None = None
    patience: float = 60.0
    receiver: Receiver = field(default_factory=Receiver)
