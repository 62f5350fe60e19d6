"""A table that several registries fill, and of which each keeps its part."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FairTable(Generic[K, V]):
    """At most `most` values, each of one registry. Of too many goes the longest unused of the
    registry that has most: none pushes out what another has, as long as it has more itself."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._registries: dict[str, OrderedDict[K, V]] = {}

    def __len__(self) -> int:
        return self._count

    def get(self, registry: str, key: K) -> V | None:
        values = self._registries.get(registry)
        if values is None or key not in values:
            return None
        values.move_to_end(key)
        return values[key]

    def put(self, registry: str, key: K, value: V) -> None:
        values = self._registries.setdefault(registry, OrderedDict())
        self._count += key not in values
        values[key] = value
        values.move_to_end(key)
        if self._count > self._most:
            self._drop_from(max(self._registries, key=lambda name: len(self._registries[name])))

    def drop(self, registry: str, key: K) -> None:
        """Forgets this value, if it is there."""
        values = self._registries.get(registry)
        if values is not None and values.pop(key, None) is not None:
            self._count -= 1
            if not values:
                del self._registries[registry]

    def forget(self, registry: str) -> None:
        """All that this registry has."""
        self._count -= len(self._registries.pop(registry, ()))

    def items(self) -> Iterator[tuple[K, V]]:
        for values in self._registries.values():
            yield from values.items()

    def _drop_from(self, registry: str) -> None:
        values = self._registries[registry]
        values.popitem(last=False)
        self._count -= 1
        if not values:
            del self._registries[registry]
