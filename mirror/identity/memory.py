"""What was read a moment ago, for as long as it may be believed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

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

    async def get(self, key: K, read: Callable[[], Awaitable[V]]) -> V:
        """What `read` gives, or gave. Raises what it raises."""
        found = self._values.get(key)
        if found is not None and self._now() < found[0]:
            return found[1]
        readings = self._readings
        reading = readings.get(key)
        if reading is None:
            reading = asyncio.ensure_future(self._read(self._values, key, read))
            readings[key] = reading
            reading.add_done_callback(lambda _: readings.pop(key, None))
        return await asyncio.shield(reading)  # goes on for the others when this one leaves

    async def _read(
        self, values: OrderedDict[K, tuple[float, V]], key: K, read: Callable[[], Awaitable[V]]
    ) -> V:
        until = self._now() + self._seconds
        value = await read()
        values[key] = (until, value)
        values.move_to_end(key)
        if len(values) > self._most:
            values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forgets all, also what is being read: that may be from before the change."""
        self._values, self._readings = OrderedDict(), {}
