"""Where verified bytes rest."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from ..frozen import dataclass
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from .files import Hasher, OpenFile
from .registry import FileContent, Outcome, Provenance

SMALL = 32 << 10
"""Bytes of content that is small: it is brought whole, in memory, and `put` keeps it for little."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of content in a store. `size` in bytes, `used_at` in seconds since the epoch."""

    digest: Digest
    size: int
    used_at: float


class StoreFull(Exception):
    """There is no room for these bytes: under the configured size, or on the disk. Or they cannot
    be counted, which comes to the same."""


class Partial(Protocol):
    """Content being written: append-only, hashed as it is written, visible under no name.

    One writer a digest, across processes. Readers hold an open file of their own (`open()`), which
    has the bytes below `offset`, and those of the spans `ahead`.
    """

    @property
    def digest(self) -> Digest: ...

    size: int | None
    """Of the whole, as it was announced, by an earlier writer if need be."""

    trusted: bool
    """Whether the size is the registry's own word. Else room is made for what comes within a share:
    what others may evict with bytes that prove to be wrong is little."""

    @property
    def offset(self) -> int:
        """Bytes written, which are or will be hashed: where a resumed download goes on."""

    async def announce(self, size: int) -> None:
        """The whole will have `size` bytes. Room is made as they come; raises StoreFull for more
        than could ever be kept."""

    async def append(self, pieces: Sequence[bytes]) -> None:
        """As `place`, at `offset`."""

    @property
    def ahead(self) -> Sequence[tuple[int, int]]:
        """What was placed behind `offset`: spans of bytes, in order, none of which touch."""

    @property
    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        """What of `ahead` the registry itself has sent, or somebody else who is not doubted (see
        StreamContent): readers may have it unproven."""

    async def place(self, at: int, pieces: Sequence[bytes], vouched: bool = False) -> None:
        """Writes these pieces, the first of them to the offset `at`, off the event loop. What is
        there below `offset` is passed over; what follows on it is hashed, and `offset` moves over
        what is there behind. `vouched`: as in `vouched_ahead`. The bytes of
        the pieces must not change any more: some are hashed later.

        Raises StoreFull when there is no room for them, OSError for other faults of the disk. Then
        `offset` tells how much was taken all the same.
        """

    async def prove(self) -> None:
        """All bytes are there: from now on other processes see that they are proven
        (`Followed.state`). Waits for no disk. Raises Untrustworthy, and removes what was written,
        when they are not those that the digest names."""

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        """As `prove`; then makes the content visible under its digest, durably.

        `refers_to` is what this content needs to be of use: it is kept as long as this is kept.
        """

    async def suspend(self) -> None:
        """Stops writing and keeps what is there, to be resumed by the next writer."""

    async def discard(self) -> None:
        """Removes what was written."""

    def open(self) -> OpenFile:
        """The growing file, for a reader to keep and close. Raises OSError."""

    def hasher(self) -> Hasher:
        """The hash of the bytes up to `offset`, to be continued elsewhere."""


class Followed(Protocol):
    """Content that another process is writing, seen from here."""

    @property
    def size(self) -> int | None:
        """The size of the whole, as its writer announced it; None when it has not."""

    def written(self) -> int:
        """Bytes written by now without a gap, not yet proven."""

    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        """As Partial.vouched_ahead, by now. What is joined to the beginning meanwhile is in
        `written`, if that is asked for after this."""

    def state(self) -> WriterState:
        """What has become of it."""

    def open(self) -> OpenFile:
        """As Partial.open."""

    def close(self) -> None: ...


class WriterState(Enum):
    WRITING = "writing"  # or killed: the next that gets the lock (`partial`) knows
    PROVEN = "proven"  # all of it is there, and on its way to its name
    KEPT = "kept"  # it has its name now
    GONE = "gone"  # removed: it was wrong, or there was no room


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store holds: bytes and entries of content, bytes reserved for partials."""

    content_bytes: int
    entries: int
    reserved_bytes: int
    max_bytes: int


class StoredContent(FileContent, OpenFile, Protocol):
    """Content of a store, open: whole and proven."""


@dataclass(frozen=True, slots=True)
class ContentInMemory:
    """A StoredContent whose bytes are in memory, whole and proven."""

    data: bytes
    descriptor: Descriptor
    outcome: Outcome
    provenance: Provenance = Provenance.HERE

    @property
    def size(self) -> int:
        return len(self.data)

    def fileno(self) -> int:
        return -1

    def pread(self, count: int, offset: int) -> bytes:
        return self.data[offset : offset + count]

    def again(self) -> ContentInMemory:
        return self

    def close(self) -> None:
        """Nothing is open."""

    def damaged(self, reason: str) -> None:
        """Memory is read, whatever becomes of the disk."""

    async def proven(self) -> None:
        """It is."""

    async def readable(self, beyond: int) -> int:
        return len(self.data)


class ContentStore(Protocol):
    """Holds verified bytes only; a caller cannot make it hold anything else."""

    async def open(self, digest: Digest, outcome: Outcome = Outcome.HIT) -> StoredContent | None:
        """The content, if it is here.

        `outcome` is what the content is to say of how it came to be here."""

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        """The whole of a small content, if it is here; its digest is proven again.

        What is damaged, or larger than `limit` bytes, is not here.
        """

    async def put(
        self, digest: Digest, data: bytes, refers_to: Sequence[Digest] = (), source: str = ""
    ) -> bool:
        """Keeps small content whose bytes are all here, as this source gave them; see
        Partial.commit. False: not, as somebody else is just writing it. Raises StoreFull, OSError,
        Untrustworthy."""

    async def partial(self, digest: Digest, source: str = "") -> Partial | None:
        """Begins or resumes writing what comes from this source; None when somebody else is writing
        it. What other sources send is neither seen nor touched: nothing of it is proven."""

    async def follow(self, digest: Digest, source: str = "") -> Followed | None:
        """What another process is writing of this source; None when none is."""

    def touch(self, digest: Digest) -> None:
        """Notes that this content was used now, and with it what it refers to."""

    def is_needed(self, digest: Digest) -> bool:
        """Whether content that is here refers to this as what it needs. A few microseconds."""

    async def pin(self, name: str, digest: Digest) -> None:
        """Keeps this content, and all that it needs, whatever its age; in place of what was kept
        under this name before."""

    async def delete(self, digest: Digest) -> None: ...

    async def page(self, after: Digest | None, limit: int) -> Sequence[Entry]:
        """Content in the order of digests, after this one. May raise whatever the store's records
        fail with."""

    def usage(self) -> Usage: ...


class Claims(Protocol):
    """Who of a node's processes just brings which small content. Each call takes microseconds."""

    def take(self, digest: Digest) -> bool:
        """Whether it is the caller who brings it, from now on until `give`."""

    def give(self, digest: Digest) -> None:
        """Brought, or not: another may."""
