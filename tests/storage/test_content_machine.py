"""The store on disk against a model of it: any order of commits, losses, evictions and restarts."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mirror.clock import Clock
from mirror.contracts.content import Partial, StoreFull
from mirror.contracts.files import OpenFile
from mirror.contracts.registry import FileContent
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

ROOM = 1000

# Some fit together, some only alone, and one is empty.
BLOBS = {
    Digest.of(data): data
    for data in (bytes([number]) * size for number, size in enumerate((0, 40, 150, 300, 450, 700)))
}

# SQLite waits for the disk when it is closed, and this closes it often.
_QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

T = TypeVar("T")

blobs = st.sampled_from(list(BLOBS))
workers = st.sampled_from((0, 1))


@dataclass
class Writer:
    """A partial that is held."""

    partial: Partial
    written: bytes


@dataclass
class Reader:
    """An open file, and what it has to give whatever happens to its name."""

    content: FileContent
    data: bytes


class ContentMachine(RuleBasedStateMachine):
    """Two stores on one path, as two workers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1_000_000.0
        self.root = Path(tempfile.mkdtemp(prefix="content-machine-", dir=_QUICK))
        self.stores = [self.a_store(), self.a_store()]
        self.writers: dict[Digest, Writer] = {}
        self.suspended: dict[Digest, bytes] = {}
        self.readers: list[Reader] = []
        self.followers: list[tuple[OpenFile, bytes]] = []
        self.pinned: dict[str, Digest] = {}

    def a_store(self) -> DiskContent:
        clock = Clock(wall=lambda: self.now)
        return DiskContent(
            self.root, Bounds(ROOM, block=1), sync=False, clock=clock, events=Events()
        )

    def run(self, work: Coroutine[object, object, T]) -> T:
        self.now += 1
        done = self.loop.run_until_complete(work)
        for store in self.stores:  # what it does behind is done before anybody looks
            self.loop.run_until_complete(asyncio.wait_for(_idle(store), 10))
        return done

    def teardown(self) -> None:
        for reader in self.readers:
            self.run(_close(reader.content))
        for file, _ in self.followers:
            self.run(_close(file))
        for writer in self.writers.values():
            self.run(writer.partial.suspend())
        for store in self.stores:
            self.run(store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.root)

    # What writers do.

    @rule(worker=workers, digest=blobs)
    def begin(self, worker: int, digest: Digest) -> None:
        partial = self.run(self.stores[worker].partial(digest))
        assert (partial is None) == (digest in self.writers), "one writer a digest"
        if partial is not None:
            written = self.suspended.pop(digest, b"")
            assert partial.offset == len(written)
            self.writers[digest] = Writer(partial, written)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), beyond=st.sampled_from((0, 0, 0, 600, ROOM)))
    def announce(self, data: st.DataObject, beyond: int) -> None:
        digest, writer = self.a_writer(data)
        size = max(len(BLOBS[digest]) + beyond, len(writer.written))
        try:
            self.run(writer.partial.announce(size))
        except StoreFull:
            assert size + self.kept_by_others(digest) > ROOM, "there was room"

    @precondition(lambda self: self.writers)
    @rule(
        data=st.data(), count=st.integers(1, 500), right=st.sampled_from((True, True, True, False))
    )
    def append(self, data: st.DataObject, count: int, right: bool) -> None:
        digest, writer = self.a_writer(data)
        offset = len(writer.written)
        piece = BLOBS[digest][offset : offset + count] if right else b"?" * count
        try:
            self.run(writer.partial.append([piece[:7], piece[7:]]))
        except StoreFull:
            # Also where the whole of it, as announced, could not be kept.
            wanted = max(offset + len(piece), writer.partial.size or 0)
            assert wanted + self.kept_by_others(digest) > ROOM, "there was room"
        else:
            writer.written += piece
        assert writer.partial.offset == len(writer.written)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), needs=st.sets(blobs, max_size=2))
    def commit(self, data: st.DataObject, needs: set[Digest]) -> None:
        digest, writer = self.a_writer(data)
        del self.writers[digest]
        try:
            self.run(writer.partial.commit(sorted(needs - {digest}, key=str)))
        except Untrustworthy:
            assert writer.written != BLOBS[digest]
        else:
            assert writer.written == BLOBS[digest]
            assert self.content(digest) == writer.written

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """The usual way of a fill, which chance alone takes too seldom."""
        digest, writer = self.a_writer(data)
        if BLOBS[digest].startswith(writer.written):
            self.run(self.stores[0].space.make(ROOM))
            try:
                self.run(writer.partial.append([BLOBS[digest][len(writer.written) :]]))
            except StoreFull:
                return
            del self.writers[digest]
            self.run(writer.partial.commit())
            assert self.content(digest) == BLOBS[digest]

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def suspend(self, data: st.DataObject) -> None:
        digest, writer = self.a_writer(data)
        del self.writers[digest]
        self.run(writer.partial.suspend())
        if writer.written:
            self.suspended[digest] = writer.written

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        digest, writer = self.a_writer(data)
        del self.writers[digest]
        self.run(writer.partial.discard())

    # What readers do.

    @rule(worker=workers, digest=blobs)
    def open(self, worker: int, digest: Digest) -> None:
        content = self.run(self.stores[worker].open(digest))
        assert (content is not None) == self.path(digest).is_file()
        if content is not None:
            self.readers.append(Reader(content, BLOBS[digest]))

    @rule(worker=workers, digest=blobs)
    def read(self, worker: int, digest: Digest) -> None:
        data = self.run(self.stores[worker].read(digest, ROOM))
        assert data == (BLOBS[digest] if self.path(digest).is_file() else None)

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        _, writer = self.a_writer(data)
        self.followers.append((writer.partial.open(), writer.written))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        self.readers.remove(reader)
        self.run(_close(reader.content))

    # What happens to content.

    @rule(worker=workers, digest=blobs)
    def delete(self, worker: int, digest: Digest) -> None:
        self.run(self.stores[worker].delete(digest))
        assert not self.path(digest).exists()

    @rule(worker=workers, wanted=st.integers(0, ROOM))
    def evict(self, worker: int, wanted: int) -> None:
        pinned = [digest for digest in self.pinned.values() if self.path(digest).exists()]
        self.run(self.stores[worker].space.make(wanted))
        assert all(self.path(digest).exists() for digest in pinned)

    @rule(worker=workers, name=st.sampled_from(("redis:7", "redis:8")), digest=blobs)
    def pin(self, worker: int, name: str, digest: Digest) -> None:
        self.pinned[name] = digest
        self.run(self.stores[worker].pin(name, digest))

    @rule(digest=blobs)
    def rot(self, digest: Digest) -> None:
        """Its file is another, shorter one, and is asked for."""
        if self.path(digest).is_file() and BLOBS[digest]:
            # A new file: who reads the old one is none of this rule's business.
            self.path(digest).unlink()
            self.path(digest).write_bytes(BLOBS[digest][1:])
            assert self.content(digest) is None
            assert not self.path(digest).exists()

    # What happens to the mirror.

    @rule(worker=workers)
    def restart(self, worker: int) -> None:
        for digest, writer in list(self.writers.items()):
            del self.writers[digest]
            self.run(writer.partial.suspend())
            if writer.written:
                self.suspended[digest] = writer.written
        self.run(self.stores[worker].close())
        self.stores[worker] = self.a_store()

    @rule()
    def restart_without_index(self) -> None:
        self.restart(0)
        for store in self.stores:
            self.run(store.close())
        for file in self.root.glob("index.db*"):
            file.unlink()
        self.stores = [self.a_store(), self.a_store()]
        self.pinned.clear()
        self.run(Upkeep(self.stores[0], UpkeepPolicy()).mend())

    # What holds after each of these.

    @invariant()
    def a_visible_digest_has_its_bytes(self) -> None:
        for path in self.visible():
            digest = Digest("sha256", path.name)
            assert path.read_bytes() == BLOBS[digest]

    @invariant()
    def the_account_is_what_is_there(self) -> None:
        sizes = [path.stat().st_size for path in self.visible()]
        there = sum(len(writer.written) for writer in self.writers.values())
        there += sum(map(len, self.suspended.values()))
        for store in self.stores:
            usage = store.usage()
            assert (usage.content_bytes, usage.entries) == (sum(sizes), len(sizes))
            assert usage.reserved_bytes >= there
            if not self.writers:
                assert usage.reserved_bytes == there

    @invariant()
    def it_keeps_within_its_room(self) -> None:
        usage = self.stores[0].usage()
        assert usage.content_bytes + usage.reserved_bytes <= ROOM
        partials = [path.stat().st_size for path in (self.root / "partials").rglob("*/*")]
        assert usage.content_bytes + sum(partials) <= ROOM

    @invariant()
    def a_reader_finishes(self) -> None:
        for reader in self.readers:
            assert self.run(reader.content.readable(0)) == len(reader.data)
            assert os.pread(reader.content.fileno(), ROOM, 0) == reader.data
        for file, written in self.followers:
            assert file.pread(len(written), 0) == written

    # Helpers.

    def a_writer(self, data: st.DataObject) -> tuple[Digest, Writer]:
        digest = data.draw(st.sampled_from(sorted(self.writers, key=str)))
        return digest, self.writers[digest]

    def kept_by_others(self, digest: Digest) -> int:
        """Bytes that eviction cannot have for this digest: promised, or pinned with their needs."""
        usage, index = self.stores[0].usage(), self.stores[0].async_index.index
        mine = sum(index.held(each) for each in index.reservations() if each.digest == digest)
        return usage.reserved_bytes - mine + usage.content_bytes

    def content(self, digest: Digest) -> bytes | None:
        content = self.run(self.stores[0].open(digest))
        if content is None:
            return None
        try:
            return os.pread(content.fileno(), ROOM, 0)
        finally:
            self.run(_close(content))

    def path(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex

    def visible(self) -> list[Path]:
        return [path for path in (self.root / "blobs").rglob("*/*/*") if path.is_file()]


async def _idle(store: DiskContent) -> None:
    while store._behind:
        await asyncio.wait(store._behind)


async def _close(content: FileContent | OpenFile) -> None:
    content.close()


TestContentMachine = ContentMachine.TestCase
TestContentMachine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, print_blob=True
)
