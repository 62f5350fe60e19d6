"""What is pushed to a disk that takes no more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.contracts.content import StoreFull
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ..bodies import MIB
from .mounts import Mounts, fill_up

DISK = 24 * MIB
DATA = os.urandom(8 * MIB)


class Pieces:
    """A Body; `midway` is done before its last piece."""

    def __init__(self, data: bytes, midway: Callable[[], object] = lambda: None) -> None:
        self._data = data
        self._midway = midway
        self.size = None

    async def read(self) -> bytes:
        raise NotImplementedError

    async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
        for at in range(0, len(self._data), MIB):
            if at + MIB >= len(self._data):
                self._midway()
            await asyncio.to_thread(take, self._data[at : at + MIB])


def free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("known", [True, False], ids=["known to be full", "filled by others"])
async def test_a_push_that_finds_no_room_leaves_nothing_of_itself(
    mounts: Mounts, known: bool
) -> None:
    disk = mounts.tmpfs(DISK)
    store = DiskContent(disk / "store", Bounds(1 << 30), events=Events())
    held = Digest.of(b"held")
    await store.held.put_held(held, b"held")
    session = await store.uploads.begin("team/app")
    before, ballast = free(disk), list[Path]()
    body = Pieces(DATA * 4) if known else Pieces(DATA, lambda: ballast.append(fill_up(disk)))
    with pytest.raises(StoreFull):
        await store.uploads.append("team/app", session, 0, body)
    for path in ballast:
        path.unlink()
    assert await store.uploads.size("team/app", session) == 0
    assert before - free(disk) < MIB
    assert store.usage().reserved_bytes == 0
    assert await store.held.hold(held) == 4

    assert await store.uploads.append("team/app", session, 0, Pieces(DATA)) == len(DATA)
    assert await store.uploads.finish("team/app", session, Digest.of(DATA)) == len(DATA)
    assert await store.verify(Digest.of(DATA))
    await store.close()
