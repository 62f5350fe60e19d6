"""A bucket as a second tier: a real SeaweedFS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mirror.contracts.second_tier import FarFault, SecondTier
from mirror.oci.digest import Digest
from mirror.storage.second_tier.bucket import Bucket
from mirror.storage.second_tier.s3 import S3Tier, name_of
from mirror.storage.second_tier.s3_content import S3Content

from ..seaweed import KEY, SECRET, Seaweed
from ..waiting import eventually
from .second_tier_contract import DATA, DIGEST, SecondTierContract, got, put

pytestmark = pytest.mark.xdist_group("seaweed")


def bucket(seaweed: Seaweed, name: str, prefix: str = "below/this/") -> Bucket:
    return Bucket(name, seaweed.endpoint, prefix=prefix, key=lambda: (KEY, SECRET))


@pytest.fixture
def name(seaweed: Seaweed) -> str:
    return seaweed.bucket()


@pytest.fixture
async def tier(seaweed: Seaweed, name: str) -> AsyncIterator[S3Tier]:
    tier = S3Tier(bucket(seaweed, name))
    yield tier
    await tier.close()


@pytest.fixture
async def broken(seaweed: Seaweed) -> AsyncIterator[S3Tier]:
    tier = S3Tier(bucket(seaweed, "no-such-bucket"))
    yield tier
    await tier.close()


@pytest.fixture
def content(seaweed: Seaweed, name: str) -> S3Content:
    return S3Content(bucket(seaweed, name))


def unread(seaweed: Seaweed) -> int:
    """Bytes that the store has sent on connections of this host, and that nobody has read."""
    host, port = seaweed.place
    place = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
    with open("/proc/net/tcp") as table:
        fields = [line.split() for line in table]
    return sum(int(each[4].partition(":")[2], 16) for each in fields if each[2] == place)


class TestS3Tier(SecondTierContract):
    """The contract."""

    @pytest.fixture(autouse=True)
    def _content(self, content: S3Content) -> None:
        self.content = content

    async def make_way(self, tier: SecondTier) -> None:
        await self.content.set_aside(DIGEST)


async def test_a_large_content_goes_in_parts(tier: S3Tier, seaweed: Seaweed, name: str) -> None:
    data = os.urandom(40 << 20)
    digest = Digest.of(data)
    assert await put(tier, data, digest)
    assert seaweed.objects(name) == {f"below/this/sha256/{digest.hex[:2]}/{digest.hex}": len(data)}
    assert await got(tier, digest) == data
    assert await put(tier, data, digest)  # it is there


async def test_a_read_that_is_cancelled_as_its_bytes_come_loses_none(tier: S3Tier) -> None:
    data = os.urandom(8 << 20)
    assert await put(tier, data, Digest.of(data))
    stream = await tier.get(Digest.of(data))
    assert stream is not None
    came = b""
    for _ in range(3):
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 - the bytes have come, and the loop has not looked
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            came += await reading
    while piece := await stream.read():
        came += piece
    await stream.close()
    assert came == data


async def test_a_stream_that_is_closed_has_no_connection(tier: S3Tier, seaweed: Seaweed) -> None:
    """Nor what the store has sent, in the kernel's memory, for as long as anybody knows of it."""
    data = os.urandom(40 << 20)
    assert await put(tier, data, Digest.of(data))
    stream = await tier.get(Digest.of(data))
    assert stream is not None
    await stream.read()
    await eventually(lambda: unread(seaweed) > 1 << 15)
    await stream.close()
    await eventually(lambda: unread(seaweed) == 0)
    assert stream.size == len(data)


async def test_pages_have_all_in_order_with_the_time_of_their_use(
    tier: S3Tier, content: S3Content, seaweed: Seaweed, name: str
) -> None:
    digests = sorted((Digest.of(bytes([n])) for n in range(7)), key=name_of)
    for digest in digests:
        assert await put(tier, b"x" * 5, digest)
    seaweed.write(name, "below/this/zzz", b"none of ours")
    before = (await content.page("", 100)).objects
    assert [o.digest for o in before] == [*digests, None]
    assert all(o.size == 5 for o in before[:-1])
    await content.renew(digests[3])
    await content.set_aside(digests[0])
    after, found = "", []
    while True:
        page = await content.page(after, 3)
        assert len(page.objects) <= 3
        found += page.objects
        if page.following is None:
            break
        after = page.following
    assert [o.digest for o in found] == [*digests[1:], None, None]
    assert found[-2].name == "wrong/" + name_of(digests[0])
    assert await content.remove([name_of(d) for d in digests[2:]]) == 5
    assert [o.digest for o in (await content.page("", 9)).objects] == [digests[1], None, None]
    assert not [n for n in seaweed.objects(name) if "/used/" in n]


async def test_a_presigned_url_leads_to_the_bytes(tier: S3Tier, content: S3Content) -> None:
    assert await put(tier, DATA, DIGEST)
    url = await content.presigned(DIGEST, 60)
    with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
        assert answer.read() == DATA
        assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_its_faults_are_told_in_the_words_of_the_server(seaweed: Seaweed, name: str) -> None:
    content = S3Content(replace(bucket(seaweed, name), key=lambda: (KEY, "wrong")))
    with pytest.raises(FarFault, match="SignatureDoesNotMatch: The request signature we"):
        await content.page("", 10)
