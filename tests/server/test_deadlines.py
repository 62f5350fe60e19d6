"""A request is answered by its deadline, whatever is behind it."""

from __future__ import annotations

import asyncio

import pytest

from mirror.contracts.context import left
from mirror.oci.errors import Unavailable
from mirror.server.v2.deadlines import in_time, with_deadline
from mirror.server.v2.target import TargetKind
from mirror.times import DEADLINES

from ..fakes import CONTEXT
from ..jumping import jump

KINDS = [
    (TargetKind.TAG, False, DEADLINES.tag),
    (TargetKind.TAG, True, DEADLINES.tag),
    (TargetKind.MANIFEST, False, DEADLINES.manifest),
    (TargetKind.BLOB, False, DEADLINES.blob),
    (TargetKind.BLOB, True, DEADLINES.stat),
    (TargetKind.TAGS, False, DEADLINES.tags),
    (TargetKind.REFERRERS, False, DEADLINES.referrers),
]


@pytest.mark.parametrize(("kind", "is_head", "seconds"), KINDS)
def test_nothing_is_waited_for_beyond_the_deadline_of_its_kind(
    kind: TargetKind, is_head: bool, seconds: float
) -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        context = with_deadline(CONTEXT, kind, is_head=is_head)
        with pytest.raises(Unavailable, match=f"no answer within {seconds:.0f} s"):
            await in_time(context, asyncio.get_running_loop().create_future())
        return loop.time() - began

    assert jump(scenario()) == pytest.approx(seconds)


def test_the_steps_of_a_request_share_its_time() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        context = with_deadline(CONTEXT, TargetKind.TAG, is_head=False)
        await in_time(context, asyncio.sleep(DEADLINES.tag - 1))
        assert left(context) == pytest.approx(1)
        with pytest.raises(Unavailable):
            await in_time(context, asyncio.sleep(DEADLINES.tag))
        return loop.time() - began

    assert jump(scenario()) == pytest.approx(DEADLINES.tag)


def test_every_kind_that_asks_a_registry_has_a_deadline() -> None:
    async def scenario() -> None:
        for kind in set(TargetKind) - {TargetKind.PING, TargetKind.OTHER}:
            assert 0 < left(with_deadline(CONTEXT, kind, is_head=False)) < 120

    jump(scenario())
