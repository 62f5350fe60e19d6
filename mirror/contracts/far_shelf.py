"""Hosted content in an object store, where every node has it.

What is there of a digest, and whether it is about to go, is told by a row of the records: a push
and a removal of the same content go one after the other, on whichever nodes, by that row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from .context import RequestContext
from .files import OpenFile
from .registry import FileContent
from .uploads import Held


class Gone(Exception):
    """Content that was to be recorded was removed from the object store meanwhile, or is just being
    removed. Nothing was recorded."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(digest)
        self.digest = digest


@dataclass(frozen=True, slots=True)
class Kept:
    """A piece of content in the object store; `at`: when it was written there, in seconds since
    the epoch."""

    digest: Digest
    size: int
    at: float


class ShelfRecords(Protocol):
    """What there may be in the object store. Each method is one transaction.

    Whoever removes content marks its row first, removes the object, and then the row. Nobody
    records a row that is marked (see Gone): who pushes the same content waits until it is gone. A
    mark of a collector that has died is taken over by the next one that collects alone.
    """

    async def hold(self, digest: Digest, size: int, now: float) -> bool:
        """There may be such an object from now on; False while it is being removed."""

    async def begin_removal(self, digest: Digest, held_before: float, now: float) -> int | None:
        """Marks the row, if it was held last before that moment and no record needs the content;
        its size, None where it stays. For the one who collects."""

    async def end_removal(self, digest: Digest) -> None:
        """The object is gone, and so is the row."""

    async def abandoned(self, digest: Digest, marked_before: float) -> bool:
        """Takes a mark away that was made before that moment, and whose collector has died; whether
        there is none any more."""

    async def held_far(
        self, held_before: float, after: Digest | None, count: int
    ) -> Sequence[Held]:
        """What was held last before that moment, or is marked, in the order of digests."""

    async def adopt(self, found: Collection[Kept]) -> int:
        """Objects that are there get rows, where they have none; how many had none."""


class FarShelf(Protocol):
    """Where a hosted registry's content is kept by all nodes."""

    async def bring_file(self, digest: Digest, file: OpenFile, size: int) -> None:
        """The first `size` bytes of this open file, which are proven, are there when this returns.
        Raises Unavailable, with the reason, when they cannot be brought there now."""

    async def bring(self, digest: Digest) -> int | None:
        """As `bring_file`, of what is here or there; its size, None when it is neither."""

    async def there(self, digests: Collection[Digest]) -> Collection[Digest]:
        """Which of these the object store lists. Raises FarFault."""


class FarReader(Protocol):
    """Reads what a FarShelf has."""

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a small content, proven; None when it is not there, or larger. Raises
        Unavailable."""

    def pieces(self, digest: Digest) -> AsyncIterator[bytes]:
        """All of a content, past the disk, unproven. Raises RegistryError."""

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None,
    ) -> FileContent:
        """Content that is not here, as it comes. Raises RegistryError."""
