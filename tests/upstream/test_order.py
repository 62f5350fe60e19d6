"""Which endpoint of a pool is asked, and when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from mirror.contracts.context import Asker
from mirror.contracts.upstream import StreamContent
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import (
    Denied,
    ManifestUnknown,
    RateLimited,
    RegistryError,
    Unavailable,
    Untrustworthy,
)
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository
from mirror.upstream.client.quota import QuotaSpent
from mirror.upstream.endpoint import Trust
from mirror.upstream.failures import FailureKind, Unfit, Unreachable
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool

from ..fakes import CONTEXT, HandClock, NamedStream, NamedUpstream
from ..waiting import eventually
from .conftest import REDIS, Counts

DIGEST = Digest.of(b"content")
NGINX, OTHERS = Repository("docker.io", "library/nginx"), Repository("docker.io", "acme/app")
MIB = 1 << 20
DOWN, GONE, LIES = Unavailable("down"), ManifestUnknown("gone"), Untrustworthy("lies")
TAGS, CONTENT = Trust.TAGS, Trust.CONTENT


@dataclass
class Stub(NamedUpstream):
    """An endpoint of a certain latency and speed; or with an error; or one that hangs."""

    name: str
    time: HandClock
    asked: list[str]
    trust: Trust = CONTENT
    latency: float = 0.0
    speed: float = 1e9
    connections: int = 32
    error: RegistryError | None = None
    hangs: asyncio.Event | None = None
    scarce: bool = False
    streams: list[Stream] = field(default_factory=list)
    left: int = 0
    pings: int = 0
    silent: RegistryError | None = None  # what comes of a ping

    async def _answer(self) -> None:
        self.asked.append(self.name)
        if self.hangs is not None:
            try:
                await self.hangs.wait()
            except asyncio.CancelledError:
                self.left += 1
                raise
        self.time.now += self.latency
        if self.error is not None:
            raise self.error

    def is_scarce(self) -> bool:
        return self.scarce

    async def ping(self) -> None:
        self.pings += 1
        if self.silent is not None:
            raise self.silent

    async def _blob(self, range: ByteRange | None) -> Stream:
        await self._answer()
        self.streams.append(Stream(self))
        return self.streams[-1]

    @property
    def open(self) -> int:
        return sum(not stream.closed for stream in self.streams)


class Stream(NamedStream):
    """Endless, a MiB a piece, each of which takes as long as its endpoint's speed says."""

    def __init__(self, stub: Stub) -> None:
        super().__init__(stub.name, Descriptor(OCTET_STREAM, DIGEST, 1 << 40))
        self.stub = stub
        self.mute = False

    async def read(self) -> bytes:
        if self.stub.error is not None:
            raise self.stub.error
        self.stub.time.now += MIB / self.stub.speed
        return b"" if self.mute else bytes(MIB)


Alarm = Callable[[], None]


