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

SIZE = 16 * MIB
BUFFERS = 0.2  # of the blob: what was under way when a connection was given up


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with Fleet(tmp_path_factory.mktemp("fleet"), speed=12e6) as fleet:
        yield fleet


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("nothing", 1.0),
        ("holder: kill -9", 1.0),
        ("holder: SIGSTOP", 1.1),
        ("Redis: SIGSTOP", 3.0),  # everyone may fetch for himself
        ("S3: SIGSTOP", 1.0),
        ("holder cut off from all three", 2.0),
    ],
)
async def test_a_cold_blob_is_fetched_once_whatever_dies_meanwhile(
    fleet: Fleet, name: str, most: float
) -> None:
    saw = await seen(fleet, SCENES[name], SIZE)
    try:
        assert saw.wrong == []
        assert saw.failed == []
        assert saw.sent <= most + BUFFERS
        assert saw.gap < 20  # by hand it is below 3
    except AssertionError:
        print(fleet.words())
        raise


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
