"""Writing behind: whoever flushes has met the last write, also when they are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mirror.pullthrough.fills.write_behind import WriteBehind


class Disk:
    """Writes as slowly as it is told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.goes_on = asyncio.Event()

    async def write(self, pieces: Sequence[bytes]) -> None:
        await self.goes_on.wait()
        self.written += pieces


async def begin_to_flush(writer: WriteBehind) -> asyncio.Task[None]:
    await writer.put(b"one")
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    return flushing


async def test_a_flush_that_is_cancelled_again_and_again_returns_after_the_write() -> None:
    disk = Disk()
    flushing = await begin_to_flush(WriteBehind(disk.write, at_once=0))
    for _ in range(3):
        flushing.cancel()
        await asyncio.sleep(0)
        assert not flushing.done()
    disk.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    assert disk.written == [b"one"]


async def test_a_flush_may_be_cancelled_in_the_moment_in_which_the_write_ends() -> None:
    flushing: asyncio.Task[None]

    async def write(pieces: Sequence[bytes]) -> None:
        flushing.cancel()

    flushing = await begin_to_flush(WriteBehind(write, at_once=0))
    with pytest.raises(asyncio.CancelledError):
        await flushing
