"""Small records beside the content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..oci.digest import Digest
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

    async def is_shown(self, digest: Digest) -> bool:
        """Whether any repository is known to show it."""

    async def remove(self, repository: Repository, digests: Sequence[Digest]) -> None:
        """This repository is not known to show these, until it does again."""

    async def close(self) -> None: ...


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
