"""Three nodes, Redis and an object store, as real processes, and one cold blob that clients of all
pull at once, by one address and at each node. `python -m tests.faults.fleet` has the whole matrix.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ..waiting import eventually
from .bodies import MIB
from .fleet.nodes import Fleet
from .fleet.scenes import SCENES, seen

pytestmark = [pytest.mark.xdist_group("fleet"), pytest.mark.asyncio(loop_scope="module")]

SIZE = 8 * MIB
BUFFERS = 0.3  # of the blob: what was under way when a connection was given up
TRIES = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with Fleet(tmp_path_factory.mktemp("fleet"), speed=8e6, listed=True) as fleet:
        yield fleet


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("nothing", 1.0),
        ("holder: kill -9", 1.0),
        ("holder: SIGSTOP", 1.5),  # in the end it goes on with what it has begun
        ("Redis: SIGSTOP", 1.0),
        ("holder cut off from all three", 1.5),  # it and one of the others
    ],
)
async def test_f80_f81_f82_f83_a_cold_blob_is_fetched_once_whatever_dies_meanwhile(
    fleet: Fleet, name: str, most: float
) -> None:
    for _ in range(TRIES):
        saw = await seen(fleet, SCENES[name], SIZE, clients=1, by_front=1)
        assert saw.wrong == [], fleet.words()
        assert saw.failed == [], fleet.words()
        assert saw.gap < 20, fleet.words()  # below 3 on a machine that is not full
        if saw.sent <= most + BUFFERS:
            return
        # On a full machine Redis is too slow for a node at times, and it fetches for itself.
    raise AssertionError(f"{saw.sent} times the blob's bytes\n{fleet.words()}")


async def test_in_the_end_all_is_in_the_object_store_and_right(fleet: Fleet) -> None:
    """After all the others of this module, or alone."""
    await fleet.pulls(fleet.origin.blob(SIZE, "last", "last"))
    wanted = set(fleet.origin.requests_of)

    async def all_is_far() -> bool:
        return wanted <= await fleet.far_names()

    await eventually(all_is_far, 60)
    assert all((await fleet.far_content()).values())
    assert fleet.near_content_is_right()
    for node in fleet.nodes:
        node.wrote_well()
