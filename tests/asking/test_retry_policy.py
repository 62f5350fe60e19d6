"""What failed is asked again by one policy, and never beyond the asker's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf

import pytest

from mirror.asking.retry_policy import NEVER, RetryPolicy, retrying
from mirror.oci.errors import BlobUnknown, RegistryError, Unavailable, Unknown

from ..fakes import CONTEXT
from ..jumping import jump


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [
        (RetryPolicy(pause=1, within=7), [1, 2, 4]),
        (RetryPolicy(pause=1, within=6.9), [1, 2]),
        (RetryPolicy(pause=1, longest_pause=2, within=6), [1, 2, 2]),
        (RetryPolicy(tries=3, pause=1), [1, 2]),
        (NEVER, []),
        (RetryPolicy(pause=0, within=10), []),
    ],
)
def test_pauses_double_within_the_bounds(policy: RetryPolicy, pauses: list[float]) -> None:
    found: list[float] = []
    elapsed = 0.0
    while (pause := policy.pause_after(len(found) + 1, elapsed)) is not None:
        found.append(pause)
        elapsed += pause
    assert found == pauses


def test_what_the_failure_asks_for_is_waited_for_within_the_bounds() -> None:
    policy = RetryPolicy(pause=1, within=10, longest_asked=8)
    assert policy.pause_after(1, 0, asked=5) == 5
    assert policy.pause_after(1, 6, asked=5) is None
    assert policy.pause_after(1, 0, asked=9) is None


def test_pauses_are_drawn_between_their_part_and_their_whole() -> None:
    policy = RetryPolicy(pause=4, jitter=0.5)
    assert [policy.pause_after(1, 0, draw=draw) for draw in (0.0, 0.5)] == [2, 3]


Policies = Mapping[type[RegistryError], RetryPolicy]


def times_of(policies: Policies, *errors: RegistryError, deadline: float = inf) -> list[float]:
    """When it is asked, in seconds, by somebody who has so much time; the last error stays."""

    async def scenario() -> list[float]:
        loop, asked = asyncio.get_running_loop(), []
        began = loop.time()

        async def ask() -> None:
            asked.append(round(loop.time() - began, 3))
            raise errors[min(len(asked), len(errors)) - 1]

        context = CONTEXT.lasting(deadline)
        with pytest.raises(type(errors[-1])):
            await retrying(context, ask, policies)
        return asked

    return jump(scenario())


def test_it_is_asked_again_until_the_policy_ends() -> None:
    policies = {Unavailable: RetryPolicy(pause=1, within=8)}
    assert times_of(policies, Unavailable("503")) == [0, 1, 3, 7]


def test_no_pause_ends_after_the_askers_deadline() -> None:
    policies = {Unavailable: RetryPolicy(pause=1, within=100)}
    assert times_of(policies, Unavailable("503"), deadline=5) == [0, 1, 3]


def test_kinds_of_failures_are_counted_apart() -> None:
    trouble, missing = Unavailable("503"), BlobUnknown("404")
    policies = {Unknown: RetryPolicy(pause=1, within=3), Unavailable: RetryPolicy(pause=1)}
    asked = times_of(policies, trouble, trouble, missing, missing, missing)
    assert asked == [0, 1, 3, 4, 6]


def test_another_failure_is_raised_at_once() -> None:
    assert times_of({Unknown: RetryPolicy()}, Unavailable("503")) == [0]