class These:
    """A pool of stubs. `late()` is when the one who was asked last is late."""

    def __init__(self, time: HandClock, counts: Counts, *names: str) -> None:
        self.asked: list[str] = []
        self.stubs = {name: Stub(name, time, self.asked) for name in names}
        self.stubs[names[-1]].trust = TAGS
        self.alarms: list[tuple[float, asyncio.Future[None]]] = []
        self._time, self._counts = time, counts
        self._pool: Pool | None = None

    def __getitem__(self, name: str) -> Stub:
        return self.stubs[name]

    @property
    def pool(self) -> Pool:
        """Made when it is first used."""
        if self._pool is None:
            members = [
                Member(
                    stub.name,
                    stub,
                    stub.trust,
                    stub.connections,
                    ping=stub.ping,
                )
                for stub in self.stubs.values()
            ]
            clock, counts = self._time.clock(), self._counts
            endpoints = [EndpointState(member, clock, counts) for member in members]
            self._pool = Pool(endpoints, clock, events=counts, sleep=self._sleep)
        return self._pool

    async def _sleep(self, seconds: float) -> None:
        self.alarms.append((seconds, asyncio.get_running_loop().create_future()))
        await self.alarms[-1][1]

    async def manifest(self) -> str:
        return (await self.pool.manifest(CONTEXT, REDIS, DIGEST)).data.decode()

    async def blob(self) -> StreamContent:
        return await self.pool.blob(CONTEXT, REDIS, DIGEST)

    async def take(self, pieces: int = 20) -> str:
        """So much of a blob, to be measured; who gave it."""
        stream = await self.blob()
        for _ in range(pieces):
            await stream.read()
        await stream.close()
        return stream.source

    async def resolve(self) -> str:
        digest = (await self.pool.resolve(CONTEXT, REDIS, "7")).digest
        return next(name for name in self.stubs if Digest.of(name.encode()) == digest)

    def asked_now(self) -> list[str]:
        asked, self.asked[:] = list(self.asked), []
        return asked

    async def fails(self, ask: Callable[[], Awaitable[object]] | None = None) -> RegistryError:
        with pytest.raises(RegistryError) as caught:
            await (ask or self.manifest)()
        return caught.value

    async def not_from_near(self, error: RegistryError) -> None:
        """For a minute, in which another answers: so its pauses grow. It was just asked."""
        self["near"].error = error
        end = self._time.now + 60
        while self._time.now < end or "near" not in self.asked:
            self.asked_now()
            assert await self.manifest() == "hub"
            self._time.now += 1
        self.asked_now()

    async def late(self) -> float:
        """After how many seconds that is."""
        await eventually(lambda: self.alarms and not self.alarms[-1][1].done())
        seconds, alarm = self.alarms[-1]
        alarm.set_result(None)
        return seconds


@pytest.fixture
def these(time: HandClock, counts: Counts) -> These:
    return These(time, counts, "near", "hub")


@pytest.fixture
def three(time: HandClock, counts: Counts) -> These:
    return These(time, counts, "near", "far", "hub")


# Best first


async def test_manifests_come_from_the_quickest_once_all_have_been_measured(these: These) -> None:
    these["near"].latency, these["hub"].latency = 0.4, 0.1
    these["near"].error = DOWN
    assert await these.manifest() == "hub"
    these["near"].error = None
    these._time.now += 16  # the failure is forgiven
    assert await these.manifest() == "near"  # never measured when well: as good as the best
    assert [await these.manifest() for _ in range(3)] == ["hub"] * 3


async def test_blobs_come_from_the_fastest_whatever_the_latency(three: These) -> None:
    three["near"].speed, three["far"].speed, three["hub"].speed = 5e6, 40e6, 10e6
    three["far"].latency = 0.4
    # Each has its turn while the others are busy.
    streams = [await three.blob() for _ in range(3)]
    assert {stream.source for stream in streams} == {"near", "far", "hub"}
    for stream in streams:
        for _ in range(10):
            await stream.read()
        await stream.close()
    assert [await three.take() for _ in range(3)] == ["far"] * 3


async def test_more_blobs_at_once_are_spread_by_what_one_more_may_expect(these: These) -> None:
    these["near"].speed, these["hub"].speed = 30e6, 10e6
    first, second = await these.blob(), await these.blob()
    for stream in (first, second):
        for _ in range(10):
            await stream.read()
        await stream.close()
    sources = [(await these.blob()).source for _ in range(8)]
    assert sources.count("near") == 6


async def test_an_endpoint_that_was_not_measured_for_long_gets_one_ask_now_and_then(
    these: These, time: HandClock
) -> None:
    these["hub"].latency = 0.1
    for _ in range(5):
        await these.manifest()
    assert set(these.asked_now()) == {"near"}
    time.now += 31
    these["near"].latency = 1.0
    assert await these.manifest() == "hub"  # which is quicker by now, and found out
    assert await these.manifest() == "near"
    assert await these.manifest() == "hub"


