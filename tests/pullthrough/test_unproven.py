"""How much of a blob clients get before its digest is proven: never all of it."""

from __future__ import annotations

import asyncio
import random

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.pullthrough.cache import PullThrough

from ..fakes import CONTEXT, REDIS, FakeUpstream
from ..waiting import eventually

KIB, MIB = 1 << 10, 1 << 20
LARGE, SMALL = random.Random(7).randbytes(2 * MIB), random.Random(8).randbytes(600 * KIB)
PIECE = 64 * KIB
"""The last piece of a large blob waits for the proof: a client that believes what it has to be
whole keeps it."""


class LastRead:
    """Holds a body before its end is read: all bytes have come, and nothing is proven."""

    def __init__(self, upstream: FakeUpstream, data: bytes) -> None:
        self._end = len(data)
        self._reached, self._go = asyncio.Event(), asyncio.Event()
        upstream.before_read = self  # type: ignore[assignment]

    async def __call__(self, position: int) -> None:
        if position >= self._end - PIECE:
            self._reached.set()
            await self._go.wait()

    async def reached(self) -> None:
        await eventually(self._reached.is_set)

    def go_on(self) -> None:
        self._go.set()


class Client:
    """Reads what may be read of a blob, as it comes."""

    def __init__(self, cache: PullThrough, data: bytes) -> None:
        self.got = b""
        self._reading = asyncio.create_task(self._read(cache, Digest.of(data)))

    async def _read(self, cache: PullThrough, digest: Digest) -> None:
        content = await cache.blob(CONTEXT, REDIS, digest)
        try:
            while (end := await content.readable(len(self.got))) > len(self.got):
                self.got += content.pread(end - len(self.got), len(self.got))
        finally:
            content.close()

    async def ended(self) -> bytes:
        """All that it got. Raises what cut it short."""
        async with asyncio.timeout(10):
            await self._reading
        return self.got


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_large_blob_goes_out_as_it_comes_but_for_its_last_piece(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    upstream.blobs[Digest.of(LARGE)] = LARGE
    last = LastRead(upstream, LARGE)
    client = Client(cache, LARGE)
    await last.reached()
    await eventually(lambda: len(client.got) > 0)
    await settled()
    assert len(client.got) <= len(LARGE) - PIECE
    last.go_on()
    assert await client.ended() == LARGE


async def test_of_a_small_blob_nothing_goes_out_before_it_is_proven(
    cache: PullThrough, upstream: FakeUpstream
) -> None:
    upstream.blobs[Digest.of(SMALL)] = SMALL
    last = LastRead(upstream, SMALL)
    client = Client(cache, SMALL)
    await last.reached()
    await settled()
    assert client.got == b""
    last.go_on()
    assert await client.ended() == SMALL


@pytest.mark.parametrize("says_size", [True, False])
@pytest.mark.parametrize("data", [LARGE, SMALL], ids=["large", "small"])
async def test_f01_of_wrong_bytes_the_last_piece_never_goes_out(
    cache: PullThrough, upstream: FakeUpstream, data: bytes, says_size: bool
) -> None:
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    upstream.blobs[Digest.of(data)] = wrong
    upstream.says_size = says_size
    client = Client(cache, data)
    with pytest.raises(RegistryError):
        await client.ended()
    assert len(client.got) <= (len(data) - PIECE if data is LARGE else 0)
