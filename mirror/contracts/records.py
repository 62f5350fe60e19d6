"""Small records beside the content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.errors import Denied, Unknown
from ..oci.reference import Repository


class Links(Protocol):
    """Which repositories have shown which digests: content is shared by all, but given only through
    those. Bounded, and it outlives the process. Its faults are its own: what it cannot say, it
    does not know."""

    async def add(self, repository: Repository, digests: Sequence[Digest]) -> None:
        """This repository shows these now. On return, other processes know it too."""

    async def seen(self, repository: Repository, digest: Digest) -> float | None:
        """When the repository was last known to show it, in seconds since the epoch. A few
        microseconds."""

    async def seen_elsewhere(self, repository: Repository, digest: Digest) -> float | None:
        """As `seen`, to another node that this one trusts; None too where none can say, which takes
        `STORES.redis` seconds at most, and no time while that lasts."""

    async def is_shown(self, digest: Digest) -> bool:
        """Whether any repository is known to show it."""

    async def remove(self, repository: Repository, digests: Sequence[Digest]) -> None:
        """This repository is not known to show these, until it does again."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Absence:
    """A digest that a repository was said to lack: `since` so many seconds ago, and believed for
    `pause` seconds from then on."""

    kind: type[Unknown] | type[Denied]
    message: str
    pause: float
    since: float = 0.0


class Absences(Protocol):
    """What other nodes were told is missing. Its faults are its own."""

    def note(self, repository: Repository, digest: Digest, absence: Absence) -> None:
        """Tells the others, soon."""

    async def told(self, repository: Repository, digest: Digest) -> Absence | None:
        """What another node was told; None too where none can say, which takes `STORES.redis`
        seconds at most, and no time while that lasts."""

    def forget(self, repository: Repository, digest: Digest) -> None:
        """Nobody is to believe that any more."""


@dataclass(frozen=True, slots=True)
class ReferrerList:
    """The referrers of a subject: an OCI index with so many entries; when an upstream last said so,
    in seconds since the epoch."""

    data: bytes
    count: int
    checked_at: float


class ReferrerLists(Protocol):
    """The lists of referrers that upstreams gave. Bounded, and it outlives the process. Its faults
    are its own: what it cannot say, it does not know."""

    async def get(self, repository: Repository, subject: Digest) -> ReferrerList | None: ...

    async def put(self, repository: Repository, subject: Digest, kept: ReferrerList) -> None:
        """On return, other processes know it too; unless it is too long to be kept."""

    async def remove(self, repository: Repository, subjects: Sequence[Digest]) -> None:
        """Forgets their lists."""

    async def close(self) -> None: ...


class NoReferrerLists:
    """Keeps none."""

    async def get(self, repository: Repository, subject: Digest) -> ReferrerList | None:
        return None

    async def put(self, repository: Repository, subject: Digest, kept: ReferrerList) -> None: ...
    async def remove(self, repository: Repository, subjects: Sequence[Digest]) -> None: ...
    async def close(self) -> None: ...
