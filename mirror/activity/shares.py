"""What is kept of many clients, so that none pushes out another's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ROOM = 0.95  # the share that stays where there is too much: not each one more is an eviction


class Shares(Generic[K, V]):
    """Values by key, each of one owner. At most `most` values, and `heaviest` of what `weight` says
    of them, together. Of too many go the oldest of the owner that has most; `dropped` is called
    with each."""

    def __init__(
        self,
        most: int,
        heaviest: int | None = None,
        weight: Callable[[V], int] = lambda _: 1,
        dropped: Callable[[V], object] = lambda _: None,
    ) -> None:
        self._most, self._heaviest = most, heaviest
        self._weight, self._dropped = weight, dropped
        self._of: dict[str, OrderedDict[K, V]] = {}
        self._count = self._total = 0
        self._weights: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[V]:
        for values in self._of.values():
            yield from values.values()

    def put(self, owner: str, key: K, value: V) -> None:
        """A new one."""
        values = self._of.get(owner)
        if values is None:
            values = self._of[owner] = OrderedDict()
        values[key] = value
        self._count += 1
        self.grew(owner, self._weight(value))

    def grew(self, owner: str, by: int) -> None:
        """One of this owner's values is heavier by so much."""
        self._total += by
        self._weights[owner] = self._weights.get(owner, 0) + by
        if self._count > self._most:
            self._make_room(self._by_number)
        if self._heaviest is not None and self._total > self._heaviest:
            self._make_room(self._by_weight)

    def _by_number(self) -> tuple[bool, dict[str, int]]:
        counts = {owner: len(values) for owner, values in self._of.items()}
        return self._count <= self._most * _ROOM, counts

    def _by_weight(self) -> tuple[bool, dict[str, int]]:
        return self._total <= (self._heaviest or 0) * _ROOM, self._weights

    def _make_room(self, look: Callable[[], tuple[bool, dict[str, int]]]) -> None:
        while True:
            is_enough, sizes = look()
            if is_enough or self._count <= 1:
                return
            self._drop_oldest(max(sizes, key=lambda owner: sizes[owner]))

    def _drop_oldest(self, owner: str) -> None:
        values = self._of[owner]
        _, value = values.popitem(last=False)
        weight = self._weight(value)
        self._count -= 1
        self._total -= weight
        self._weights[owner] -= weight
        if not values:
            del self._of[owner], self._weights[owner]
        self._dropped(value)

    def take(self) -> list[V]:
        """All of them; none is kept."""
        found = list(self)
        self._of.clear()
        self._weights.clear()
        self._count = self._total = 0
        return found
