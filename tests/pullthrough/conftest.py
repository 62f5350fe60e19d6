from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mirror.clock import Clock
from mirror.pullthrough.cache import PullThrough
from mirror.pullthrough.fills.patience import DownloadPatience
from mirror.pullthrough.fills.table import Fills
from mirror.pullthrough.freshness import Freshness, Rules
from mirror.pullthrough.policy import AnswerPatience as Waiting
from mirror.pullthrough.policy import CachePolicy, TroublePatience
from mirror.pullthrough.shared import Shared

from ..fakes import FakeTags, FakeUpstream, HandClock, MemoryContent, Recorder


@pytest.fixture
def wall() -> HandClock:
    return HandClock()


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
def tags() -> FakeTags:
    return FakeTags()


@pytest.fixture
def store() -> MemoryContent:
    return MemoryContent()


@pytest.fixture
def told() -> Recorder:
    """What the fills and their cache tell."""
    return Recorder()


@pytest.fixture
async def fills(store: MemoryContent, told: Recorder) -> AsyncIterator[Fills]:
    quick = DownloadPatience(first_byte=1, stalled=1, pause=0.01, longest_pause=0.02)
    fills = Fills(store, told, patience=quick)
    yield fills
    await fills.close()


@pytest.fixture
async def cache(
    upstream: FakeUpstream, store: MemoryContent, tags: FakeTags, fills: Fills, wall: HandClock
) -> AsyncIterator[PullThrough]:
    cache = PullThrough(
        upstream,
        Shared.over(store, tags, fills, clock=Clock(wall=wall)),
        CachePolicy(
            Rules((), Freshness(ttl=300, stale=3600, negative_ttl=30)),
            patience=Waiting(stale=0.1, unknown=0.5),
            trouble=TroublePatience(promised=1, other=0.5, lagging=0.1, pause=0.01),
        ),
    )
    yield cache
    await cache.close()