async def test_tags_are_asked_in_the_order_of_the_configuration(three: These) -> None:
    three["far"].trust = TAGS
    three["far"].latency = 3.0
    assert [await three.resolve() for _ in range(3)] == ["far"] * 3


# Stepping back, and breakers


async def test_offline_errors_come_at_once_and_it_comes_back_by_itself(
    these: These, time: HandClock, counts: Counts
) -> None:
    for stub in these.stubs.values():
        stub.error = stub.silent = Unreachable(f"{stub.name} is down", FailureKind.CONNECT)
    for _ in range(2):
        await these.fails()
    assert ("hub", "fault", True) in counts.breakers
    these.asked_now()
    for _ in range(50):
        error = await these.fails()
        assert error.message == "hub is down; it is asked again in 1 s"
        assert error.retry_after == 1
        await these.fails(these.resolve)
        await these.fails(these.blob)
    assert these.asked_now() == []
    for stub in these.stubs.values():
        stub.error = stub.silent = None
    time.now += 1
    assert await these.manifest() == "near"
    assert await these.resolve() == "hub"
    assert ("hub", "fault", False) in counts.breakers


async def test_the_pool_is_away_while_none_answers_that_may_say_what_a_tag_points_to(
    these: These, time: HandClock
) -> None:
    def down(repository: Repository = REDIS) -> bool:
        return these.pool.is_down(repository, "7")

    assert not down()
    these["near"].error = these["hub"].error = DOWN
    await these.fails(these.resolve)
    assert not down()  # one failure is no rule
    await these.fails(these.resolve)
    assert down()
    assert not down(NGINX)  # of which nothing is known
    these["near"].error = None
    assert await these.manifest() == "near"
    assert down()
    time.now += 3600
    assert down()
    these["hub"].error = None
    await these.resolve()
    assert not down()


async def test_the_pool_is_away_with_everything_when_nobody_is_there(
    these: These, counts: Counts
) -> None:
    these["hub"].error = DOWN
    these["hub"].silent = Unavailable("no answer to a ping")
    for _ in range(2):
        await these.fails(these.resolve)
    await eventually(lambda: ("hub", "fault", True) in counts.breakers)
    assert these.pool.is_down(NGINX, "1")


async def test_offline_for_long_one_ask_a_second_looks_whether_it_is_back(
    these: These, time: HandClock
) -> None:
    for stub in these.stubs.values():
        stub.error = DOWN
    began = time.now
    while time.now < began + 60:
        await these.fails()
        time.now += 0.25
    assert 60 <= len(these.asked_now()) <= 125
    these["hub"].error = None
    time.now += 1
    assert "hub" in [await these.resolve() for _ in range(1)]


@pytest.mark.parametrize("error", [LIES, GONE, DOWN])
async def test_who_came_back_unseen_is_asked_when_the_others_have_failed(
    these: These, time: HandClock, error: RegistryError
) -> None:
    these["near"].trust = TAGS
    await these.not_from_near(DOWN)
    these["near"].error, these["hub"].error = None, error
    assert await these.manifest() == "near"


@pytest.mark.parametrize("error", [LIES, GONE, RateLimited("429", retry_after=1)])
async def test_a_trial_that_shows_another_trouble_keeps_nobody_from_the_next(
    these: These, time: HandClock, error: RegistryError
) -> None:
    await these.not_from_near(DOWN)
    these["near"].error, these["hub"].error = error, DOWN
    await these.fails()
    assert "near" in these.asked_now()
    these["near"].error = None
    time.now += 1
    assert await these.manifest() == "near"


async def test_nobody_is_asked_after_one_who_must_know_that_there_is_nothing(
    these: These,
) -> None:
    await these.not_from_near(DOWN)
    these["hub"].error = GONE
    assert await these.fails() is GONE
    assert these.asked_now() == ["hub"]


