"""Who asks for a blob may go by the answer: no collection takes it away before its manifest."""

from __future__ import annotations

from unittest import mock

import pytest

from mirror.contracts.context import ANONYMOUS, Principal, RequestContext
from mirror.contracts.identity import Action
from mirror.hosted.registry import HostedRegistry, Shelves
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from tests.fakes import HandClock, MemoryHeld, MemoryRecords, Recorder

APP = Repository("hosted", "team/app")
LAYER = Digest.of(b"layer")


class OnlyAnn:
    async def may(self, principal: Principal, action: Action, repository: str) -> bool:
        return principal.name == "ann"


@pytest.mark.parametrize(
    ("principal", "stays"),
    [(Principal("ann"), True), (ANONYMOUS, True), (Principal("reader"), False)],
)
async def test_a_head_of_who_may_push_or_has_not_logged_in_yet_renews_a_blob(
    principal: Principal, stays: bool
) -> None:
    hand, records = HandClock(), MemoryRecords()
    held = MemoryHeld(hand)
    await records.add_blob(APP.name, LAYER, 5, hand.now, "ann")
    registry = HostedRegistry(
        "hosted",
        records,
        Shelves(mock.Mock(), held, mock.Mock()),
        OnlyAnn(),  # type: ignore[arg-type]
        Recorder(),
        hand.clock(),
    )
    hand.now += 86400
    await registry.stat(RequestContext("1", "10.0.0.1", principal), APP, LAYER)
    garbage = await records.garbage(hand.now, 10)
    assert ([one.digest for one in garbage.blobs] == []) is stays
