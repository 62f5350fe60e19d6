"""Streams of the second tier that wait for their reader."""

from __future__ import annotations

import asyncio

from mirror.oci.digest import Digest
from mirror.pullthrough.opened_streams import OpenedStreams

from ..fakes.tier import MemoryStream, MemoryTier

DIGEST = Digest.of(b"content")


class Stream(MemoryStream):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.closed = asyncio.Event()

    async def close(self) -> None:
        self.closed.set()


def opened() -> Stream:
    return Stream(MemoryTier(), b"content", 0, 7)


async def test_a_stream_is_given_to_one_reader_who_closes_it() -> None:
    streams, stream = OpenedStreams(within=0.01), opened()
    await streams.keep(DIGEST, stream)
    assert DIGEST in streams
    assert streams.take(DIGEST) is stream
    assert streams.take(DIGEST) is None
    other = opened()
    await streams.keep(DIGEST, other)
    async with asyncio.timeout(10):
        await other.closed.wait()  # by its time, which came later than that of the first
    assert not stream.closed.is_set()


async def test_a_stream_that_nobody_takes_is_closed() -> None:
    streams, stream = OpenedStreams(within=0.01), opened()
    await streams.keep(DIGEST, stream)
    async with asyncio.timeout(10):
        await stream.closed.wait()
    assert DIGEST not in streams


async def test_one_stream_of_a_content_is_kept_and_a_bounded_number_of_all() -> None:
    streams, first, second = OpenedStreams(within=60), opened(), opened()
    await streams.keep(DIGEST, first)
    await streams.keep(DIGEST, second)
    assert second.closed.is_set()
    kept = [first]
    while streams.have_room:
        kept.append(opened())
        await streams.keep(Digest.of(str(len(kept)).encode()), kept[-1])
    more = opened()
    await streams.keep(Digest.of(b"more"), more)
    assert more.closed.is_set()
    assert len(kept) == 16
    assert not any(stream.closed.is_set() for stream in kept)
    await streams.close()
    assert all(stream.closed.is_set() for stream in kept)
