"""Endpoints that fall silent: another is asked beside, and the first to speak goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from mirror.clock import Clock
from mirror.contracts.upstream import StreamContent
from mirror.events import Events
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import RangeInvalid, RateLimited, RegistryError, Unavailable
from mirror.oci.ranges import ByteRange
from mirror.upstream.endpoint import Trust
from mirror.upstream.pool.bandwidth import Bandwidth
from mirror.upstream.pool.endpoint_state import EndpointState, Member
from mirror.upstream.pool.pool import Pool

from ..fakes import CONTEXT, NamedStream, NamedUpstream, request_of
from ..jumping import jump
from .conftest import REDIS, Counts

DATA = bytes(range(256)) * 4096  # 1 MiB
DIGEST = Digest.of(DATA)
PIECE = 1 << 16
HALF = len(DATA) // 2 + 77
FOR_EVER = 1e6


@dataclass(frozen=True)
class Plan:
    """How one ask goes: `head` seconds until it is answered, and from the offset `stop` on `silent`
    seconds before each piece of `piece` bytes, or an end of the connection (`cut`)."""

    head: float = 0.0
    stop: int = len(DATA)
    silent: float = FOR_EVER
    piece: int = PIECE
    cut: bool = False
    fails: RegistryError | None = None
    takes_ranges: bool = True
    size: int | None = len(DATA)


WELL = Plan()


class Stream(NamedStream):
    def __init__(self, voice: Voice, plan: Plan, start: int, stop: int | None) -> None:
        described = Descriptor(OCTET_STREAM, DIGEST, plan.size)
        super().__init__(voice.name, described, start, voice.trust is Trust.TAGS)
        self.position = start
        self._plan, self._stop = plan, stop or len(DATA)
        self._comes_at: float | None = None

    async def read(self) -> bytes:
        assert not self.closed
        plan, size = self._plan, PIECE
        if self.position < plan.stop:
            size = min(size, plan.stop - self.position)
        elif self.position < self._stop:
            if plan.cut:
                raise Unavailable(f"{self.source} cut a blob short")
            now = asyncio.get_running_loop().time()
            self._comes_at = self._comes_at or now + plan.silent  # also when read() is called again
            await asyncio.sleep(self._comes_at - now)
            self._comes_at, size = None, plan.piece
        piece = DATA[self.position : min(self.position + size, self._stop)]
        self.position += len(piece)
        return piece


class Voice(NamedUpstream):
    """An endpoint whose asks go by these plans, one after the other, and from then on by the last.
    It tells when it was asked, in seconds since the first."""

    def __init__(self, name: str, *plans: Plan, trust: Trust = Trust.TAGS) -> None:
        self.name, self.plans, self.trust = name, plans, trust
        self.asked: list[tuple[float, ByteRange | None]] = []
        self.left = 0  # asks that were cancelled
        self.streams: list[Stream] = []
        self._first_at = 0.0

    @property
    def times(self) -> list[float]:
        return [round(time, 1) for time, _ in self.asked]

    async def _answer(self, range: ByteRange | None = None) -> Plan:
        now = asyncio.get_running_loop().time()
        self._first_at = self._first_at or now
        plan = self.plans[min(len(self.asked), len(self.plans) - 1)]
        self.asked.append((now - self._first_at, range))
        try:
            await asyncio.sleep(plan.head)
        except asyncio.CancelledError:
            self.left += 1
            raise
        if plan.fails is not None:
            raise plan.fails
        return plan

    async def _blob(self, range: ByteRange | None) -> Stream:
        plan = await self._answer(range)
        start = range.start if range and plan.takes_ranges else 0
        if range and start >= len(DATA):
            raise RangeInvalid(len(DATA))
        self.streams.append(Stream(self, plan, start, range.stop if range else None))
        return self.streams[-1]


@dataclass
class Taken:
    """What came of a blob, from whom, and after how many seconds; and what ended it."""

    data: bytes
    sources: list[str]
    seconds: float
    error: RegistryError | None = None

    @property
    def is_whole(self) -> bool:
        return self.data == DATA and self.error is None


def pool_of(
    *voices: Voice,
    connections: int = 32,
    counts: Counts | None = None,
    bandwidth: Bandwidth | None = None,
) -> Pool:
    members = [Member(voice.name, voice, voice.trust, connections) for voice in voices]
    clock = Clock(monotonic=asyncio.get_running_loop().time)
    events = counts or Events()
    endpoints = [EndpointState(member, clock, events) for member in members]
    return Pool(endpoints, clock, events=events, bandwidth=bandwidth)


async def take(pool: Pool, range: ByteRange | None = None) -> Taken:
    loop = asyncio.get_running_loop()
    began, taken = loop.time(), Taken(b"", [], 0.0)
    try:
        body = await pool.blob(CONTEXT, REDIS, DIGEST, range)
        try:
            while piece := await body.read():
                taken.data += piece
                if [body.source] != taken.sources[-1:]:
                    taken.sources.append(body.source)
        finally:
            await body.close()
    except RegistryError as error:
        taken.error = error
    taken.seconds = loop.time() - began
    return taken


def taken_from(*voices: Voice, connections: int = 32, counts: Counts | None = None) -> Taken:
    """The blob as it comes from these. Whatever happens, no connection is left open."""

    async def scenario() -> Taken:
        pool = pool_of(*voices, connections=connections, counts=counts)
        taken = await take(pool)
        assert all(stream.closed for voice in voices for stream in voice.streams)
        assert pool._all[0].slots.blobs_held == 0
        return taken

    return jump(scenario())


def after(seconds: float, ask: Callable[[Pool], Awaitable[object]], *voices: Voice) -> object:
    """The answer, which has to come within so many seconds."""

    async def scenario() -> object:
        async with asyncio.timeout(seconds):
            return await ask(pool_of(*voices))

    return jump(scenario())


ASKS: list[Callable[[Pool], Awaitable[object]]] = [
    lambda pool: pool.resolve(CONTEXT, REDIS, "7"),
    lambda pool: pool.manifest(CONTEXT, REDIS, DIGEST),
    lambda pool: pool.stat(CONTEXT, REDIS, DIGEST),
    lambda pool: pool.blob(CONTEXT, REDIS, DIGEST),
]
EACH_ASK = pytest.mark.parametrize("ask", ASKS, ids=["tag", "manifest", "stat", "blob"])


# In the middle of a body


def test_f03_one_endpoint_that_falls_silent_is_asked_again_beside_from_the_byte() -> None:
    counts = Counts()
    voice = Voice("a", Plan(stop=HALF), WELL)
    taken = taken_from(voice, counts=counts)
    assert taken.is_whole
    assert taken.seconds < 10
    assert [asked for _, asked in voice.asked] == [None, ByteRange(HALF)]
    assert counts.hedges == [("a", True)]


def test_f03_two_endpoints_that_both_fall_silent_once() -> None:
    near, far = Voice("near", Plan(stop=HALF), WELL), Voice("far", Plan(stop=HALF + 9), WELL)
    taken = taken_from(near, far)
    assert taken.is_whole
    assert taken.seconds < 8
    assert taken.sources == ["near", "far", "near"]


def test_f03_the_next_is_asked_when_the_one_beside_says_nothing_either() -> None:
    near, far = Voice("near", Plan(stop=HALF), WELL), Voice("far", Plan(head=FOR_EVER))
    taken = taken_from(near, far)
    assert taken.is_whole
    assert taken.seconds < 8
    assert (far.left, taken.sources) == (1, ["near"])


def test_f03_who_was_only_slow_to_go_on_is_not_left() -> None:
    voice = Voice("a", Plan(stop=HALF, silent=9.0, piece=len(DATA)), Plan(head=FOR_EVER))
    taken = taken_from(voice)
    assert taken.is_whole
    assert taken.seconds == pytest.approx(9.0, abs=0.5)
    assert len(voice.streams) == 1
    assert voice.left == len(voice.asked) - 1  # those beside it are given up


def test_f03_silence_everywhere_has_an_end() -> None:
    near, far = Voice("near", Plan(stop=HALF)), Voice("far", Plan(head=FOR_EVER))
    taken = taken_from(near, far)
    assert isinstance(taken.error, Unavailable)
    assert "nothing for 45 s" in taken.error.message
    assert taken.data == DATA[:HALF]
    assert taken.seconds == pytest.approx(45, abs=1)
    assert len(near.asked) + len(far.asked) <= 6


def test_f03_crumbs_between_silences_have_an_end_too() -> None:
    """Each connection brings a byte, and no more: no watch is begun anew for ever."""
    crumb = Plan(stop=HALF)
    voice = Voice("a", crumb, *(replace_stop(crumb, HALF + n) for n in range(1, 1000)))
    taken = taken_from(voice)
    assert isinstance(taken.error, Unavailable)
    assert "bytes/s" in taken.error.message
    assert taken.seconds < 65


def test_f10_a_drip_over_the_only_connection_has_an_end() -> None:
    taken = taken_from(Voice("a", Plan(stop=HALF, silent=1.0, piece=1)))
    assert isinstance(taken.error, Unavailable)
    assert "bytes/s" in taken.error.message
    assert 30 <= taken.seconds < 62  # two windows, of which the first had good bytes too


def test_f10_a_drip_that_is_slower_than_silence_counts_all_its_waiting() -> None:
    drip = Plan(stop=HALF, silent=3.0, piece=1)
    taken = taken_from(Voice("a", drip, Plan(head=FOR_EVER)))
    assert isinstance(taken.error, Unavailable)
    assert "bytes/s" in taken.error.message
    assert 30 <= taken.seconds < 65


# Drips


DRIP = Plan(stop=HALF, silent=1.0, piece=1)


def test_beside_a_drip_another_endpoint_is_asked_and_goes_on() -> None:
    counts = Counts()
    near, far = Voice("near", DRIP), Voice("far", WELL)
    taken = taken_from(near, far, counts=counts)
    assert taken.is_whole
    assert taken.seconds < 11
    assert taken.sources == ["near", "far"]
    assert len(far.asked) == 1
    assert counts.hedges == [("far", True)]


def test_beside_a_drip_the_only_endpoint_is_asked_once_more() -> None:
    taken = taken_from(Voice("a", DRIP, WELL))
    assert taken.is_whole
    assert taken.seconds < 11


def test_beside_a_drip_from_the_first_byte_on_another_is_asked_sooner() -> None:
    near, far = Voice("near", Plan(stop=0, silent=1.0, piece=1)), Voice("far", WELL)
    taken = taken_from(near, far)
    assert taken.is_whole
    assert taken.seconds < 7


def test_a_drip_goes_on_while_nobody_brings_it_sooner() -> None:
    """Beside it others are silent, refuse, or break; its own rest comes after a while."""
    soon = Plan(stop=HALF, silent=1.0, piece=1)
    for other in (Plan(head=FOR_EVER), Plan(fails=Unavailable("503")), Plan(stop=HALF, cut=True)):
        near, far = Voice("near", soon, Plan(head=FOR_EVER)), Voice("far", other)
        goes_on_by_itself(near, after=20)
        taken = taken_from(near, far)
        assert taken.is_whole
        assert taken.sources == ["near"]


def test_what_is_slow_at_every_endpoint_comes_over_the_first_connection() -> None:
    """A modem: nothing that is under way is given up for what is no quicker."""
    slow = Plan(stop=0, silent=1.0, piece=6 << 10)
    near, far = Voice("near", slow), Voice("far", slow)
    taken = taken_from(near, far)
    assert taken.is_whole
    assert taken.sources == ["near"]
    assert taken.seconds == pytest.approx(len(DATA) / (6 << 10), rel=0.05)


def test_a_connection_far_slower_than_the_endpoint_usually_is_has_another_beside() -> None:
    crawl = Plan(stop=HALF, silent=1.0, piece=8 << 10)

    async def scenario() -> Taken:
        pool = pool_of(voice)
        pool._all[0].speed.took(100 << 20, 1.0)
        return await take(pool)

    voice = Voice("a", crawl, WELL)
    taken = jump(scenario())
    assert taken.is_whole
    assert taken.seconds < 11


def test_an_endpoint_that_was_left_for_a_faster_one_is_known_to_be_slow() -> None:
    near, far = Voice("near", Plan(stop=0, silent=1.0)), Voice("far", WELL)

    async def scenario() -> list[Taken]:
        pool = pool_of(near, far)
        pool._all[1].speed.took(10 << 20, 1.0)
        first = await take(pool)
        await asyncio.sleep(20)  # longer than others go first
        return [first, await take(pool)]

    first, second = jump(scenario())
    assert isinstance(first.error, Unavailable)  # to be resumed at the other
    assert second.sources == ["far"]


def test_downloads_that_share_a_slow_line_are_not_given_up_for_it() -> None:
    """Twenty at 60 kB/s have 3 kB/s each."""
    part = Plan(stop=0, silent=1.0, piece=3000)
    near, far = Voice("near", part), Voice("far", part)

    async def scenario() -> list[Taken]:
        pool = pool_of(near, far)
        return await asyncio.gather(*(take(pool) for _ in range(20)))

    assert all(taken.is_whole for taken in jump(scenario()))
    assert len(near.asked) + len(far.asked) == 20


def test_a_quick_registry_is_no_reason_to_give_up_downloads_that_share_a_slow_line() -> None:
    far = Voice("far", Plan(stop=0, silent=1.0, piece=3000))
    near = Voice("near", Plan(stop=0, silent=0.1))

    async def scenario() -> list[Taken]:
        bandwidth = Bandwidth(Clock(monotonic=asyncio.get_running_loop().time))
        quick, slow = pool_of(near, bandwidth=bandwidth), pool_of(far, bandwidth=bandwidth)

        async def without_end() -> None:
            while True:
                await take(quick)

        beside = asyncio.ensure_future(without_end())
        taken = await asyncio.gather(*(take(slow) for _ in range(20)))
        beside.cancel()
        return taken

    assert all(taken.is_whole for taken in jump(scenario()))
    assert len(far.asked) == 20


def test_downloads_of_several_registries_share_a_slow_line() -> None:
    """The one download of a registry has as much as each of the twenty of another."""
    far, one = (Voice(name, Plan(stop=0, silent=1.0, piece=3000)) for name in ("far", "one"))

    async def scenario() -> Taken:
        bandwidth = Bandwidth(Clock(monotonic=asyncio.get_running_loop().time))
        many, few = pool_of(far, bandwidth=bandwidth), pool_of(one, bandwidth=bandwidth)
        others = [asyncio.ensure_future(take(many)) for _ in range(20)]
        taken = await take(few)
        await asyncio.gather(*others)
        return taken

    assert jump(scenario()).is_whole
    assert len(one.asked) == 1


def test_one_that_drips_is_given_up_beside_others_that_do_not() -> None:
    drips, well = Voice("a", DRIP), Voice("b", Plan(stop=0, silent=1.0, piece=4 << 10))

    async def scenario() -> Taken:
        bandwidth = Bandwidth(Clock(monotonic=asyncio.get_running_loop().time))
        others = [asyncio.ensure_future(take(pool_of(well, bandwidth=bandwidth))) for _ in range(5)]
        taken = await take(pool_of(drips, bandwidth=bandwidth))
        for other in others:
            other.cancel()
        await asyncio.wait(others)
        return taken

    taken = jump(scenario())
    assert isinstance(taken.error, Unavailable)
    assert taken.seconds < 65


def test_who_leaves_while_a_drip_has_a_rival_leaves_nothing_open() -> None:
    near, far = Voice("near", DRIP), Voice("far", Plan(stop=HALF + PIECE // 2))

    async def scenario() -> None:
        pool = pool_of(near, far)
        body = await pool.blob(CONTEXT, REDIS, DIGEST)
        reading = asyncio.ensure_future(read_all(body))
        await asyncio.sleep(12)
        reading.cancel()
        await asyncio.wait([reading])
        await body.close()
        assert len(far.streams) == 1
        assert all(stream.closed for voice in (near, far) for stream in voice.streams)
        assert [one.slots.blobs_held for one in pool._all] == [0, 0]

    jump(scenario())


def test_what_one_says_of_the_size_is_not_taken_for_anothers_word() -> None:
    """Who said what is held against each when the whole turns out wrong."""
    near, far = Voice("near", Plan(stop=HALF)), Voice("far", Plan(size=None))

    async def scenario() -> None:
        body = await pool_of(near, far).blob(CONTEXT, REDIS, DIGEST)
        while await body.read():
            said = len(DATA) if body.source == "near" else None
            assert body.descriptor.size == said
        assert body.source == "far"
        await body.close()

    jump(scenario())


def test_f02_a_silent_connection_that_breaks_ends_nothing_while_another_is_asked() -> None:
    near = Voice("near", Plan(stop=HALF, silent=3.0, piece=0), WELL)
    far = Voice("far", Plan(head=4.0))
    near_stream_breaks(near)
    taken = taken_from(near, far)
    assert taken.is_whole
    assert taken.sources == ["near", "far"]


def test_f03_where_no_connection_is_left_the_silent_one_makes_room() -> None:
    taken = taken_from(Voice("a", Plan(stop=HALF)), connections=1)
    assert isinstance(taken.error, Unavailable)
    assert taken.seconds == pytest.approx(6, abs=1)


def test_f07_who_ignores_the_range_is_read_up_to_the_byte() -> None:
    voice = Voice("a", Plan(stop=HALF), Plan(takes_ranges=False))
    taken = taken_from(voice)
    assert taken.is_whole
    assert taken.seconds < 10


@pytest.mark.parametrize(
    "other", [Plan(size=len(DATA) - 1), Plan(fails=Unavailable("503")), Plan(stop=HALF, cut=True)]
)
def test_who_cannot_go_on_ends_nothing(other: Plan) -> None:
    near, far = Voice("near", Plan(stop=HALF, silent=7.0, piece=len(DATA))), Voice("far", other)
    near.plans = (*near.plans, Plan(head=FOR_EVER))
    taken = taken_from(near, far)
    assert taken.is_whole
    assert taken.sources == ["near"]


def test_a_part_is_asked_for_up_to_its_end() -> None:
    voice = Voice("a", Plan(stop=HALF), WELL)
    part = ByteRange(PIECE, HALF + 1000)
    taken = jump(in_pool(lambda pool: take(pool, part), voice))
    assert taken.data == DATA[part.start : part.stop]
    assert voice.asked[1][1] == ByteRange(HALF, part.stop)


def test_beside_a_part_of_which_every_byte_has_come_no_rest_is_asked_for() -> None:
    voice, part = Voice("a", Plan(stop=0, silent=0.25, piece=1)), ByteRange(10, 15)
    taken = jump(in_pool(lambda pool: take(pool, part), voice))
    assert taken.data == DATA[10:15]
    assert len(voice.asked) == 1


def test_bytes_are_the_word_of_who_brought_them() -> None:
    """Of a body that changes endpoints, each part is vouched for, and rejected, by its own."""
    stranger = Voice("near", Plan(stop=HALF), Plan(head=FOR_EVER), trust=Trust.CONTENT)
    registry = Voice("hub", WELL)

    async def scenario() -> None:
        body = await pool_of(stranger, registry).blob(CONTEXT, REDIS, DIGEST)
        assert (body.source, body.vouched) == ("near", False)
        first = body.reject
        came = 0
        while piece := await body.read():
            came += len(piece)
            assert body.vouched is (came > HALF)
        assert (came, body.source) == (len(DATA), "hub")
        first("wrong")
        assert stranger.streams[0].rejected == ["wrong"]
        assert registry.streams[0].rejected == []
        await body.close()

    jump(scenario())


def test_what_has_to_be_vouched_for_goes_on_at_the_registry_alone() -> None:
    stranger = Voice("near", WELL, trust=Trust.CONTENT)
    registry = Voice("hub", Plan(stop=HALF), WELL)

    async def scenario() -> None:
        body = await pool_of(stranger, registry).blob(
            CONTEXT, REDIS, DIGEST, ByteRange(0), vouched=True
        )
        while await body.read():
            assert body.vouched
        await body.close()

    jump(scenario())
    assert stranger.asked == []


def test_who_leaves_while_others_are_asked_leaves_nothing_open() -> None:
    near, far = Voice("near", Plan(stop=HALF)), Voice("far", Plan(head=FOR_EVER))

    async def scenario() -> None:
        pool = pool_of(near, far)
        body = await pool.blob(CONTEXT, REDIS, DIGEST)
        reading = asyncio.ensure_future(read_all(body))
        await asyncio.sleep(8)
        reading.cancel()
        await asyncio.wait([reading])
        await body.close()
        assert far.left >= 1
        assert all(stream.closed for voice in (near, far) for stream in voice.streams)
        assert [one.slots.blobs_held for one in pool._all] == [0, 0]

    jump(scenario())


def test_a_slow_link_is_asked_besides_a_few_times_and_then_waited_for() -> None:
    """All that it has to give is given: more connections only share it."""
    slow = Plan(stop=PIECE, silent=3.0)
    late = Plan(head=FOR_EVER)
    voice = Voice("a", *[slow] * 8, late)

    async def scenario() -> list[Taken]:
        pool = pool_of(voice)
        return await asyncio.gather(*(take(pool) for _ in range(8)))

    assert all(taken.is_whole for taken in jump(scenario()))
    assert len(voice.asked) <= 8 + 8 + 5  # and a few more that time has allowed


def test_one_who_asks_besides_in_vain_keeps_nobody_else_from_it() -> None:
    never = Plan(head=FOR_EVER)
    voice = Voice("a", *[never] * 40, WELL)

    async def scenario() -> object:
        pool = pool_of(voice)
        vain = [asyncio.ensure_future(pool.resolve(CONTEXT, REDIS, "7")) for _ in range(20)]
        await asyncio.sleep(60)
        asked = len(voice.asked)
        assert asked <= 20 + 8 + 6
        voice.plans = (*[never] * (asked + 1), WELL)
        try:
            async with asyncio.timeout(5):
                return await pool.resolve(request_of("another"), REDIS, "7")
        finally:
            for one in vain:
                one.cancel()
            await asyncio.gather(*vain, return_exceptions=True)

    assert jump(scenario()) is not None


# Before the first byte


@EACH_ASK
def test_f23_an_only_endpoint_that_says_nothing_once_is_asked_again_beside(
    ask: Callable[[Pool], Awaitable[object]],
) -> None:
    voice = Voice("a", Plan(head=FOR_EVER), WELL)
    assert after(5, ask, voice) is not None
    assert voice.times == [0, 2]


@EACH_ASK
def test_f23_an_answer_that_takes_35_s_comes(ask: Callable[[Pool], Awaitable[object]]) -> None:
    voice = Voice("a", Plan(head=35))
    assert after(36, ask, voice) is not None
    assert 2 <= len(voice.asked) <= 4


def test_a_first_byte_that_comes_35_s_after_its_head_comes() -> None:
    taken = taken_from(Voice("a", Plan(stop=0, silent=35, piece=len(DATA))))
    assert taken.is_whole
    assert taken.seconds == pytest.approx(35, abs=0.5)


def test_a_first_byte_that_never_comes_has_an_end() -> None:
    voice = Voice("a", Plan(stop=0))
    taken = taken_from(voice)
    assert isinstance(taken.error, Unavailable)
    assert taken.seconds < 80
    assert len(voice.asked) <= 6


# Limits that are soon over


@pytest.mark.parametrize("ask", ASKS[:-1], ids=["tag", "manifest", "stat"])
def test_f20_a_limit_that_does_not_say_when_it_ends_is_tried_again_soon_and_ever_later(
    ask: Callable[[Pool], Awaitable[object]],
) -> None:
    limited = Plan(fails=RateLimited("429"))
    voice = Voice("a", limited, limited, limited, WELL)
    assert after(12, ask, voice) is not None
    assert voice.times == [0, 1, 3, 7]


def test_f20_a_limit_that_lasts_is_told_within_a_tags_patience() -> None:
    voice = Voice("a", Plan(fails=RateLimited("429")))
    with pytest.raises(RateLimited):
        after(10, ASKS[0], voice)
    assert len(voice.asked) <= 4


def test_f20_a_limit_that_says_that_it_lasts_is_told_at_once() -> None:
    voice = Voice("a", Plan(fails=RateLimited("429", retry_after=60)))
    with pytest.raises(RateLimited):
        after(1, ASKS[0], voice)
    assert len(voice.asked) == 1


async def read_all(body: StreamContent) -> None:
    while await body.read():
        pass


async def in_pool(what: Callable[[Pool], Awaitable[Taken]], *voices: Voice) -> Taken:
    return await what(pool_of(*voices))


def replace_stop(plan: Plan, stop: int) -> Plan:
    return Plan(stop=stop, silent=plan.silent)


def goes_on_by_itself(voice: Voice, after: int) -> None:
    """What drips comes whole after so many reads of its first stream."""
    ask = voice.blob

    async def blob(*arguments: object, **more: object) -> StreamContent:
        stream = await ask(*arguments, **more)  # type: ignore[arg-type]
        read, drops = stream.read, 0

        async def reads() -> bytes:
            nonlocal drops
            piece = await read()
            drops += len(piece) == 1
            if drops >= after and stream is voice.streams[0]:
                voice.streams[0]._plan = WELL
            return piece

        stream.read = reads  # type: ignore[method-assign]
        return stream

    voice.blob = blob  # type: ignore[method-assign]


def near_stream_breaks(voice: Voice) -> None:
    """What comes after its silence is the end of the connection."""
    ask = voice.blob

    async def blob(*arguments: object, **more: object) -> StreamContent:
        stream = await ask(*arguments, **more)  # type: ignore[arg-type]
        read = stream.read

        async def reads() -> bytes:
            piece = await read()
            if not piece and stream is voice.streams[0]:
                raise Unavailable("near cut a blob short")
            return piece

        stream.read = reads  # type: ignore[method-assign]
        return stream

    voice.blob = blob  # type: ignore[method-assign]
