"""How many connections a slow download takes, in a time that is made of its waiting alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mirror.clock import Clock
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.ranges import ByteRange, with_span
from mirror.pullthrough.fills.download import Download, DownloadPolicy
from mirror.pullthrough.fills.fill import Fill
from mirror.pullthrough.fills.parallel import ParallelPolicy
from mirror.pullthrough.fills.patience import DownloadPatience, Patience
from mirror.pullthrough.fills.ranges import RangeConnections
from mirror.pullthrough.fills.sink import Sink
from mirror.pullthrough.fills.states import FillState

from ..fakes import REDIS
from ..jumping import jump

MIB = 1 << 20
SIZE = 64 * MIB
SPEED = 2 * MIB  # bytes a second of a connection that is alone
PIECE = 64 << 10
DIGEST = Digest.of(b"what is sent is of no matter here")

Share = Callable[["Link"], float]


def one_s_own(link: Link) -> float:
    return 1.0


def of_all(link: Link) -> float:
    return 1.0 / link.open


def of_all_at_first(link: Link) -> float:
    return of_all(link) if link.came < SIZE // 8 else 1.0


class Link:
    """An upstream whose connections have this `share` of SPEED each."""

    def __init__(self, share: Share, waits_until: int = 0) -> None:
        """`waits_until`: so many bytes wait for who reads, and not the reader for them."""
        self._share = share
        self._waits_until = waits_until
        self.open = 0
        self.most = 0
        self.came = 0

    async def blob(
        self, asker: Any, repository: Any, digest: Digest, range: ByteRange | None, vouched: bool
    ) -> Stream:
        self.open += 1
        self.most = max(self.most, self.open)
        return Stream(self, range or ByteRange(0))

    @property
    def piece(self) -> int:
        return MIB if self.came < self._waits_until else PIECE

    async def brings(self, count: int) -> None:
        await asyncio.sleep(count / (SPEED * self._share(self)))
        self.came += count


class Stream:
    source, vouched, doubted, kept = "link", True, False, False
    descriptor = Descriptor(OCTET_STREAM, DIGEST, SIZE)

    def __init__(self, link: Link, range: ByteRange) -> None:
        self._link = link
        self.start = self._position = range.start
        self._stop = range.stop or SIZE
        self._is_open = True

    async def read(self) -> bytes:
        count = min(self._link.piece, self._stop - self._position)
        await self._link.brings(count)
        self._position += count
        return bytes(count)

    def reject(self, reason: str) -> None: ...

    async def close(self) -> None:
        self._link.open -= self._is_open
        self._is_open = False


class Partial:
    """As much of a partial as a download needs: it keeps no byte, and waits for no disk."""

    digest = DIGEST
    ahead: Sequence[tuple[int, int]] = ()
    vouched_ahead: Sequence[tuple[int, int]] = ()
    trusted = True
    size: int | None = None

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []

    @property
    def offset(self) -> int:
        """Up to where all has come."""
        return self.spans[0][1] if self.spans and self.spans[0][0] == 0 else 0

    async def announce(self, size: int) -> None:
        self.size = size

    async def place(self, at: int, pieces: Sequence[bytes], vouched: bool = False) -> None:
        self.spans = with_span(self.spans, at, at + sum(map(len, pieces)))


def fetched(link: Link, parting: ParallelPolicy, count: int = 1) -> float:
    """So many blobs at once, whole, over this link; the seconds that took."""
    upstream: Any = link
    partials = [Partial() for _ in range(count)]
    policy = DownloadPolicy(parting, RangeConnections())

    async def one(partial: Any) -> None:
        fill = Fill(DIGEST, REDIS, first_byte=30)
        fill.is_whole = True
        fill.enter(FillState.WAITING)
        patience = Patience(DownloadPatience(), Clock())
        sink = Sink(fill, partial, upstream, patience, Fill.spill)
        await Download(fill, sink, upstream, policy).run()

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*map(one, partials))
        return loop.time() - began

    seconds = jump(scenario())
    assert [partial.offset for partial in partials] == [SIZE] * count
    assert link.open == 0
    return seconds


def test_connections_are_doubled_as_long_as_that_helps() -> None:
    link = Link(one_s_own)
    seconds = fetched(link, ParallelPolicy(connections=8))
    assert link.most == 8
    assert seconds < SIZE / SPEED / 4


def test_more_connections_that_do_not_help_are_given_up() -> None:
    link = Link(of_all)
    seconds = fetched(link, ParallelPolicy(connections=8))
    assert link.most == 2
    assert seconds == pytest.approx(SIZE / SPEED, rel=0.1)


def test_more_connections_are_tried_again_later() -> None:
    link = Link(of_all_at_first)
    seconds = fetched(link, ParallelPolicy(connections=8))
    assert link.most == 8
    assert seconds < SIZE / SPEED * 0.6


def test_several_blobs_over_connections_that_are_slow_each_are_parted() -> None:
    link = Link(one_s_own)
    seconds = fetched(link, ParallelPolicy(connections=8), count=2)
    assert link.most == 2 * 8
    assert seconds < SIZE / SPEED / 4


def test_where_bytes_wait_for_the_mirror_more_connections_are_of_no_use() -> None:
    link = Link(one_s_own, waits_until=SIZE)
    fetched(link, ParallelPolicy(connections=8))
    assert link.most == 1


def test_where_bytes_have_waited_more_connections_are_tried_later() -> None:
    link = Link(one_s_own, waits_until=SIZE // 8)
    fetched(link, ParallelPolicy(connections=8))
    assert link.most == 8


def test_one_connection_is_enough_where_it_is_fast() -> None:
    link = Link(one_s_own)
    seconds = fetched(link, ParallelPolicy(connections=8, fast=SPEED // 2))
    assert link.most == 1
    assert seconds == pytest.approx(SIZE / SPEED, rel=0.1)


@pytest.mark.parametrize(("long", "most"), [(3.0, 8), (100.0, 1)])
def test_a_blob_that_is_not_large_is_parted_when_it_would_take_long(long: float, most: int) -> None:
    link = Link(one_s_own)
    fetched(link, ParallelPolicy(connections=8, over=1 << 40, long=long))
    assert link.most == most
