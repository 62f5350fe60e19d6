"""What an endpoint is asked for ends at the asker's deadline, and that is held against nobody."""

from __future__ import annotations

import asyncio

import pytest

from mirror.contracts.context import RequestContext
from mirror.oci.errors import RateLimited, Unavailable
from mirror.upstream.failures import Exhausted, in_time
from mirror.upstream.pool.connections import Slots
from mirror.upstream.pool.question import Asked

from ..fakes import CONTEXT
from ..jumping import jump
from .conftest import REDIS
from .test_silence import Plan, Voice, pool_of


async def seconds_of(asking: asyncio.Future[object] | asyncio.Task[object]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable):
        await asking
    return loop.time() - began


def test_a_connection_is_waited_for_no_longer() -> None:
    async def scenario() -> float:
        slots = Slots("hub", 1)
        await slots.take(RequestContext("1", "a"), Asked.TAG)
        context = RequestContext("2", "b").lasting(7)
        return await seconds_of(asyncio.ensure_future(slots.take(context, Asked.TAG)))

    assert jump(scenario()) == pytest.approx(7)


def test_a_limit_that_ends_after_the_deadline_is_not_waited_out() -> None:
    async def scenario() -> float:
        voice = Voice("hub", Plan(fails=RateLimited("429", retry_after=5)))
        asking = pool_of(voice).resolve(CONTEXT.lasting(4), REDIS, "7")
        return await seconds_of(asyncio.ensure_future(asking))

    assert jump(scenario()) == 0


def test_an_exchange_ends_at_the_deadline_as_nobodys_fault() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Exhausted, match="hub: the time for the request is over"):
            async with in_time(CONTEXT.lasting(3), "hub"):
                await asyncio.sleep(60)
        assert loop.time() - began == pytest.approx(3)
        async with in_time(CONTEXT, "hub"):  # whoever has no deadline
            await asyncio.sleep(3600)

    jump(scenario())


def test_a_request_out_of_time_opens_no_breaker() -> None:
    async def scenario() -> None:
        out_of_time = Plan(fails=Exhausted("the time for the request is over"))
        pool = pool_of(Voice("hub", *[out_of_time] * 20, Plan()))
        for _ in range(20):
            with pytest.raises(Unavailable):
                await pool.resolve(CONTEXT, REDIS, "7")
        assert not pool.is_down(REDIS, "7")
        await pool.resolve(CONTEXT, REDIS, "7")

    jump(scenario())