async def test_a_limit_that_came_again_is_obeyed_as_it_was_told_when_the_others_have_failed(
    these: These, time: HandClock
) -> None:
    await these.not_from_near(RateLimited("429", retry_after=3))
    these["near"].error, these["hub"].error = None, DOWN
    time.now += 1
    assert isinstance(await these.fails(), Unavailable)
    assert these.asked_now() == ["hub"]
    time.now += 1
    assert await these.manifest() == "near"


async def test_while_another_answers_a_dead_one_is_tried_less_and_less(
    these: These, time: HandClock
) -> None:
    these["near"].error = DOWN
    began = time.now
    while time.now < began + 600:
        assert await these.manifest() == "hub"
        time.now += 1
    assert 15 <= these.asked_now().count("near") <= 45


async def test_one_failure_is_no_reason_not_to_ask_again(these: These) -> None:
    these["hub"].error = DOWN
    await these.fails(these.resolve)
    these["hub"].error = None
    assert await these.resolve() == "hub"


async def test_who_asks_for_a_pause_gets_it(these: These, time: HandClock) -> None:
    these["hub"].error = Unavailable("503", retry_after=20)
    await these.fails(these.resolve)
    await these.fails(these.resolve)
    time.now += 19
    assert (await these.fails(these.resolve)).retry_after is not None


async def test_a_limit_on_blobs_is_none_on_manifests(these: These, time: HandClock) -> None:
    these["near"].error = these["hub"].error = RateLimited("429", retry_after=100)
    await these.fails(these.blob)
    these.asked_now()
    error = await these.fails(these.blob)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 100
    assert these.asked_now() == []  # it said when to come back
    these["near"].error = these["hub"].error = None
    assert await these.manifest() in these.stubs
    time.now += 100
    assert (await these.blob()).source in these.stubs


async def test_who_has_no_pulls_left_is_not_put_back_for_blobs(these: These) -> None:
    these["near"].error = QuotaSpent("spent", retry_after=20000)
    assert await these.manifest() == "hub"
    these["near"].error = None
    assert (await these.blob()).source == "near"


async def test_where_pulls_are_scarce_others_are_asked_for_manifests_first(
    these: These, counts: Counts
) -> None:
    these["near"].scarce = True
    assert await these.manifest() == "hub"
    assert (await these.blob()).source == "near"
    these["hub"].error = DOWN
    assert await these.manifest() == "near"


async def test_the_pool_is_scarce_when_all_who_know_tags_are(three: These) -> None:
    three["far"].trust = TAGS
    three["near"].scarce = three["hub"].scarce = True
    assert not three.pool.is_scarce()
    three["far"].scarce = True
    assert three.pool.is_scarce()


async def test_who_lacks_what_another_has_is_asked_last_for_that_repository_only(
    these: These, time: HandClock
) -> None:
    these["near"].error = GONE
    for _ in range(2):
        assert await these.manifest() == "hub"
    these.asked_now()
    assert await these.manifest() == "hub"
    assert these.asked_now() == ["hub"]
    other = Repository("docker.io", "library/nginx")
    these["near"].error = None
    assert (await these.pool.manifest(CONTEXT, other, DIGEST)).data == b"near"
    time.now += 61
    assert await these.manifest() == "near"  # tried again


@pytest.mark.parametrize("error", [GONE, Denied("private")])
async def test_what_nobody_has_is_nobodys_lack(these: These, error: RegistryError) -> None:
    these["near"].error = these["hub"].error = error
    for _ in range(5):
        await these.fails()
    these.asked_now()
    await these.fails()
    assert these.asked_now() == ["near", "hub"]


# Liars


