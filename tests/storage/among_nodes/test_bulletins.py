"""What one node tells of upstreams, the others of its fleet hear, and nobody else is heard."""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis

from mirror.contracts.bulletins import Words
from mirror.storage.among_nodes.bulletins import FleetBulletins

from ...waiting import eventually
from .conftest import Node

KEYS = "registry-mirror:1:told:*"


class Heard(list[Words]):
    def last(self) -> Any:
        return self[-1]["n"] if self else None


async def test_the_latest_word_is_heard_once_by_each_of_the_others(node: Node, raw: Redis) -> None:
    nodes = [FleetBulletins(node(), b"secret") for _ in range(3)]
    heard = [Heard() for _ in nodes]
    joined = [one.join("hub", each.append) for one, each in zip(nodes, heard, strict=True)]
    for number in range(5):
        joined[0].tell({"n": number}, 60)
    await eventually(lambda: [each.last() for each in heard] == [None, 4, 4])
    joined[1].tell({"n": 5}, 60)
    await eventually(lambda: [each.last() for each in heard] == [5, 4, 5])
    (key,) = await raw.keys(KEYS)
    assert 0 < await raw.pttl(key) <= 60_001
    assert b"hub" not in key
    late = Heard()
    FleetBulletins(node(), b"secret").join("hub", late.append)
    await eventually(lambda: late.last() == 5)
    assert len(late) == 1
    joined[2].leave()
    joined[0].tell({"n": 6}, 60)
    await eventually(lambda: heard[1].last() == 6)
    assert heard[2].last() == 5


async def test_f46_whoever_has_another_secret_is_not_heard(node: Node, raw: Redis) -> None:
    heard = Heard()
    hears = FleetBulletins(node(), b"secret")
    hears.join("hub", heard.append)
    speaks = FleetBulletins(node(), b"secret").join("hub", Heard().append)
    speaks.tell({"n": 1}, 60)
    await eventually(lambda: heard.last() == 1)
    (key,) = await raw.keys(KEYS)
    good = await raw.get(key)
    other = FleetBulletins(node(), b"another").join("hub", Heard().append)
    assert other.name.encode() != key
    assert (
        other.mark("password") != speaks.mark("password") == hears.join("x", print).mark("password")
    )
    for forged in (
        json.dumps({"n": 2, "by": "x"}).encode(),
        good[:-4] + b"9, }",
        good[:10],
        b"",
        b"x" * 10_000,
    ):
        await raw.set(key, forged)
    await raw.set(f"{key.decode()[:-2]}00", good)
    speaks.tell({"n": 3}, 60)
    await eventually(lambda: heard.last() == 3)
    assert [each["n"] for each in heard] == [1, 3]


async def test_one_who_cannot_read_it_hears_the_next(node: Node, raw: Redis) -> None:
    heard = Heard()

    def hear(words: Words) -> None:
        heard.append({"n": words["of a later version"]})

    FleetBulletins(node(), b"secret").join("hub", hear)
    speaks = FleetBulletins(node(), b"secret").join("hub", Heard().append)
    speaks.tell({"n": 1}, 60)
    await eventually(lambda: raw.keys(KEYS))
    speaks.tell({"of a later version": 2}, 60)
    await eventually(lambda: heard.last() == 2)
