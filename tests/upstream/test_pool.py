"""Several endpoints as one upstream: whom it asks for what, and which error is told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from mirror.events import Events
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    RangeInvalid,
    RateLimited,
    RegistryError,
    Unavailable,
    Untrustworthy,
)
from mirror.oci.ranges import ByteRange
from mirror.upstream.endpoint import Trust
from mirror.upstream.failures import Exhausted
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool

from ..fakes import CONTEXT, HandClock, NamedStream, NamedUpstream
from ..fakes.hub import Hub
from .conftest import REDIS, MakeRemote

DIGEST = Digest.of(b"content")
BLOB = Descriptor(OCTET_STREAM, DIGEST, 7)
DOWN, GONE, LIES = Unavailable("down"), ManifestUnknown("gone"), Untrustworthy("lies")
PRIVATE, LIMITED = Denied("private"), RateLimited("429", retry_after=100)


class Stream(NamedStream):
    breaks: RegistryError | None = None

    async def read(self) -> bytes:
        if self.breaks:
            raise self.breaks
        return b"content"


class Fake(NamedUpstream):
    """Answers, or fails with its error."""

    def __init__(self, name: str, asked: list[str], error: RegistryError | None) -> None:
        self.name = name
        self.error = error
        self.asked = asked
        self.stream = Stream(name, BLOB)

    async def _answer(self) -> None:
        self.asked.append(self.name)
        if self.error:
            raise self.error

    async def _blob(self, range: ByteRange | None) -> Stream:
        await self._answer()
        return self.stream


class Endpoints:
    """A pool of fakes; `asked` is which of them were asked, in order."""

    def __init__(self, time: HandClock, **members: tuple[Trust, RegistryError | None]) -> None:
        self.asked: list[str] = []
        self.fakes = {name: Fake(name, self.asked, error) for name, (_, error) in members.items()}
        self.pool = pool_of(
            time, [Member(name, self.fakes[name], trust) for name, (trust, _) in members.items()]
        )

    def asked_now(self) -> list[str]:
        asked, self.asked[:] = list(self.asked), []
        return asked


TAGS, CONTENT = Trust.TAGS, Trust.CONTENT


def pool_of(time: HandClock, members: Sequence[Member]) -> Pool:
    clock, events = time.clock(), Events()
    return Pool([EndpointState(one, clock, events) for one in members], clock, events=events)


async def test_content_comes_from_the_first_in_order(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, None), hub=(TAGS, None))
    assert (await these.pool.manifest(CONTEXT, REDIS, DIGEST)).data == b"near"
    assert (await these.pool.blob(CONTEXT, REDIS, DIGEST)).source == "near"
    assert these.asked_now() == ["near", "near"]


async def test_f67_words_without_proof_come_only_from_those_trusted_with_tags(
    time: HandClock,
) -> None:
    these = Endpoints(time, near=(CONTENT, None), hub=(TAGS, None))
    assert (await these.pool.resolve(CONTEXT, REDIS, "7")).digest == Digest.of(b"hub")
    assert (await these.pool.tags(CONTEXT, REDIS)).tags == ("hub",)
    assert await these.pool.referrers(CONTEXT, REDIS, DIGEST) == b"hub"
    await these.pool.stat(CONTEXT, REDIS, DIGEST)
    assert these.asked_now() == ["hub"] * 4


async def test_f67_nor_do_bytes_that_nothing_is_going_to_prove(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, None), hub=(TAGS, None))
    assert (await these.pool.blob(CONTEXT, REDIS, DIGEST, vouched=True)).source == "hub"
    these = Endpoints(time, near=(CONTENT, None))
    with pytest.raises(Denied):
        await these.pool.blob(CONTEXT, REDIS, DIGEST, vouched=True)
    assert these.asked == []


async def test_f67_they_do_not_come_from_others_when_those_are_down(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, None), hub=(TAGS, DOWN))
    with pytest.raises(Unavailable, match="down"):
        await these.pool.resolve(CONTEXT, REDIS, "7")
    assert these.asked_now() == ["hub"]


async def test_f67_a_pool_that_trusts_nobody_with_tags_says_what_to_write(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, None))
    with pytest.raises(Denied, match="trust: tags"):
        await these.pool.resolve(CONTEXT, REDIS, "7")
    assert (await these.pool.manifest(CONTEXT, REDIS, DIGEST)).data == b"near"


@pytest.mark.parametrize("error", [DOWN, GONE, LIES, PRIVATE, LIMITED])
async def test_the_next_endpoint_is_asked_when_one_fails(
    time: HandClock, error: RegistryError
) -> None:
    these = Endpoints(time, near=(CONTENT, error), hub=(TAGS, None))
    assert (await these.pool.manifest(CONTEXT, REDIS, DIGEST)).data == b"hub"
    assert these.asked_now() == ["near", "hub"]


async def test_a_range_behind_the_end_is_an_answer(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, RangeInvalid(7)), hub=(TAGS, None))
    with pytest.raises(RangeInvalid):
        await these.pool.blob(CONTEXT, REDIS, DIGEST, ByteRange(7))
    assert these.asked_now() == ["near"]


@pytest.mark.parametrize(
    ("near", "hub", "other", "says"),
    [
        (GONE, GONE, GONE, ManifestUnknown),
        (DOWN, GONE, GONE, ManifestUnknown),  # an accelerator knows no more than the registry
        (GONE, DOWN, DOWN, Unavailable),
        (GONE, GONE, DOWN, Unavailable),  # the other one may still have it
        (GONE, PRIVATE, PRIVATE, Denied),
        (DOWN, PRIVATE, GONE, ManifestUnknown),
        (GONE, LIES, GONE, Untrustworthy),
        (DOWN, LIMITED, LIMITED, RateLimited),
    ],
)
async def test_what_is_unknown_is_final_only_from_all_who_must_know(
    time: HandClock,
    near: RegistryError,
    hub: RegistryError,
    other: RegistryError,
    says: type[RegistryError],
) -> None:
    these = Endpoints(time, near=(CONTENT, near), hub=(TAGS, hub), other=(TAGS, other))
    with pytest.raises(says) as caught:
        await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    assert type(caught.value) is says
    assert these.asked_now() == ["near", "hub", "other"]


async def test_without_anybody_trusted_all_must_say_so(time: HandClock) -> None:
    these = Endpoints(time, a=(CONTENT, GONE), b=(CONTENT, DOWN))
    with pytest.raises(Unavailable, match="down"):
        await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    these.fakes["b"].error = BlobUnknown("gone too")
    with pytest.raises(ManifestUnknown, match="gone"):
        await these.pool.manifest(CONTEXT, REDIS, DIGEST)


@pytest.mark.parametrize(("error", "seconds"), [(DOWN, 15), (LIES, 600), (LIMITED, 100)])
async def test_an_endpoint_that_failed_is_asked_last_for_a_while(
    time: HandClock, error: RegistryError, seconds: float
) -> None:
    these = Endpoints(time, near=(CONTENT, error), hub=(TAGS, None))
    await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    these.fakes["near"].error = None
    these.asked_now()
    time.now += seconds - 1
    await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    assert these.asked_now() == ["hub"]
    time.now += 1
    await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    assert these.asked_now() == ["near"]


async def test_endpoints_that_stepped_back_are_still_asked_when_there_is_no_other(
    time: HandClock,
) -> None:
    these = Endpoints(time, near=(CONTENT, LIES), hub=(TAGS, DOWN))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    assert these.asked_now() == ["near", "hub", "hub", "near"]
    these.fakes["near"].error = None
    assert (await these.pool.manifest(CONTEXT, REDIS, DIGEST)).data == b"near"


async def test_stepping_back_is_logged_once_while_it_lasts(time: HandClock) -> None:
    these = Endpoints(time, hub=(TAGS, DOWN))
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    assert [log["endpoint"] for log in logs] == ["hub"]


async def test_an_endpoint_that_lacks_something_does_not_step_back(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, GONE), hub=(TAGS, None))
    await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    assert these.asked_now() == ["near", "hub", "near", "hub"]


async def test_f42_an_endpoint_does_not_step_back_for_what_is_lacking_here(time: HandClock) -> None:
    """No descriptor, memory or thread to ask it with."""
    these = Endpoints(time, near=(CONTENT, Exhausted("too many open files")), hub=(TAGS, None))
    for _ in range(20):
        await these.pool.manifest(CONTEXT, REDIS, DIGEST)
    assert these.asked_now() == ["near", "hub"] * 20


async def test_f01_an_endpoint_whose_bytes_were_wrong_steps_back_for_long(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, None), hub=(TAGS, None))
    stream = await these.pool.blob(CONTEXT, REDIS, DIGEST)
    stream.reject("wrong digest")
    await stream.close()
    inner = these.fakes["near"].stream
    assert (inner.rejected, inner.closed) == (["wrong digest"], True)
    time.now += 599
    assert (await these.pool.manifest(CONTEXT, REDIS, DIGEST)).data == b"hub"
    time.now += 1
    assert (await these.pool.blob(CONTEXT, REDIS, DIGEST)).source == "hub"
    # The trial is with what is proven before anybody is given it.
    assert (await these.pool.manifest(CONTEXT, REDIS, DIGEST)).data == b"near"
    assert (await these.pool.blob(CONTEXT, REDIS, DIGEST)).source == "near"


async def test_f02_a_stream_that_broke_is_resumed_elsewhere(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, None), hub=(TAGS, None))
    stream = await these.pool.blob(CONTEXT, REDIS, DIGEST)
    assert await stream.read() == b"content"
    these.fakes["near"].stream.breaks = DOWN
    with pytest.raises(Unavailable):
        await stream.read()
    assert (await these.pool.blob(CONTEXT, REDIS, DIGEST, ByteRange(7))).source == "hub"


async def test_a_stream_shows_what_the_endpoints_shows(time: HandClock) -> None:
    these = Endpoints(time, near=(CONTENT, None))
    stream = await these.pool.blob(CONTEXT, REDIS, DIGEST)
    assert (stream.descriptor, stream.start, stream.source) == (BLOB, 0, "near")
    assert stream.vouched


async def test_a_liar_is_passed_over_with_real_endpoints(
    hub: Hub, time: HandClock, make_remote: MakeRemote
) -> None:
    async with Hub() as liar:
        for one in (hub, liar):
            one.challenge = "none"
        digest = Digest.parse(hub.add_blob(b"right bytes"))
        liar.blobs[str(digest)] = b"wrong bytes"
        near, real = make_remote(liar.url), make_remote(hub.url)
        pool = pool_of(time, [Member("near", near, Trust.CONTENT), Member("hub", real, Trust.TAGS)])
        stream = await pool.blob(CONTEXT, REDIS, digest)
        assert await stream.read() == b"wrong bytes"
        stream.reject("not its digest")
        await stream.close()
        stream = await pool.blob(CONTEXT, REDIS, digest)
        assert await stream.read() == b"right bytes"
        await stream.close()