async def test_a_liar_is_banned_for_long_and_loudly(
    these: These, time: HandClock, counts: Counts
) -> None:
    these["near"].error = LIES
    with capture_logs() as logs:
        assert await these.manifest() == "hub"
    (banned,) = [log for log in logs if log["event"] == "endpoint_banned"]
    assert (banned["log_level"], banned["endpoint"], banned["seconds"]) == ("error", "near", 600)
    assert banned["repository"] == str(REDIS)
    these.asked_now()
    time.now += 599
    assert await these.manifest() == "hub"
    assert these.asked_now() == ["hub"]
    time.now += 1
    assert await these.manifest() == "hub"  # the trial was not the client's only chance
    assert these.asked_now() == ["near", "hub"]
    time.now += 1199
    these["near"].error = None
    assert await these.manifest() == "hub"
    time.now += 1
    assert await these.manifest() == "near"
    assert counts.breakers == []  # it was one repository, not the endpoint


async def test_a_liar_is_still_asked_when_nobody_else_answers_since_bytes_are_proven(
    these: These,
) -> None:
    these["near"].error = LIES
    await these.manifest()
    these["near"].error, these["hub"].error = None, DOWN
    assert await these.manifest() == "near"
    these["hub"].error = None
    these.asked_now()
    these._time.now += 20
    assert await these.manifest() == "hub"  # which did not lift the ban
    assert these.asked_now() == ["hub"]


async def test_when_all_have_lied_all_are_still_asked(these: These) -> None:
    for stub in these.stubs.values():
        stub.error = LIES
    await these.fails()
    await these.fails(these.blob)
    for stub in these.stubs.values():
        stub.error = None
    assert await these.manifest() in these.stubs
    assert (await these.blob()).source in these.stubs
    assert await these.resolve() == "hub"


async def test_a_lie_is_not_the_last_word_while_another_may_come_back(these: These) -> None:
    these["near"].trust = TAGS
    these["near"].error, these["hub"].error = LIES, Unavailable("503", retry_after=3)
    assert (await these.fails()) is these["hub"].error


async def test_f13_an_image_that_is_unfit_is_no_lie_of_its_registry(
    these: These, counts: Counts
) -> None:
    these["near"].error = these["hub"].error = Unfit("both manifests and layers")
    with pytest.raises(Untrustworthy):
        await these.manifest()
    assert counts.breakers == []
    these["near"].error = None
    assert await these.manifest() == "near"


# Hedges


async def test_f23_when_the_first_is_late_the_next_is_asked_and_the_loser_closed(
    these: These, counts: Counts
) -> None:
    these["near"].hangs = asyncio.Event()
    asking = asyncio.create_task(these.manifest())
    assert await these.late() == 2  # of one of which nothing is known yet
    assert await asking == "hub"
    assert these.asked_now() == ["near", "hub"]
    assert these["near"].left == 1
    assert counts.hedges == [("hub", True)]


async def test_late_is_three_times_what_is_usual_within_bounds(these: These) -> None:
    these["hub"].trust = CONTENT
    for usual, late in ((0.01, 0.5), (0.3, 0.9), (8.0, 10.0)):
        these["near"].latency = usual
        these["hub"].latency = 9
        these._pool = None
        these["near"].hangs = None
        for _ in range(3):
            await these.manifest()
        these["near"].hangs = asyncio.Event()
        asking = asyncio.create_task(these.manifest())
        assert await these.late() == pytest.approx(late)
        await asking
        await asyncio.sleep(0)


async def test_who_was_late_is_not_the_first_to_be_asked_next_time(
    these: These, time: HandClock
) -> None:
    these["hub"].latency = 0.1
    these["near"].hangs = asyncio.Event()
    asking = asyncio.create_task(these.manifest())
    await eventually(lambda: these.alarms)
    time.now += 2
    await these.late()
    await asking
    these["near"].hangs = None
    these.asked_now()
    assert await these.manifest() == "hub"
    assert these.asked_now() == ["hub"]


async def test_who_was_late_with_a_tag_goes_after_the_others_for_a_while(
    these: These, time: HandClock
) -> None:
    these["near"].trust = TAGS
    these["near"].hangs = asyncio.Event()
    asking = asyncio.create_task(these.resolve())
    await eventually(lambda: these.alarms)
    time.now += 2
    await these.late()
    assert await asking == "hub"
    these.asked_now()
    assert await asyncio.wait_for(these.resolve(), 5) == "hub"
    assert these.asked_now() == ["hub"]
    these["near"].hangs = None
    time.now += 15
    assert await these.resolve() == "near"


