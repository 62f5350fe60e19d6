"""A process that fills a store until it is killed: `python -m tests.faults.disk.filler ROOT SEED`.

It is a mirror without its network, so that it begins in no time: the cache and the store are the
real ones. Its log has `begun`, and a line for each download that went on from what was there.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

from ...fakes import CONTEXT, FakeTags, FakeUpstream

KIB = 1 << 10
REDIS = Repository("docker.io", "library/redis")
BLOBS = {
    Digest.of(data): data
    for data in (random.Random(size).randbytes(size * KIB) for size in range(0, 1600, 160))
}
ROOM = sum(map(len, BLOBS.values())) // 2  # so that it evicts


class Told(FakeUpstream):
    """In small pieces, with a moment between them; it tells of each part that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.piece = 32 * KIB
        self.blobs = dict(BLOBS)
        self.before_read = self._moment  # type: ignore[assignment]

    async def _moment(self, position: int) -> None:
        if position and self.ranges and self.ranges[-1] is not None:
            self.ranges.append(None)
            print("resumed", flush=True)
        await asyncio.sleep(0)


async def fill(root: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = DiskContent(root, Bounds(ROOM), sync=chance.random() < 0.5, events=Events())
    fills = Fills(store, Events(), patience=DownloadPatience(pause=0.01))
    cache = PullThrough(Told(), Shared.over(store, FakeTags(), fills))
    upkeep = asyncio.create_task(Upkeep(store, UpkeepPolicy(every=0.01)).run())
    print("begun", flush=True)

    async def client() -> None:
        while True:
            content = await cache.blob(CONTEXT, REDIS, chance.choice(list(BLOBS)))
            offset = 0
            while (limit := await content.readable(offset)) > offset:
                offset = limit
            content.close()
            if chance.random() < 0.2:
                await store.delete(chance.choice(list(BLOBS)))

    await asyncio.gather(upkeep, *(client() for _ in range(4)))


if __name__ == "__main__":
    asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2])))
