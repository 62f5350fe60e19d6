"""What asyncio's tasks lack."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def ended(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Returns when all of these have ended, however often the caller is cancelled meanwhile. Then
    raises CancelledError, if it was. What they raised counts as seen."""
    cancelled: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled


async def settled(answer: asyncio.Future[Any], within: float | None) -> None:
    """Returns when this has ended, or when so many seconds have passed. As asyncio.wait, at half of
    what that costs."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if within is None else loop.call_later(within, wake)
    answer.add_done_callback(wake)
    try:
        await waiter
    finally:
        answer.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Does `work`, which has no end of its own, as long as the context lasts."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await ended([task])


async def until(condition: Callable[[], bool], look: float) -> None:
    """Returns when the condition holds, which is looked at every so many seconds."""
    while not condition():  # noqa: ASYNC110 - what it looks at has no event of its own
        await asyncio.sleep(look)


async def first_of(*events: asyncio.Event) -> None:
    """Returns when one of these is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def pass_on(task: asyncio.Task[T], answer: asyncio.Future[T]) -> None:
    """How this task has ended is how the answer does. An error counts as seen: that nobody waits
    for the answer is no reason for a warning."""
    if task.cancelled():
        answer.cancel()
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
        answer.exception()
    else:
        answer.set_result(task.result())
