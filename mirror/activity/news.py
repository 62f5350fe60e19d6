"""What one process tells of a second, as data that JSON can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from typing import Any

from ..contracts.activity import Download, EndpointState, Happening, PullRequest
from ..frozen import dataclass
from ..told import read_as


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and what it named. `digest`: what its tag pointed to."""

    registry: str
    repository: str
    request: PullRequest
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Evicted:
    """This content made room."""

    digest: str
    at: float
    size: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one second, exact whatever is told one by one. `served`: bytes that went to clients, also
    of requests that go on; `first_bytes`: how many answers began within which step, see steps.py.
    """

    requests: int = 0
    hits: int = 0
    served: int = 0
    fetched: int = 0
    evicted: int = 0
    evicted_bytes: int = 0
    first_bytes: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class News:
    """`requests` are over. `running` and `downloads` are some of those under way, `endpoints` all
    of which anything is known: each as it is now. `untold`: requests for which there was no room.
    """

    counts: Counts = field(default_factory=Counts)
    requests: Sequence[Asked] = ()
    running: Sequence[Asked] = ()
    requests_running: int = 0
    downloads: Sequence[Download] = ()
    downloads_running: int = 0
    downloads_queued: int = 0
    happenings: Sequence[Happening] = ()
    endpoints: Sequence[EndpointState] = ()
    evicted: Sequence[Evicted] = ()
    untold: int = 0


def to_json(news: News) -> dict[str, Any]:
    return asdict(news)


def from_json(data: object) -> News:
    """Raises ValueError for what is none."""
    return read_as(News, data)
