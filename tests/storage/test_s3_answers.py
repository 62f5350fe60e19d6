"""What an S3-compatible store may answer that is of no use: a server of the test's own says it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from mirror.contracts.second_tier import FarFault
from mirror.storage.second_tier.bucket import Bucket, reason_of
from mirror.storage.second_tier.bucket_probe import bucket_facts
from mirror.storage.second_tier.s3_content import S3Content

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

OBJECT = (
    "<Contents><Key>{}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified>"
    "</Contents>"
)
FACTS = {"Last-Modified": "Wed, 21 Oct 2020 07:28:00 GMT", "ETag": '"a"'}


@contextlib.asynccontextmanager
async def store(answer: Answer) -> AsyncIterator[Bucket]:
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield Bucket("bucket", f"http://{host}:{port}", key=lambda: ("me", "secret"))
    finally:
        await asyncio.sleep(0.2)  # obstore's threads come to rest, as in S3Tier.close
        await runner.cleanup()


@pytest.mark.parametrize("after", ["", "sha256/aa/aa"], ids=["from the start", "from a name"])
async def test_a_list_that_always_begins_anew_is_a_fault_and_not_read_for_ever(after: str) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        name = request.query.get("prefix", "sha256/aa/") + "aa"
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{OBJECT.format(name)}"
        return web.Response(text=f"{text}</ListBucketResult>", content_type="application/xml")

    async with store(answer) as bucket, asyncio.timeout(10):
        with pytest.raises(FarFault, match="its list does not begin where it is asked to"):
            await S3Content(bucket).page(after, 10)


def test_the_words_of_a_store_are_one_line_that_can_be_printed() -> None:
    said = "<Error><Code>Slow</Code><Message>wait&#10;[2J&#27;[31m\n a &lt;while&gt;.</Message>"
    assert reason_of(OSError(said)) == "Slow: wait [2J[31m a <while>"


async def test_an_object_of_another_size_is_not_read_to_look_at_the_bucket() -> None:
    sent = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        if request.method != "GET" or "list-type" in request.query:
            return web.Response(headers=FACTS)
        response = web.StreamResponse(headers={**FACTS, "Content-Length": str(1 << 40)})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 28:
                await response.write(bytes(1 << 20))
                sent += 1 << 20
        return response

    async with store(answer) as bucket, asyncio.timeout(20):
        facts = await bucket_facts(bucket, time.time)
    assert facts.faults["read"] == "it gives other bytes than it was given"
    assert sent < 1 << 27
