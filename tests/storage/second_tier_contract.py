"""What every SecondTier must do. A suite for one derives from this and gives a `tier`, and a
`broken` one that can neither be read nor written."""

from __future__ import annotations

import os

import pytest

from mirror.contracts.second_tier import SecondTier, SecondTierFault
from mirror.oci.digest import Digest
from mirror.oci.ranges import ByteRange

from ..fakes.content import MemoryFile

DATA = bytes(range(256)) * 12_000  # 3 MB: several pieces
DIGEST = Digest.of(DATA)


async def put(tier: SecondTier, data: bytes, digest: Digest, size: int | None = None) -> bool:
    file = MemoryFile.of(data)
    try:
        return await tier.put(digest, file, len(data) if size is None else size)
    finally:
        file.close()


async def got(tier: SecondTier, digest: Digest, range: ByteRange | None = None) -> bytes | None:
    stream = await tier.get(digest, range)
    if stream is None:
        return None
    try:
        assert stream.start == (range.start if range else 0)
        data = b""
        while piece := await stream.read():
            assert len(piece) <= 1 << 20
            data += piece
        return data
    finally:
        await stream.close()


class SecondTierContract:
    async def make_way(self, tier: SecondTier) -> None:
        """What is there of DIGEST is wrong: another may be put. Most tiers replace it anyway."""

    async def test_what_was_put_is_there(self, tier: SecondTier) -> None:
        assert await put(tier, DATA, DIGEST)
        assert await tier.contains(DIGEST)
        assert await got(tier, DIGEST) == DATA

    async def test_what_was_not_put_is_absent_and_nothing_is_raised(self, tier: SecondTier) -> None:
        assert not await tier.contains(DIGEST)
        assert await tier.get(DIGEST) is None
        assert await tier.get(DIGEST, ByteRange(5)) is None

    async def test_a_range_comes_alone_and_the_size_is_the_wholes(self, tier: SecondTier) -> None:
        assert await put(tier, DATA, DIGEST)
        assert await got(tier, DIGEST, ByteRange(1_500_000)) == DATA[1_500_000:]
        assert await got(tier, DIGEST, ByteRange(10, 20)) == DATA[10:20]
        assert await got(tier, DIGEST, ByteRange(len(DATA) - 1, len(DATA) + 9)) == DATA[-1:]
        stream = await tier.get(DIGEST, ByteRange(10, 20))
        assert stream is not None
        assert stream.size == len(DATA)
        await stream.close()
        await stream.close()

    async def test_a_range_beyond_the_end_is_absent(self, tier: SecondTier) -> None:
        assert await put(tier, DATA, DIGEST)
        assert await tier.get(DIGEST, ByteRange(len(DATA))) is None

    async def test_content_of_no_bytes_is_content(self, tier: SecondTier) -> None:
        empty = Digest.of(b"")
        assert await put(tier, b"", empty)
        assert await tier.contains(empty)
        assert await got(tier, empty) == b""

    async def test_what_is_put_again_takes_the_place_of_what_was_wrong(
        self, tier: SecondTier
    ) -> None:
        await put(tier, b"rotten", DIGEST)
        await self.make_way(tier)
        assert await put(tier, DATA, DIGEST)
        assert await got(tier, DIGEST) == DATA

    async def test_who_reads_what_is_put_again_reads_one_of_both(self, tier: SecondTier) -> None:
        assert await put(tier, DATA, DIGEST)
        stream = await tier.get(DIGEST)
        assert stream is not None
        data = await stream.read()
        await put(tier, b"other", DIGEST)
        while piece := await stream.read():
            data += piece
        await stream.close()
        assert data == DATA

    async def test_a_file_that_is_too_short_is_not_kept(self, tier: SecondTier) -> None:
        assert not await put(tier, DATA, DIGEST, len(DATA) + 1)
        assert not await tier.contains(DIGEST)

    async def test_the_first_bytes_of_a_file_are_put_and_its_position_stays(
        self, tier: SecondTier
    ) -> None:
        file = MemoryFile.of(b"seek" + DATA)
        before = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        assert await tier.put(DIGEST, file, 4)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == before
        file.close()
        assert await got(tier, DIGEST) == b"seek"

    async def test_its_faults_are_its_own(self, broken: SecondTier) -> None:
        """And what it cannot say is no absence: somebody has to look at it."""
        for _ in range(2):
            with pytest.raises(SecondTierFault):
                await broken.get(DIGEST)
        assert not await broken.contains(DIGEST)
        assert not await put(broken, DATA, DIGEST)
