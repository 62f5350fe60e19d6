"""A request is answered by its deadline, whatever is behind it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mirror.contracts.context import left
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.server.v2 import deadlines
from mirror.server.v2.deadlines import in_time, with_deadline
from mirror.server.v2.target import TargetKind
from mirror.times import DEADLINES

from ..fakes import CONTEXT
from ..jumping import jump
from .conftest import Port

DIGEST = Digest.of(b"x")

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
            assert 0 < left(with_deadline(CONTEXT, kind, is_head=False)) <= 300

    jump(scenario())


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "manifests/7", "resolve"),
        ("HEAD", "manifests/7", "resolve"),
        ("GET", f"manifests/{DIGEST}", "manifest"),
        ("GET", f"blobs/{DIGEST}", "blob"),
        ("HEAD", f"blobs/{DIGEST}", "stat"),
        ("GET", "tags/list", "tags"),
        ("GET", f"referrers/{DIGEST}", "referrers"),
    ],
)
async def test_a_registry_that_says_nothing_is_answered_for(
    port: Port, monkeypatch: pytest.MonkeyPatch, method: str, path: str, asked: str
) -> None:
    quick = replace(DEADLINES, stat=0.05), dict.fromkeys(TargetKind, 0.05)
    monkeypatch.setattr(deadlines, "DEADLINES", quick[0])
    monkeypatch.setattr(deadlines, "_OF_KIND", quick[1])
    port.registry.waits[asked] = asyncio.Event()
    answer = await port.get(f"/v2/library/redis/{path}", method)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert [name for name, *_ in port.registry.asked] == [asked]
    assert port.registry.contexts[0].deadline < asyncio.get_running_loop().time()
