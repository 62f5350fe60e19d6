"""One of several processes on a store: `python -m tests.storage.holders ROOT ROLE SECONDS [SEED]`.

`hold` pushes, puts and holds a few pieces again and again, and fails where one is gone that it was
just told of. `release` and `evict` have them go meanwhile. `push` uploads for ever, and prints each
digest when it was told that this is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk import removal
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

PIECES = [bytes([n]) * 5_000 for n in range(40)]
YOUNG = 0.1  # seconds: what was held within that time is not released


class Pieces:
    """A Body of a few."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    async def read(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
        for at in range(0, len(self._data), 1 << 16):
            await asyncio.to_thread(take, self._data[at : at + (1 << 16)])


async def push(store: DiskContent, data: bytes) -> None:
    session = await store.uploads.begin("a")
    await store.uploads.append("a", session, 0, Pieces(data))
    await store.uploads.finish("a", session, Digest.of(data))


async def hold(store: DiskContent, data: bytes) -> None:
    digest, began = Digest.of(data), time.time()
    match random.randrange(3):
        case 0:
            await push(store, data)
        case 1:
            await store.held.put_held(digest, data)
        case 2:
            if random.randrange(2):
                await store.put(digest, data)  # a row, where it was nothing
            if await store.held.hold(digest) is None:
                return
    here = store.blobs.is_here(digest)
    if not here and time.time() - began < YOUNG:
        print("lost", digest, flush=True)
        sys.exit(1)


def slow_disk() -> None:
    """A file is still there for a while after it was to be removed."""
    unlink = removal._Unlinking.unlink

    def slowly(self: removal._Unlinking) -> None:
        time.sleep(0.003)
        unlink(self)

    removal._Unlinking.unlink = slowly  # type: ignore[method-assign]


async def release(store: DiskContent, _: bytes) -> None:
    before = time.time() - YOUNG
    for each in await store.held.held(before, None, 1000):
        await store.held.release(each.digest, before)


async def evict(store: DiskContent, data: bytes) -> None:
    await store.evict([Digest.of(data)])
    await store.purge([Digest.of(data)])


async def push_for_ever(store: DiskContent, _: bytes) -> None:
    data = hashlib.shake_256(str(time.time_ns()).encode()).digest(random.randrange(300_000))
    await push(store, data)
    print(Digest.of(data), flush=True)


ROLES = {"hold": hold, "release": release, "evict": evict, "push": push_for_ever}


async def main(root: Path, role: str, seconds: float) -> None:
    store = DiskContent(root, Bounds(1 << 30), sync=False, events=Events())
    if role in ("release", "evict"):
        slow_disk()
    print("ready", flush=True)
    until = time.time() + seconds
    turns = 0
    while time.time() < until:
        await ROLES[role](store, PIECES[turns % len(PIECES)])
        turns += 1
    print("turns", turns, flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
