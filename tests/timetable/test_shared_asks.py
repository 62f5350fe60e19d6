"""What one client has begun goes on when its time is over, for whoever asks next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from yarl import URL

from mirror.contracts.context import RequestContext
from mirror.oci.errors import Unavailable
from mirror.pullthrough.cache import PullThrough
from mirror.server.v2.deadlines import in_time

from ..fakes import REDIS, request_of
from ..jumping import jump
from .stack import promises, stack_of
from .wire import LAYER_DIGEST, MANIFEST_DIGEST, TAG, Response, well

Ask = Callable[[PullThrough, RequestContext], Awaitable[Any]]

ASKS: Mapping[str, Ask] = {
    "tag": lambda cache, context: cache.resolve(context, REDIS, TAG),
    "manifest": lambda cache, context: cache.manifest(context, REDIS, MANIFEST_DIGEST),
    "stat": lambda cache, context: cache.stat(context, REDIS, LAYER_DIGEST),
    "blob": lambda cache, context: cache.blob(context, REDIS, LAYER_DIGEST),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_who_comes_later_has_the_answer_of_an_ask_whose_client_has_left(ask: Ask) -> None:
    first_is_slow = iter([10.0])

    async def exchange(method: str, url: URL, headers: Mapping[str, str]) -> Response:
        """The first takes 10 seconds; all others for ever, so that only the first can help."""
        await asyncio.sleep(next(first_is_slow, 1e6))
        return await well(method, url, headers)

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        async with stack_of(1) as stack:
            promises(stack)
            stack.wires[0].exchange = exchange
            began = loop.time()
            hasty = request_of("hasty").lasting(3)
            with pytest.raises(Unavailable, match="no answer within 3 s"):
                await in_time(hasty, ask(stack.cache, hasty))
            assert loop.time() - began == pytest.approx(3)
            patient = request_of("patient").lasting(60)
            answered = asyncio.ensure_future(ask(stack.cache, patient))
            if ask is ASKS["tag"]:  # which waits for its manifest, too
                await asyncio.sleep(6.5)
                stack.wires[0].exchange = well
            answer = await in_time(patient, answered)
            if hasattr(answer, "close"):
                answer.close()
            return loop.time() - began

    assert jump(scenario()) == pytest.approx(10, abs=1)
