"""When a download ends for which nothing comes any more: all its waits together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mirror.clock import Clock
from mirror.contracts.files import Hasher, OpenFile
from mirror.contracts.upstream import Upstream
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.pullthrough.fills.download import Download, DownloadPolicy
from mirror.pullthrough.fills.fill import Fill
from mirror.pullthrough.fills.parallel import ALONE, ParallelPolicy
from mirror.pullthrough.fills.patience import DownloadPatience, Patience
from mirror.pullthrough.fills.ranges import RangeConnections
from mirror.pullthrough.fills.sink import Sink
from mirror.pullthrough.fills.states import FillState

from ..jumping import jump
from .conftest import REDIS
from .test_silence import DATA, DIGEST, FOR_EVER, HALF, WELL, Plan, Voice, pool_of

PARTED = ParallelPolicy(over=len(DATA), part=len(DATA) // 8, connections=4)


class Memory:
    """A Partial that keeps nothing but the count of what came."""

    def __init__(self) -> None:
        self.digest = DIGEST
        self.size: int | None = None
        self.trusted = False
        self.offset = 0
        self.ahead: list[tuple[int, int]] = []
        self.moved_at = 0.0  # when the last byte came

    async def announce(self, size: int) -> None:
        self.size = size

    async def append(self, pieces: Sequence[bytes]) -> None:
        await self.place(self.offset, pieces)

    @property
    def vouched_ahead(self) -> Sequence[tuple[int, int]]:
        return ()

    async def place(self, at: int, pieces: Sequence[bytes], vouched: bool = False) -> None:
        self.ahead = sorted([*self.ahead, (at, at + sum(map(len, pieces)))])
        while self.ahead and self.ahead[0][0] <= self.offset:
            self.offset = max(self.offset, self.ahead.pop(0)[1])
        self.moved_at = asyncio.get_running_loop().time()

    async def commit(self, refers_to: Sequence[Digest] = ()) -> None: ...

    async def suspend(self) -> None: ...

    async def discard(self) -> None: ...

    def open(self) -> OpenFile:
        raise NotImplementedError

    def hasher(self) -> Hasher:
        return DIGEST.hasher()


def download_of(partial: Memory, upstream: Upstream, parting: ParallelPolicy) -> Download:
    """All of the blob, in a turn that begins now."""
    fill, patience = Fill(DIGEST, REDIS, 30.0), DownloadPatience()
    fill.is_whole = True
    fill.enter(FillState.WAITING)
    clock = Clock(monotonic=asyncio.get_running_loop().time)
    sink = Sink(fill, partial, upstream, Patience(patience, clock), Fill.spill)
    return Download(fill, sink, upstream, DownloadPolicy(parting, RangeConnections()))


async def silence(parting: ParallelPolicy, connections: int, *voices: Voice) -> float:
    """Seconds from the last byte to the end of the download, which fails."""
    loop, partial = asyncio.get_running_loop(), Memory()
    with pytest.raises(Unavailable):
        await download_of(partial, pool_of(*voices, connections=connections), parting).run()
    assert 0 < partial.offset < len(DATA)
    return loop.time() - partial.moved_at


# What all asks are met with after the first, which was good for a half.
ENDS = {
    "no head": Plan(head=FOR_EVER),
    "no head, given up": Plan(head=45, fails=Unavailable("no answer within 45 s")),
    "no byte": Plan(stop=0),
    "refused late": Plan(head=20, fails=Unavailable("503")),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("endpoints", [1, 2, 4])
@pytest.mark.parametrize("connections", [2, 32])
@pytest.mark.parametrize("parting", [ALONE, PARTED], ids=["in order", "parted"])
def test_silence_of_all_after_progress_is_told_after_ninety_seconds(
    end: str, endpoints: int, connections: int, parting: ParallelPolicy
) -> None:
    voices = [Voice("a", Plan(stop=HALF), ENDS[end])]
    voices += [Voice(f"b{number}", ENDS[end]) for number in range(endpoints - 1)]
    assert 45 <= jump(silence(parting, connections, *voices)) < 91


@pytest.mark.parametrize("parting", [ALONE, PARTED], ids=["in order", "parted"])
def test_crumbs_do_not_begin_that_anew(parting: ParallelPolicy) -> None:
    """Each connection brings 100 bytes, and is silent then: there is never more than that."""

    class Crumbs(Voice):
        @property
        def plans(self) -> Sequence[Plan]:  # type: ignore[override]
            return [Plan(stop=HALF), *([Plan(stop=0, silent=30.0, piece=100)] * 10_000)]

        @plans.setter
        def plans(self, plans: Sequence[Plan]) -> None: ...

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await silence(parting, 32, Crumbs("a"))
        return loop.time() - began

    assert jump(scenario()) < 90 + 45 + 30 + 1


@pytest.mark.parametrize("parting", [ALONE, PARTED], ids=["in order", "parted"])
def test_an_upstream_that_is_silent_for_a_minute_and_back_then_is_waited_for(
    parting: ParallelPolicy,
) -> None:
    late = Plan(head=14)
    voice = Voice("a", Plan(stop=HALF), *[Plan(head=FOR_EVER)] * 3, late, WELL)

    async def scenario() -> None:
        partial = Memory()
        await download_of(partial, pool_of(voice), parting).run()
        assert partial.offset == len(DATA)

    jump(scenario())
