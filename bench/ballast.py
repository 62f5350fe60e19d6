"""Makes a mirror's store as large as wanted, faster than by pulling."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence

from mirror.clock import Clock
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.storage.disk.index import Arrival, Index, record
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.records.links import LinkRecords

from .corpus import REPOSITORY, Blob
from .servers import Server

SIZE = 4096
_BATCH = 100_000
_NAMES = 50_000  # of one file, of which ext4 allows 65,000
_LINKS = 500_000  # as many are remembered at least: the mirror drops what is beyond a bound


class Ballast:
    """Blobs that nobody brought: each has its file and its record, and the repository shows it.

    The files are names of a few files with the same bytes, which are not what the digests name:
    nobody hashes a blob on the way of a hit. The mirror may run meanwhile, as if another of its
    processes had fetched them.
    """

    def __init__(self, mirror: Server) -> None:
        self._root = mirror.program.folder / "data"
        self._file = mirror.program.folder / "ballast"
        self._count = 0

    def grow(self, count: int) -> None:
        """To so many blobs in all."""
        asyncio.run(self._grow(count))

    def blobs(self, numbers: Sequence[int]) -> list[Blob]:
        """Some of them, by their numbers. They are shown from now on, whatever was forgotten."""
        digests = [_digest(number) for number in numbers]
        asyncio.run(self._show(digests))
        return [Blob(str(digest), self._file, SIZE) for digest in digests]

    async def _grow(self, count: int) -> None:
        index = Index(self._root / "index.db", 1 << 40)
        store = DiskContent(self._root, Bounds(1 << 40), events=Events())
        directories = self._root / "blobs/sha256"
        for prefix in range(256):
            (directories / f"{prefix:02x}").mkdir(exist_ok=True)
        try:
            for begin in range(self._count, count, _BATCH):
                # In the order of the table and the directories: each page is written once.
                numbers = range(begin, min(begin + _BATCH, count))
                digests = sorted(map(_digest, numbers), key=lambda digest: digest.hex)
                for number, digest in zip(numbers, digests, strict=True):
                    if number % _NAMES == 0:
                        self._begin_file()
                    os.link(self._file, f"{directories}/{digest.hex[:2]}/{digest.hex}")
                arrivals = [Arrival(digest, SIZE) for digest in digests]
                with index.database.transaction() as db:
                    record(db, arrivals, 1.0)
                if begin < _LINKS:
                    await self._show(digests)
        finally:
            index.close()
            await store.close()
        self._count = max(self._count, count)

    def _begin_file(self) -> None:
        self._file.unlink(missing_ok=True)
        self._file.write_bytes(b"ballast\n" * (SIZE // 8))

    async def _show(self, digests: Sequence[Digest]) -> None:
        links = LinkRecords(self._root / "links.db", Clock())
        try:
            await links.add(Repository("docker.io", REPOSITORY), digests)
        finally:
            await links.close()


def _digest(number: int) -> Digest:
    return Digest("sha256", hashlib.sha256(f"ballast {number}".encode()).hexdigest())
