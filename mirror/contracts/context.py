"""For whom something is done: handed from the server to the innermost, as a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Protocol


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


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a client has proven to be; `name` "" for one that has proven nothing."""

    name: str


ANONYMOUS = Principal("")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request, an Asker: the first parameter of whatever is done for it.

    `request_id` tells it from others, in logs and answers. `deadline` is when whoever asked stops
    waiting, in seconds of the monotonic clock.
    """

    request_id: str
    client: str
    principal: Principal = ANONYMOUS
    deadline: float = inf

    @property
    def is_wanted(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Ahead:
    client: str = "ahead of clients"
    is_wanted: bool = False


AHEAD: Asker = _Ahead()
"""Asks for what no client has asked for yet."""
