"""Who gives up how much of what all share and which has a bound: whoever has most, so that nobody
pushes out what others have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


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
