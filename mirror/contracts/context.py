"""For whom something is done: handed from the server to the innermost, as a parameter."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from math import inf
from typing import Protocol

from ..frozen import dataclass


class Asker(Protocol):
    """For whom an upstream is asked. Both may change meanwhile: others come to wait for the same.

    An ask that several share goes on in the name of whoever began it; beside one that is silent,
    others of them ask in their own.
    """

    @property
    def client(self) -> str:
        """Whose share of what is scarce it takes: an address, or what stands for a network."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for it. What nobody wants gives way to all."""

    @property
    def deadline(self) -> float:
        """When an answer is of no use any more, in the event loop's time (monotonic seconds). All
        waits for the asker's sake together end then, and no pause is begun that would end later.
        `inf` for what has a patience of its own, as a download has."""


def left(asker: Asker) -> float:
    """The seconds until the asker's deadline; negative when it has passed."""
    return asker.deadline - asyncio.get_running_loop().time()


class PrincipalKind(StrEnum):
    """`OPERATOR` is whoever may use the control socket: no account, and may do everything."""

    ANONYMOUS = "anonymous"
    USER = "user"
    ROBOT = "robot"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a client has proven to be; `name` "" for one that has proven nothing. A robot's name is
    `organisation+robot`.

    `scopes`: what the token that was shown is for, in the words of a token's `access` claim, as
    (repository, action) pairs; None where a login was shown, which is for all that its owner may.
    A token never adds a right: its owner's rights are looked at when it is used. `by_token`: a
    personal access token was shown, which is there for images alone; `read_only`: one that only
    pulls.
    """

    name: str
    kind: PrincipalKind = PrincipalKind.USER
    scopes: frozenset[tuple[str, str]] | None = None
    read_only: bool = False
    by_token: bool = False


ANONYMOUS = Principal("", PrincipalKind.ANONYMOUS)
OPERATOR = Principal("operator", PrincipalKind.OPERATOR)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request, an Asker: the first parameter of whatever is done for it.

    `request_id` tells it from others, in logs and answers. At its `deadline` the client is told
    that there is no answer. `is_ahead`: no client has asked for it yet; blobs alone are asked for
    so, for others join what is asked of tags and manifests.
    """

    request_id: str
    client: str
    principal: Principal = ANONYMOUS
    deadline: float = inf
    is_ahead: bool = False

    @property
    def is_wanted(self) -> bool:
        return not self.is_ahead

    def lasting(self, seconds: float) -> RequestContext:
        """As this, with a deadline so many seconds from now: of a request whose kind is known, or
        of an ask that others may join, and that goes on when this request has ended."""
        deadline = asyncio.get_running_loop().time() + seconds
        # At a fifth of what `replace` costs: several for each request.
        return RequestContext(self.request_id, self.client, self.principal, deadline, self.is_ahead)


@dataclass(frozen=True, slots=True)
class _Ahead:
    client: str = "ahead of clients"
    is_wanted: bool = False
    deadline: float = inf


AHEAD: Asker = _Ahead()
"""Asks for what no client has asked for yet."""
