"""What can be replaced while it is used: those who use it go on with what they have begun with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class _Held(Generic[T]):
    __slots__ = ("is_current", "unused", "uses", "value")

    def __init__(self, value: T) -> None:
        self.value = value
        self.uses = 0
        self.is_current = True
        self.unused = asyncio.Event()  # set when it is neither current nor used


class Use(Generic[T]):
    """One use of a value, until its `end`. As a context manager it gives itself, and ends."""

    __slots__ = ("_has_ended", "_held")

    def __init__(self, held: _Held[T]) -> None:
        held.uses += 1
        self._held = held
        self._has_ended = False

    @property
    def value(self) -> T:
        return self._held.value

    @property
    def is_current(self) -> bool:
        """Whether the value has not been replaced since."""
        return self._held.is_current

    def end(self) -> None:
        """Ended again, it stays as it is."""
        if self._has_ended:
            return
        self._has_ended = True
        self._held.uses -= 1
        if not self._held.uses and not self._held.is_current:
            self._held.unused.set()

    def __enter__(self) -> Use[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


class Switch(Generic[T]):
    """Holds the current value. For one event loop."""

    def __init__(self, value: T) -> None:
        self._held = _Held(value)

    @property
    def current(self) -> T:
        return self._held.value

    def use(self) -> Use[T]:
        """Of the current value. It has to be ended."""
        return Use(self._held)

    def replace(self, value: T) -> Callable[[], Awaitable[object]]:
        """From now on this value is current. What is returned waits until
        the last use of the value before has ended."""
        old, self._held = self._held, _Held(value)
        old.is_current = False
        if not old.uses:
            old.unused.set()
        return old.unused.wait
