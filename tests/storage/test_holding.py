"""Processes that hold, release and evict the same content at once, or are killed in the middle."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

ROOT = Path(__file__).parents[2]


def begin(root: Path, role: str, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.holders", str(root), role, str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_nothing_goes_behind_who_was_told_that_it_stays(tmp_path: Path) -> None:
    processes = [
        begin(tmp_path / "store", role, 2.0) for role in ("hold", "hold", "release", "evict")
    ]
    for process in processes:
        told, _ = process.communicate(timeout=60)
        lines = [line for line in told.splitlines() if line.startswith(("lost", "turns"))]
        assert process.returncode == 0, told
        assert int(lines[-1].split()[1]) > 10


async def test_who_is_killed_leaves_no_half_content_and_loses_nothing(tmp_path: Path) -> None:
    root, told = tmp_path / "store", set[str]()
    for _ in range(8):
        process = begin(root, "push", 60)
        time.sleep(random.random() * 0.2)  # noqa: ASYNC251 - any moment will do
        process.kill()
        output, _ = process.communicate(timeout=60)
        told |= {line for line in output.split("\n")[:-1] if line.startswith("sha256:")}
    assert told
    store = DiskContent(root, Bounds(1 << 30), sync=False, events=Events())
    await Upkeep(store, UpkeepPolicy(partial_ttl=86400)).mend()
    here = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    assert all(Digest.of(path.read_bytes()).hex == path.name for path in here)
    held = await store.held.held(float("inf"), None, 10_000)
    assert {str(each.digest) for each in held} == {f"sha256:{path.name}" for path in here} >= told
    index = store.async_index.index
    sessions = list((root / "partials" / "uploads").iterdir())
    assert len(sessions) <= 8
    taken = sum(index.taken(path.stat().st_size) for path in sessions)
    assert store.usage().reserved_bytes == taken
    assert store.usage().content_bytes == sum(index.taken(path.stat().st_size) for path in here)
    await Upkeep(store, UpkeepPolicy(partial_ttl=-1)).tidy()
    assert store.usage().reserved_bytes == 0
    assert list((root / "partials" / "uploads").iterdir()) == []
    await store.close()
