"""Mirrors that fetch together: who of them fetches a content, and what the others read from it.

A lease is thrift and not a lock: content is named by its digest, so two nodes that fetch the same
waste bytes and harm nothing. Whatever is wrong with leases, nodes or what they say, a node fetches
for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Protocol

from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from .second_tier import TierStream

SOURCE = "fleet"
"""As which the other nodes are counted among the endpoints, all together."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A content of a registry. What registries send is not shared before it is proven."""

    registry: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Holder:
    """Another node that fetches a content, or has it (`is_here`). `url` is one of the nodes' (see
    Nodes). `note`: what is written of it where all nodes read it."""

    url: str
    is_here: bool = False
    note: bytes = b""


class Lease(Protocol):
    """This node fetches a content, and the others read from it. It is kept up by itself until it is
    given back, or the process dies."""

    @property
    def is_lost(self) -> bool:
        """Whether another node has it by now: this one stood still."""

    async def has_come(self) -> None:
        """The content is here whole: for a while, others are still sent here for it."""

    async def give_back(self) -> None:
        """Somebody else may fetch it now. Returns at once, also when Redis hangs."""


class Leases(Protocol):
    """Who fetches what."""

    async def ask(self, wanted: Wanted, instead: Holder | None = None) -> Lease | Holder | None:
        """The lease, for whoever asks first; who has it, for all others; None when nobody can say,
        which takes `STORES.redis` seconds at most, and no time while that lasts.

        A holder that dies is none any more after `FLEET.lease` seconds. `instead`: the lease is
        taken from this one, which was said to have the content, and does not give it.

        What the processes of one node hold, each of them holds: a node is never its own holder."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A node gives this content to as many as it may: these others are reading it too, and give
    what they have."""

    urls: Collection[str]


class Peers(Protocol):
    """The other nodes' content, as it comes to them. Nothing of it is proven."""

    async def content(
        self, url: str, wanted: Wanted, range: ByteRange | None = None
    ) -> TierStream | Elsewhere | None:
        """What that node has, or is fetching: from `range.start` on, at the pace at which it comes
        there. A stream ends early, with SecondTierFault, when the node fails, or gives no sign of
        life for `FLEET.silent` seconds. None when it has nothing of it, or gives none.

        A node answers out of what is there and what runs there. It never asks a third node or an
        upstream for another's sake, so no two wait for one another."""

    def is_away(self, url: str) -> bool:
        """Whether that node was not there when it was asked, less than `FLEET.rests` seconds ago:
        till then `content` is None at once."""

    def forgive(self, url: str) -> None:
        """That node is said to live: it is asked again."""

    async def close(self) -> None: ...


class Holding(Protocol):
    """What this process fetches for the others, too."""

    def fetches(self, wanted: Wanted) -> bool:
        """Whether it holds the lease: there may be nothing of it yet, and will be."""


class Nodes(Protocol):
    """The nodes of the fleet, as a list, DNS or Redis names them. It may lag by some seconds."""

    @property
    def own(self) -> str:
        """The URL by which others reach this one."""

    def knows(self, url: str) -> bool:
        """Whether this is one of the fleet: no other URL is ever asked, whoever names it."""

    async def look(self) -> None:
        """Finds out anew which nodes there are: somebody has told of one that is not known."""

    def url_of(self, mark: str) -> str | None:
        """The node of this `mark_of`, which stands in the ids of uploads."""


def mark_of(url: str) -> str:
    """What tells a node from the others in a few letters: ten hex digits of its URL's SHA-256."""
    return hashlib.sha256(url.encode()).hexdigest()[:10]


def source_of(url: str) -> str:
    """As what this node's bytes are noted: who lies is told from the others."""
    return f"{SOURCE} {mark_of(url)}"


def is_of_fleet(source: str) -> bool:
    """Whether another node is noted so: it has fetched what came from there."""
    return source.partition(" ")[0] == SOURCE
