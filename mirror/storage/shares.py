"""How a bounded table is shared by registries and repositories: what is too much is given up by the
one that has most, so that none pushes out what others have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")


def surplus(counts: Mapping[str, int], count: int) -> Mapping[str, int]:
    """How many each has to give up, so that `count` go and those that have most are left with
    equally many, or those named first with one more.

    >>> surplus({"a": 10, "b": 3, "c": 8}, 8)
    {'a': 5, 'c': 3}
    """
    count = min(count, sum(counts.values()))
    names = sorted(counts, key=lambda name: -counts[name])
    above = 0
    for number, name in enumerate(names, 1):
        above += counts[name]
        following = counts[names[number]] if number < len(names) else 0
        if above - number * following >= count:
            level, more = divmod(above - count, number)
            left = {one: level + (place < more) for place, one in enumerate(names[:number])}
            return {one: counts[one] - kept for one, kept in left.items() if counts[one] > kept}
    return {}


def surplus_of_repositories(counts: Mapping[str, int], count: int) -> Mapping[str, int]:
    """As `surplus`, of repositories (`registry/name`): first among registries, then among those of
    each. So many small repositories of one registry push out nothing of another's.

    >>> surplus_of_repositories({"a/x": 4, "a/y": 4, "a/z": 4, "b/x": 6}, 3)
    {'a/x': 1, 'a/y': 1, 'a/z': 1}
    """
    registries: Counter[str] = Counter()
    for name, here in counts.items():
        registries[name.partition("/")[0]] += here
    given: dict[str, int] = {}
    for registry, many in surplus(registries, count).items():
        own = {name: here for name, here in counts.items() if name.partition("/")[0] == registry}
        given |= surplus(own, many)
    return given


class ByRepository(Generic[V]):
    """At most `most` values in memory, by the keys of tags (tag_records). Of too many goes the
    oldest of the repository that has most, or of the one that is added to, where that has more
    than its share."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._values: dict[str, dict[str, V]] = {}  # of each repository, the oldest first

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return key in self._values.get(_repository(key), {})

    def __getitem__(self, key: str) -> V:
        return self._values[_repository(key)][key]

    def __setitem__(self, key: str, value: V) -> None:
        self.pop(key)
        repository = _repository(key)
        self._values.setdefault(repository, {})[key] = value
        self._count += 1
        if self._count > self._most:
            if len(self._values[repository]) * len(self._values) <= self._count:
                repository = max(self._values, key=lambda name: len(self._values[name]))
            self.pop(next(iter(self._values[repository])))

    def get(self, key: str) -> V | None:
        return self._values.get(_repository(key), {}).get(key)

    def pop(self, key: str) -> None:
        """Forgets it, if it is there."""
        repository = _repository(key)
        values = self._values.get(repository, {})
        if key in values:
            del values[key]
            self._count -= 1
            if not values:
                del self._values[repository]

    def items(self) -> Iterator[tuple[str, V]]:
        for values in self._values.values():
            yield from values.items()


def _repository(key: str) -> str:
    return key.rpartition(":")[0]
