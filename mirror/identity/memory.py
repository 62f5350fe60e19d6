"""What was read a moment ago, for as long as it may be believed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ShortMemory(Generic[K, V]):
    """Values for `seconds` from the moment at which their reading began, at most `most` of them: of
    too many the one that was read first goes, which costs its next user a reading and no more.
    Who asks for the same meanwhile shares one reading. What is not there is remembered like
    anything else: how long an answer takes does not tell whether there is such a thing."""

    def __init__(self, seconds: float, most: int, now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._most = most
        self._now = now
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._readings: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """What `read` gives, or gave. Raises what it raises."""
        found = self._values.get(key)
        if found is not None and self._now() < found[0]:
            return found[1]
        reading = self._readings.get(key)
        if reading is None:
            reading = asyncio.ensure_future(read())
            self._readings[key] = reading
            reading.add_done_callback(partial(self._keep, key, self._now() + self._seconds))
        return await asyncio.shield(reading)  # goes on for the others when this one leaves

    def _keep(self, key: K, until: float, reading: asyncio.Task[V]) -> None:
        if self._readings.get(key) is not reading:
            return  # it was forgotten meanwhile
        del self._readings[key]
        if reading.cancelled() or reading.exception() is not None:
            return
        self._values[key] = (until, reading.result())
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def forget(self, key: K) -> None:
        """Also what is being read: that may be from before a change."""
        self._values.pop(key, None)
        self._readings.pop(key, None)