async def test_a_blob_is_hedged_until_its_first_byte_and_the_losers_connection_is_given_back(
    these: These,
) -> None:
    these["near"].connections = 1
    these["near"].hangs = asyncio.Event()
    asking = asyncio.create_task(these.blob())
    await these.late()
    stream = await asking
    assert stream.source == "hub"
    assert (these["near"].open, these["hub"].open) == (0, 1)
    these["near"].hangs = None
    these["hub"].error = DOWN
    assert (await these.blob()).source == "near"  # its one connection is free


async def test_a_blob_of_which_no_byte_comes_is_asked_of_the_next(these: These) -> None:
    mute = these["near"]
    open_stream = mute.blob

    async def blob(
        asker: Asker, repository: Repository, digest: Digest, range: ByteRange | None = None
    ) -> StreamContent:
        stream = await open_stream(asker, repository, digest, range)
        mute.streams[-1].mute = True
        return stream

    mute.blob = blob  # type: ignore[method-assign]
    assert (await these.blob()).source == "hub"
    assert mute.open == 0


async def test_no_hedge_goes_where_pulls_are_scarce(these: These) -> None:
    these["hub"].scarce = True
    these["near"].hangs = asyncio.Event()
    asking = asyncio.create_task(these.manifest())
    await these.late()
    await asyncio.sleep(0)
    these["near"].hangs.set()
    assert await asking == "near"
    assert these.asked_now() == ["near"]


# Connections


async def test_never_more_connections_to_an_endpoint_than_it_bears(these: These) -> None:
    these["near"].connections = 4  # of which one is for small asks
    these["hub"].connections = 2
    streams = [await these.blob() for _ in range(4)]
    assert (these["near"].open, these["hub"].open) == (3, 1)
    waiting = asyncio.create_task(these.blob())
    assert await these.manifest() in these.stubs  # which does not wait behind the blobs
    assert not waiting.done()
    assert these["near"].open + these["hub"].open == 4
    await streams[0].close()
    await streams[0].close()  # twice is once
    await these.late()  # who waits looks for a free one now and then
    await asyncio.wait_for(waiting, 10)
    assert these["near"].open <= 3
    assert these["hub"].open <= 1


async def test_no_hedge_beyond_the_connections(these: These) -> None:
    these["hub"].connections = 1
    these["near"].error = DOWN
    held = await these.blob()
    assert held.source == "hub"
    these._time.now += 20
    these["near"].error = None
    these["near"].hangs = asyncio.Event()
    asking = asyncio.create_task(these.blob())
    await these.late()
    await asyncio.sleep(0)
    these["near"].hangs.set()
    assert (await asking).source == "near"
    assert len(these["hub"].streams) == 1


# Slow ones


async def read_on(stream: StreamContent) -> None:
    for _ in range(100):
        assert await stream.read()


async def test_a_stream_that_is_much_slower_than_another_endpoint_is_left(
    these: These, time: HandClock
) -> None:
    these["near"].speed, these["hub"].speed = 20e6, 20e6
    first, second = await these.blob(), await these.blob()
    for stream in (first, second):
        for _ in range(10):
            await stream.read()
        await stream.close()
    these["near"].speed = 1e6
    slow = await these.blob()
    assert slow.source == "near"
    assert await slow.read()
    with pytest.raises(Unavailable, match="another endpoint sent at"):
        await read_on(slow)
    await slow.close()
    assert (await these.blob()).source == "hub"


async def test_a_slow_stream_goes_on_where_there_is_no_faster_endpoint(these: These) -> None:
    these["near"].speed, these["hub"].speed = 1e6, 2e6
    first, second = await these.blob(), await these.blob()
    for stream in (first, second):
        await read_on(stream)
