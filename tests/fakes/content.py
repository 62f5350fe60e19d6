"""A ContentStore in memory, for tests that are not about a disk.

Its files are anonymous ones (memfd): the contract gives readers descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from mirror.clock import Clock
from mirror.contracts.content import Entry, Followed, StoreFull, Usage
from mirror.contracts.files import Hasher
from mirror.contracts.registry import Outcome, Provenance
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy
from mirror.oci.ranges import with_span


@dataclass
class _Kept:
    data: bytes
    refers_to: tuple[Digest, ...]
    used_at: float


class MemoryFile:
    """An OpenFile."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def of(cls, data: bytes) -> MemoryFile:
        fd = os.memfd_create("content")
        os.write(fd, data)
        return cls(fd)

    def fileno(self) -> int:
        return self._fd

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self._fd, count, offset)

    def again(self) -> MemoryFile:
        return MemoryFile(os.dup(self._fd))

    def close(self) -> None:
        os.close(self._fd)


class MemoryHit(MemoryFile):
    """A StoredContent."""

    provenance = Provenance.HERE

    def __init__(self, digest: Digest, data: bytes, outcome: Outcome) -> None:
        super().__init__(os.memfd_create("content"))
        os.write(self._fd, data)
        self.descriptor = Descriptor(OCTET_STREAM, digest, len(data))
        self.outcome = outcome

    async def proven(self) -> None:
        """It is."""

    def damaged(self, reason: str) -> None:
        raise AssertionError(reason)

    async def readable(self, beyond: int) -> int:
        assert self.descriptor.size is not None
        return self.descriptor.size


