"""The power goes: what was not synced may be lost, whole or in part.

The model: a file keeps what it had when it was last synced; behind that are zeros, or nothing. A
name that was given after its folder was last synced is there or is not. The databases sync by
themselves, out of sight, so they are there as they were, or without their log, or not at all.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.shared import Shared
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent
from mirror.storage.disk.upkeep import Upkeep, UpkeepPolicy

from ...fakes import CONTEXT, FakeTags, FakeUpstream
from ...storage.content_contract import content, put
from ...waiting import eventually

REDIS = Repository("docker.io", "library/redis")
ROOM = Bounds(100 << 20)
BLOBS = [os.urandom(size) for size in (0, 10, 5000, 300_000)]
WHOLE = os.urandom(3 << 20)


class Disk:
    """Watches what is synced, and can tell what is left when the power goes."""

    def __init__(self) -> None:
        self._synced: dict[tuple[int, int], int | set[str]] = {}

    def sync(self, fd: int) -> None:
        found = os.fstat(fd)
        folder = os.path.isdir(f"/proc/self/fd/{fd}")
        self._synced[found.st_dev, found.st_ino] = set(os.listdir(fd)) if folder else found.st_size

    def after_power_cut(
        self, root: Path, copy: Path, *, zeros: bool, names: bool, databases: str
    ) -> Path:
        """The store as it is found: with `zeros` in the place of what was not synced, or shorter;
        with the `names` that were not synced, or without them."""
        for folder, _, files in os.walk(root):
            target = copy / Path(folder).relative_to(root)
            target.mkdir(mode=0o700)
            for name in files:
                path = Path(folder, name)
                if ".db" in name:
                    if databases == "all" or (databases == "no log" and name.endswith(".db")):
                        shutil.copyfile(path, target / name)
                elif names or path.parent.name in ("sha256",) or name in self._names(path.parent):
                    data = path.read_bytes()
                    kept = self._length(path)
                    (target / name).write_bytes(
                        data[:kept] + (bytes(len(data) - kept) if zeros else b"")
                    )
        return copy

    def _length(self, path: Path) -> int:
        length = self._synced.get(_identity(path), 0)
        assert isinstance(length, int)
        return length

    def _names(self, folder: Path) -> set[str]:
        names = self._synced.get(_identity(folder), set())
        assert isinstance(names, set)
        return names


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, disk.sync)
    return disk


CUTS = [
    {"zeros": zeros, "names": names, "databases": databases}
    for zeros, names, databases in itertools.product(
        (True, False), (True, False), ("all", "no log", "none")
    )
]


@pytest.fixture(params=["full", "none"])
async def store(
    tmp_path: Path, disk: Disk, request: pytest.FixtureRequest
) -> AsyncIterator[DiskContent]:
    """With content in it, and a partial, at the moment at which the power goes."""
    store = DiskContent(tmp_path / "store", ROOM, sync=request.param == "full", events=Events())
    for data in BLOBS:
        await put(store, data)
    partial = await store.partial(Digest.of(WHOLE))
    assert partial is not None
    await partial.announce(len(WHOLE))
    await partial.append([WHOLE[: 2 << 20]])
    yield store
    await partial.discard()
    await store.close()


def copies(store: DiskContent, disk: Disk, folder: Path) -> Iterator[Path]:
    for number, cut in enumerate(CUTS):
        yield disk.after_power_cut(store.root, folder / f"copy{number}", **cut)  # type: ignore[arg-type]


async def test_f39_after_a_power_cut_nothing_wrong_is_visible_or_it_is_found(
    store: DiskContent, disk: Disk, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    durable = request.node.callspec.params["store"] == "full"
    for copy in copies(store, disk, tmp_path):
        found = DiskContent(copy, ROOM, events=Events())
        if not durable:  # as the configuration says: found, if later
            async for _ in Upkeep(found, UpkeepPolicy(scrub_speed=1e12)).scrub():
                pass
        for data in BLOBS:
            assert await content(found, Digest.of(data)) in (data, None)
        assert not durable or not list((copy / "quarantine").iterdir())
        await found.close()


@pytest.mark.parametrize("store", ["full"], indirect=True)
async def test_f39_with_durability_full_what_was_committed_is_there(
    store: DiskContent, disk: Disk, tmp_path: Path
) -> None:
    for copy in copies(store, disk, tmp_path):
        found = DiskContent(copy, ROOM, events=Events())
        for data in BLOBS:
            assert await content(found, Digest.of(data)) == data
        await found.close()


async def test_f39_a_partial_that_a_power_cut_spoilt_is_never_given_out_whole(
    store: DiskContent, disk: Disk, tmp_path: Path
) -> None:
    """Who asks first may be cut; then it is right; and the upstream is not blamed for it."""
    upstream = FakeUpstream()
    upstream.blobs[Digest.of(WHOLE)] = WHOLE
    for copy in copies(store, disk, tmp_path):
        found = DiskContent(copy, ROOM, events=Events())
        fills = Fills(
            found, Events(), patience=DownloadPatience(first_byte=1, stalled=1, pause=0.01)
        )
        cache = PullThrough(upstream, Shared.over(found, FakeTags(), fills))
        assert await _ask(cache) in (WHOLE, None)
        await eventually(lambda fills=fills: not fills.under_way)
        assert await _ask(cache) == WHOLE
        await eventually(lambda fills=fills: not fills.under_way)
        assert await content(found, Digest.of(WHOLE)) == WHOLE
        await fills.close()
        await cache.close()
        await found.close()
    assert upstream.rejected == []


async def _ask(cache: PullThrough) -> bytes | None:
    """What a client has when it believes that it has all; None when it was cut."""
    try:
        file = await cache.blob(CONTEXT, REDIS, Digest.of(WHOLE))
    except RegistryError:
        return None
    body = b""
    try:
        while (limit := await file.readable(len(body))) > len(body):
            body += file.pread(limit - len(body), len(body))
    except RegistryError:
        return None
    finally:
        file.close()
    return body
