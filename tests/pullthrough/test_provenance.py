"""Wrong bytes, when more than one endpoint had a part in them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills import provenance as sources
from mirror.pullthrough.fills.fill import SMALL
from mirror.pullthrough.fills.parallel import ParallelPolicy
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.provenance import Sources
from mirror.pullthrough.fills.table import Fills
from mirror.storage.disk.store import DiskContent

from ..fakes import CONTEXT, FakeStream, FakeUpstream
from ..waiting import eventually
from .test_fills import REDIS, read_all

PART = SMALL // 2
DATA = random.Random(4).randbytes(16 * PART)
LIE = DATA.translate(bytes(range(255, -1, -1)))
DIGEST = Digest.of(DATA)


class Stream(FakeStream):
    """Of one of several endpoints. `turns`: at these offsets it falls silent, and the next one goes
    on."""

    turns: Sequence[int] = ()

    async def read(self) -> bytes:
        assert isinstance(self._upstream, Endpoints)
        if any(self.start < turn <= self._position for turn in self.turns):
            self.turns = [turn for turn in self.turns if turn > self._position]
            self.source = "liar" if self.source == "honest" else "honest"
            self._data = self._upstream.data_of(self.source)[: len(self._data)]
        return await super().read()

    @property
    def reject(self) -> Callable[[str], None]:  # type: ignore[override]
        upstream, source = self._upstream, self.source
        return lambda reason: upstream.rejected.append(source)


class Endpoints(FakeUpstream):
    """Two endpoints that are asked in turn, as long as they are not known to have lied."""

    def __init__(self) -> None:
        super().__init__()
        self.piece = 1 << 15
        self.blobs[DIGEST] = DATA
        self.liars = {"liar"}
        self.names = ["honest", "liar"]
        self.says: dict[str, int] = {}  # the size, when another than it is
        self.breaks_at: int | None = None  # each stream that begins before it
        self.sends_nothing: set[str] = set()
        self.turns: Sequence[int] = ()
        self.most = 0
        self.before_read = self._slowly  # type: ignore[assignment]

    def data_of(self, name: str) -> bytes:
        return LIE if name in self.liars else DATA

    async def _slowly(self, position: int) -> None:
        self.most = max(self.most, self.open_streams)
        await asyncio.sleep(0.002)  # slow enough to be parted

    async def blob(self, asker, repository, digest, range=None, vouched=False) -> FakeStream:  # type: ignore[no-untyped-def,override]
        await super().blob(asker, repository, digest, range)
        start = range.start if range else 0
        stop = range.stop if range and range.stop else len(DATA)
        name = next(name for name in self.names if name not in self.rejected)
        self.names.append(self.names.pop(0))
        data = self.data_of(name)
        stream = Stream(digest, data[:stop], self.says.get(name, len(DATA)), start, self)
        stream.source, stream.turns = name, self.turns
        if self.breaks_at is not None and start < self.breaks_at:
            stream._data = data[: self.breaks_at]
        if name in self.sends_nothing:
            stream._data = data[:start]
        return stream


@pytest.fixture
def upstream() -> Endpoints:
    return Endpoints()


@pytest.fixture
def parting() -> ParallelPolicy:
    return ParallelPolicy(over=4 * PART, part=PART, measure=0.02, gain=0)


@pytest.fixture
async def fills(store: DiskContent, parting: ParallelPolicy) -> AsyncIterator[Fills]:
    quick = DownloadPatience(first_byte=1, stalled=1, pause=0.01, longest_pause=0.02)
    fills = Fills(store, Events(), patience=quick, parting=parting)
    yield fills
    await fills.close()


async def fails(cache: PullThrough) -> None:
    content = await cache.blob(CONTEXT, REDIS, DIGEST)
    with pytest.raises(Untrustworthy):
        await read_all(content)


async def test_f01_of_several_sources_only_the_liar_is_blamed(
    cache: PullThrough, upstream: Endpoints
) -> None:
    await fails(cache)
    assert upstream.most > 1
    assert upstream.rejected == []
    upstream.names = ["honest", "liar"]
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    await eventually(lambda: upstream.rejected)
    assert upstream.rejected == ["liar"]


async def test_f01_after_wrong_bytes_of_several_sources_one_brings_the_whole(
    cache: PullThrough, upstream: Endpoints
) -> None:
    await fails(cache)
    asked = upstream.asked["blob"]
    upstream.names = ["liar", "honest"]
    await fails(cache)
    assert upstream.asked["blob"] == asked + 1
    assert upstream.rejected == ["liar"]
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    assert set(upstream.rejected) == {"liar"}


async def silent_by_turns(cache: PullThrough, upstream: Endpoints, first: str) -> None:
    upstream.names.sort(key=lambda name: name != first)
    upstream.turns = range(PART // 2, len(DATA), PART)
    await fails(cache)
    assert upstream.rejected == []
    upstream.turns, upstream.names = (), ["honest", "liar"]
    assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
    await eventually(lambda: upstream.rejected)
    assert upstream.rejected == ["liar"]


@pytest.mark.parametrize("first", ["honest", "liar"])
async def test_f03_in_parts_who_goes_on_after_a_silence_is_not_blamed_for_who_began(
    cache: PullThrough, upstream: Endpoints, first: str
) -> None:
    await silent_by_turns(cache, upstream, first)


class TestOneAfterTheOther:
    @pytest.fixture
    def parting(self) -> ParallelPolicy:
        return ParallelPolicy(connections=1)

    @pytest.mark.parametrize("first", ["honest", "liar"])
    async def test_f03_who_goes_on_after_a_silence_is_not_blamed_for_who_began(
        self, cache: PullThrough, upstream: Endpoints, first: str
    ) -> None:
        await silent_by_turns(cache, upstream, first)

    @pytest.mark.parametrize("first", ["honest", "liar"])
    async def test_f01_who_went_on_is_not_blamed_for_who_began(
        self, cache: PullThrough, upstream: Endpoints, first: str
    ) -> None:
        upstream.names.sort(key=lambda name: name != first)
        upstream.breaks_at = 8 * PART
        await fails(cache)
        assert upstream.rejected == []
        upstream.breaks_at = None
        upstream.names = ["honest", "liar"]
        assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
        await eventually(lambda: upstream.rejected)
        assert upstream.rejected == ["liar"]

    async def test_f04_of_two_sizes_the_one_that_was_not_proven_was_the_lie(
        self, cache: PullThrough, upstream: Endpoints
    ) -> None:
        upstream.liars = set()
        upstream.says["liar"] = len(DATA) - 1
        upstream.breaks_at = 8 * PART
        await fails(cache)
        assert upstream.rejected == []
        upstream.breaks_at = None
        upstream.names = ["honest", "liar"]
        assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
        await eventually(lambda: upstream.rejected)
        assert upstream.rejected == ["liar"]

    async def test_f04_two_sizes_before_any_byte_are_told_as_what_they_are(
        self, cache: PullThrough, upstream: Endpoints
    ) -> None:
        upstream.liars = set()
        upstream.says["liar"] = len(DATA) - 1
        upstream.sends_nothing = {"honest"}
        with pytest.raises(Untrustworthy, match="liar says"):
            await read_all(await cache.blob(CONTEXT, REDIS, DIGEST))
        assert upstream.rejected == []
        upstream.sends_nothing = set()
        upstream.names = ["honest", "liar"]
        assert await read_all(await cache.blob(CONTEXT, REDIS, DIGEST)) == DATA
        await eventually(lambda: upstream.rejected)
        assert set(upstream.rejected) == {"liar"}

    async def test_who_was_told_to_be_wrong_by_a_break_is_one_source_still(
        self, cache: PullThrough, upstream: Endpoints
    ) -> None:
        upstream.names = ["liar"]
        upstream.breaks_at = 8 * PART
        await fails(cache)
        assert upstream.rejected == ["liar"]

    async def test_what_another_endpoint_was_asked_for_in_vain_makes_nobody_else_a_liar(
        self, cache: PullThrough, upstream: Endpoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream.names, upstream.liars = ["honest"], set()
        upstream.breaks_at = 8 * PART
        ask = upstream.blob

        async def lies(asker, repository, digest, range=None, vouched=False) -> FakeStream:  # type: ignore[no-untyped-def]
            if range is not None:
                raise Untrustworthy("another part than was asked for")
            return await ask(asker, repository, digest, range)

        monkeypatch.setattr(upstream, "blob", lies)
        await fails(cache)
        assert upstream.rejected == []


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_SPANS", 10)
    these = Sources(strangers=False)
    for number in range(100):
        these.brought(str(number % 2), number, number + 1)
    assert len(these.spans) == 10
    assert these.culprit is None
    one = Sources(strangers=False)
    for number in range(100):
        one.brought("one", number, number + 1)
    assert len(one.spans) == 1
    assert one.culprit == "one"