@dataclass
class MemoryPartial:
    """A Partial. `gaps` come with `place`: what is placed ahead is kept until it is joined."""

    store: MemoryContent
    digest: Digest
    key: tuple[Digest, str]
    size: int | None = None
    trusted: bool = False
    fd: int = field(default_factory=lambda: os.memfd_create("partial"))
    offset: int = 0
    placed: dict[int, int] = field(default_factory=dict)  # start → stop
    vouched: list[tuple[int, int]] = field(default_factory=list)

    @property
    def ahead(self) -> Sequence[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for start, stop in sorted(self.placed.items()):
            if spans and spans[-1][1] >= start:
                spans[-1] = spans[-1][0], max(stop, spans[-1][1])
            else:
                spans.append((start, stop))
        return spans

    @property
    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        return [span for span in self.vouched if span[1] > self.offset]

    async def announce(self, size: int) -> None:
        if size > self.store.max_bytes:
            raise StoreFull(f"{size} bytes are more than the store can hold")
        self.size = size

    async def append(self, pieces: Sequence[bytes]) -> None:
        await self.place(self.offset, pieces)

    async def place(self, at: int, pieces: Sequence[bytes], vouched: bool = False) -> None:
        data = b"".join(pieces)[max(0, self.offset - at) :]
        at = max(at, self.offset)
        if vouched:
            self.vouched = with_span(self.vouched, at, at + len(data))
        self.store.make_room(at + len(data))
        os.pwrite(self.fd, data, at)
        self.placed[at] = max(at + len(data), self.placed.get(at, 0))
        for start, stop in self.ahead:
            if start <= self.offset:
                self.offset = max(self.offset, stop)
        self.placed = {
            max(start, self.offset): stop
            for start, stop in self.placed.items()
            if stop > self.offset
        }

    async def prove(self) -> None:
        if not self.digest.matches(os.pread(self.fd, self.offset, 0)):
            await self.discard()
            raise Untrustworthy(f"the bytes are not those of {self.digest}")

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None:
        await self.prove()
        self.store.keep(self.digest, os.pread(self.fd, self.offset, 0), refers_to)
        await self.discard()

    async def suspend(self) -> None:
        if self.store.writing.get(self.key) is self:
            del self.store.writing[self.key]
            self.store.suspended[self.key] = self

    async def discard(self) -> None:
        for table in (self.store.writing, self.store.suspended):
            if table.get(self.key) is self:
                del table[self.key]

    def open(self) -> MemoryFile:
        return MemoryFile(os.dup(self.fd))

    def hasher(self) -> Hasher:
        hasher = self.digest.hasher()
        hasher.update(os.pread(self.fd, self.offset, 0))
        return hasher

    def __del__(self) -> None:
        os.close(self.fd)


class MemoryContent:
    """A ContentStore, of one process."""

    def __init__(self, max_bytes: int = 1 << 30, clock: Clock | None = None) -> None:
        self.max_bytes = max_bytes
        self.writing: dict[tuple[Digest, str], MemoryPartial] = {}
        self.suspended: dict[tuple[Digest, str], MemoryPartial] = {}
        self._clock = clock or Clock()
        self._kept: dict[Digest, _Kept] = {}
        self.pins: dict[str, Digest] = {}

    async def open(self, digest: Digest, outcome: Outcome = Outcome.HIT) -> MemoryHit | None:
        kept = self._kept.get(digest)
        if kept is None:
            return None
        self.touch(digest)
        return MemoryHit(digest, kept.data, outcome)

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        kept = self._kept.get(digest)
        if kept is None or len(kept.data) > limit:
            return None
        self.touch(digest)
        return kept.data

    async def put(
        self, digest: Digest, data: bytes, refers_to: Sequence[Digest] = (), source: str = ""
    ) -> bool:
        if (digest, source) in self.writing:
            return False
        if not digest.matches(data):
            raise Untrustworthy(f"the bytes are not those of {digest}")
        self.suspended.pop((digest, source), None)
        self.keep(digest, data, refers_to)
        return True

    async def partial(self, digest: Digest, source: str = "") -> MemoryPartial | None:
        key = (digest, source)
        if key in self.writing:
            return None
        partial = self.suspended.pop(key, None) or MemoryPartial(self, digest, key)
        self.writing[key] = partial
        return partial

    async def follow(self, digest: Digest, source: str = "") -> Followed | None:
        return None  # there is no other process

    def touch(self, digest: Digest) -> None:
        if digest in self._kept:
            self._kept[digest].used_at = self._clock.wall()

    def is_needed(self, digest: Digest) -> bool:
        return any(digest in kept.refers_to for kept in self._kept.values())

    def is_here(self, digest: Digest) -> bool:
        return digest in self._kept

    def size(self, digest: Digest) -> int:
        return len(self._kept[digest].data)

    async def pin(self, name: str, digest: Digest) -> None:
        self.pins[name] = digest

    async def delete(self, digest: Digest) -> None:
        self._kept.pop(digest, None)

    async def page(self, after: Digest | None, limit: int) -> Sequence[Entry]:
        names = sorted(
            (one for one in self._kept if after is None or str(one) > str(after)), key=str
        )
        kept = self._kept
        return [Entry(one, len(kept[one].data), kept[one].used_at) for one in names[:limit]]

    def usage(self) -> Usage:
        coming = {id(one): one.offset for one in (*self.writing.values(), *self.suspended.values())}
        return Usage(self._bytes, len(self._kept), sum(coming.values()), self.max_bytes)

    def keep(self, digest: Digest, data: bytes, refers_to: Sequence[Digest]) -> None:
        self.make_room(len(data))
        self._kept[digest] = _Kept(data, tuple(refers_to), self._clock.wall())

    def make_room(self, size: int) -> None:
        """Forgets what was used longest ago. Raises StoreFull."""
        if size > self.max_bytes:
            raise StoreFull(f"{size} bytes are more than the store can hold")
        pinned = set(self.pins.values())
        pinned |= {need for one in pinned & self._kept.keys() for need in self._kept[one].refers_to}
        while self._bytes + size > self.max_bytes:
            loose = [digest for digest in self._kept if digest not in pinned]
            if not loose:
                raise StoreFull("all that is here is pinned")
            del self._kept[min(loose, key=lambda digest: self._kept[digest].used_at)]

    @property
    def _bytes(self) -> int:
        return sum(len(kept.data) for kept in self._kept.values())
