"""A folder as a second tier."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.contracts.second_tier import SecondTierFault
from mirror.storage.second_tier.folder import FolderTier

from .second_tier_contract import DATA, DIGEST, SecondTierContract, put


@pytest.fixture
async def tier(tmp_path: Path) -> AsyncIterator[FolderTier]:
    tier = FolderTier(tmp_path / "tier")
    yield tier
    await tier.close()


@pytest.fixture
async def broken(tmp_path: Path) -> AsyncIterator[FolderTier]:
    (tmp_path / "file").write_text("no folder")
    tier = FolderTier(tmp_path / "file")
    yield tier
    await tier.close()


class TestFolderTier(SecondTierContract):
    """The contract."""


def _file(tmp_path: Path) -> Path:
    return tmp_path / "tier" / DIGEST.algorithm / DIGEST.hex[:2] / DIGEST.hex


async def test_nothing_half_written_is_left(tier: FolderTier, tmp_path: Path) -> None:
    assert not await put(tier, DATA, DIGEST, len(DATA) + 1)
    assert list((tmp_path / "tier" / "coming").iterdir()) == []


async def test_what_a_killed_process_left_long_ago_is_removed(
    tier: FolderTier, tmp_path: Path
) -> None:
    coming = tmp_path / "tier" / "coming"
    coming.mkdir(parents=True)
    (coming / "old").touch()
    (coming / "new").touch()
    os.utime(coming / "old", (0, 0))
    assert await put(tier, DATA, DIGEST)
    assert [path.name for path in coming.iterdir()] == ["new"]


async def test_a_file_that_became_shorter_is_a_fault(tier: FolderTier, tmp_path: Path) -> None:
    await put(tier, DATA, DIGEST)
    stream = await tier.get(DIGEST)
    assert stream is not None
    os.truncate(_file(tmp_path), 100)
    assert await stream.read() == DATA[:100]
    with pytest.raises(SecondTierFault):
        await stream.read()
    await stream.close()


async def test_neither_a_link_nor_a_pipe_is_content(tier: FolderTier, tmp_path: Path) -> None:
    await put(tier, DATA, DIGEST)
    _file(tmp_path).rename(tmp_path / "elsewhere")
    _file(tmp_path).symlink_to(tmp_path / "elsewhere")
    assert await tier.get(DIGEST) is None
    _file(tmp_path).unlink()
    os.mkfifo(_file(tmp_path))
    assert await tier.get(DIGEST) is None


async def test_who_gave_up_waiting_leaves_no_file_open(tier: FolderTier, tmp_path: Path) -> None:
    await put(tier, DATA, DIGEST)
    for _ in range(20):
        ask = asyncio.create_task(tier.get(DIGEST))
        await asyncio.sleep(0)
        ask.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ask
    path = str(_file(tmp_path))

    def opened() -> int:
        links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return sum(link.exists() and os.path.realpath(link) == path for link in links)

    async with asyncio.timeout(10):
        while opened():
            await asyncio.sleep(0.01)
