"""A host whose clock is wrong by hours, and is set right."""

from __future__ import annotations

import pytest

from ..fakes.hub import Hub
from .client import digest_of
from .house import House, Mirror


def open_hub(hub: Hub) -> str:
    """An image that everybody may read without a token; its digest."""
    hub.challenge = "none"
    return hub.add_image("library/redis", "7", b"layer")


async def is_stale(mirror: Mirror, digest: str) -> bool:
    """Whether the tag is answered as it was, and says that it may have changed."""
    answer = await mirror.manifest("7")
    told = answer.headers.get("Warning", "").startswith("299 ") and "Age" in answer.headers
    return answer.is_whole(digest) and told


@pytest.mark.parametrize("hours", [5, -5])
async def test_f29_a_clock_that_was_wrong_and_is_set_right(house: House, hours: int) -> None:
    digest = house.hub.add_image("library/redis", "7", b"layer")
    mirror = house.prepare(module="tests.faults.skewed", env={"CLOCK_OFF": str(hours * 3600)})
    await mirror.start()
    assert (await mirror.manifest("7")).headers["Age"] == "0"
    assert (await mirror.manifest("8")).status == 404
    assert (await mirror.manifest("7")).headers["Age"] == "0"
    await mirror.stop()

    mirror.env = {"CLOCK_OFF": "0"}
    await mirror.start()
    house.hub.requests.clear()
    answer = await mirror.manifest("7")  # not believed unasked
    assert (answer.is_whole(digest), answer.headers["Age"]) == (True, "0")
    assert house.hub.count("registry", "HEAD") >= 1
    # Nor is it believed for hours that there is no such tag.
    house.hub.tags["library/redis"]["8"] = digest
    assert (await mirror.manifest("8")).is_whole(digest)


async def test_f29_what_was_learnt_in_the_future_is_answered_stale(house: House) -> None:
    digest = open_hub(house.hub)
    mirror = house.prepare(module="tests.faults.skewed", env={"CLOCK_OFF": "18000"})
    await mirror.start()
    assert (await mirror.manifest("7")).is_whole(digest)
    await mirror.stop()
    await house.hub.__aexit__(None, None, None)
    mirror.env = {"CLOCK_OFF": "0"}
    await mirror.start()
    assert await is_stale(mirror, digest)
    assert (await mirror.manifest("7")).headers["Age"] == "0"


async def test_f29_tokens_do_not_hang_on_the_wall_clock(house: House) -> None:
    digest = house.hub.add_image("library/redis", "7", b"layer")
    house.hub.token_answer = lambda token: {
        "token": token,
        "expires_in": 300,
        "issued_at": "2001-01-01T00:00:00Z",
    }
    mirror = await house.mirror(module="tests.faults.skewed", env={"CLOCK_OFF": "-18000"})
    assert (await mirror.manifest("7")).is_whole(digest)
    layer = digest_of(b"layer")
    assert (await mirror.blob(layer)).is_whole(layer)
    assert house.hub.count("realm") == 1
