"""What one node was told is missing, the others do not ask for meanwhile."""

from __future__ import annotations

import json

import pytest
from redis.asyncio import Redis

from mirror.asking.negative_cache import MOMENT, NegativeCache
from mirror.clock import Clock
from mirror.contracts.records import Absence
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown
from mirror.oci.reference import Repository
from mirror.storage.among_nodes.absences import SharedAbsences

from ...fakes import HandClock
from ...waiting import eventually
from .conftest import Node

HERE = Repository("docker.io", "library/redis")
LAYER = Digest.of(b"layer")
KEY = f"registry-mirror:1:missing:{HERE}@{LAYER}"


def known(node: Node, clock: Clock | None = None) -> NegativeCache:
    clock = clock or Clock()
    return NegativeCache(clock, SharedAbsences(node(), clock))


async def says(missing: NegativeCache, longest: float = 30.0) -> str:
    try:
        await missing.ask(HERE, LAYER, longest)
    except BlobUnknown as error:
        return error.message
    return ""


async def test_others_believe_it_too(node: Node, raw: Redis) -> None:
    one, other = known(node), known(node)
    one.note(HERE, LAYER, BlobUnknown("it has no such thing"), 30.0)
    assert await eventually(lambda: says(other)) == "it has no such thing"
    assert 0 < await raw.pttl(KEY) <= MOMENT * 1000


async def test_a_word_that_another_repeats_is_believed_for_longer(node: Node, raw: Redis) -> None:
    hand = HandClock(1000.0)
    one, other = known(node), known(node, Clock(monotonic=hand))
    one.note(HERE, LAYER, BlobUnknown("gone"), 30.0)
    await eventually(lambda: says(other))
    hand.now += MOMENT
    other.check(HERE, LAYER, 30.0)  # raises nothing: its time is over
    other.note(HERE, LAYER, BlobUnknown("gone"), 30.0)

    async def is_longer() -> bool:
        return bool(await raw.pttl(KEY) > MOMENT * 1000)

    await eventually(is_longer)


async def test_it_is_believed_no_longer_than_its_own_time(node: Node, raw: Redis) -> None:
    other = known(node)
    value = json.dumps(["BlobUnknown", "gone", 60.0])
    await raw.set(KEY, value, px=30_000)  # said 30 seconds ago
    assert await eventually(lambda: says(other, longest=45.0)) == "gone"
    await raw.set(KEY, value, px=30_000)
    assert await says(known(node), longest=20.0) == ""
    assert await says(known(node), longest=0.0) == ""


async def test_after_a_purge_nothing_of_before_is_believed(node: Node, raw: Redis) -> None:
    one, other = known(node), known(node)
    one.note(HERE, LAYER, BlobUnknown("gone"), 30.0)
    await eventually(lambda: says(other))
    other.clear()
    assert await says(other) == ""

    async def is_forgotten() -> bool:
        return not await raw.exists(KEY)

    await eventually(is_forgotten)  # what it had heard and told is no other's either


@pytest.mark.parametrize(
    "value",
    [
        "",
        "[",
        "[]",
        '["Denied", "x", 5]',
        '["SystemExit", "x", 5]',
        '["BlobUnknown", 7, 5]',
        '["BlobUnknown", "x", true]',
        '["BlobUnknown", "x", 1e999]',
        '["BlobUnknown", "x", 1e9]',
        '["BlobUnknown", "x", -1]',
        "[" * 5000,
        '["BlobUnknown", "' + "x" * 5000 + '", 5]',
    ],
)
async def test_what_is_none_of_ours_says_nothing(node: Node, raw: Redis, value: str) -> None:
    absences = SharedAbsences(node(), Clock())
    await raw.set(KEY, json.dumps(["BlobUnknown", "good", 5.0]), px=5000)
    good = await eventually(lambda: absences.told(HERE, LAYER))
    assert isinstance(good, Absence)
    await raw.set(KEY, value, px=5000)
    assert await absences.told(HERE, LAYER) is None
    await raw.set(KEY, json.dumps(["BlobUnknown", "good", 5.0]))  # for ever
    assert await absences.told(HERE, LAYER) is None
