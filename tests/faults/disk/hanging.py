"""A process whose disk syncs for ever: `python -m tests.faults.disk.hanging ROOT`.

It fetches a blob, as a mirror does. Its log has `proven` when all of it is proven, and waits for
the disk from then on.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from ...fakes import CONTEXT, REDIS, FakeTags, FakeUpstream

BLOB = random.Random(5).randbytes(2 << 20)


def hang(fd: int) -> None:
    print("proven", flush=True)
    time.sleep(600)


async def fetch(root: Path) -> None:
    os.fdatasync = hang  # type: ignore[assignment]
    store = DiskContent(root, Bounds(1 << 30), events=Events())
    upstream = FakeUpstream()
    upstream.blobs[Digest.of(BLOB)] = BLOB
    cache = PullThrough(upstream, Shared.over(store, FakeTags(), Fills(store, Events())))
    await (await cache.blob(CONTEXT, REDIS, Digest.of(BLOB))).proven()


if __name__ == "__main__":
    asyncio.run(fetch(Path(sys.argv[1])))
