"""Counts of several processes: each tells what has changed, and one of them adds it up.

prometheus-client's own way, files that all processes map into memory, needs a folder that somebody
may remove, leaves it behind at `kill -9`, and ends a process by SIGBUS when its disk is full. Here
changes go the same way as the news that a process lives.

What a metric holds for each of its labels is read from it directly, from private parts of
prometheus-client that no other module touches: collecting samples, the public way, takes 13 µs for
each of them, which the event loop of a busy worker feels. pyproject.toml bounds the version, and
tests/test_metrics.py fails where another one keeps its numbers elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

Counted = Counter | Gauge | Histogram

OfMany = Literal["sum", "livesum", "max", "livemax", "livemin", "livemostrecent"]
"""What a number is of many processes. `live…`: of those that run."""

Key = tuple[str, tuple[str, ...]]
"""A metric's name, and the values of its labels."""

Numbers = tuple[float, ...]
"""One; a histogram's are those of its buckets, each without the ones before, and the sum."""


def _read(metrics: Mapping[str, Counted]) -> Iterator[tuple[Key, Numbers]]:
    for name, metric in metrics.items():
        children: Mapping[Any, Any] = dict(metric._metrics) if metric._labelnames else {(): metric}
        for labels, child in children.items():
            if isinstance(metric, Histogram):
                yield (name, labels), (*(each.get() for each in child._buckets), child._sum.get())
            else:
                yield (name, labels), (child._value.get(),)


def observe_fast(histogram: Histogram, count: int, total: float, within: float) -> None:
    """Observes so many values at once, of `total` together, none of them above `within`: there is
    no public way to observe many."""
    histogram._buckets[bisect_left(histogram._upper_bounds, within)].inc(count)
    histogram._sum.inc(total)


class Journal:
    """What changes in one process."""

    def __init__(self, metrics: Mapping[str, Counted]) -> None:
        self._metrics = metrics
        self._told: dict[Key, Numbers] = {}

    def changes(self) -> list[tuple[Key, Numbers]]:
        """What has changed since this was last asked. As JSON it is for `Together.hear`."""
        changed = [
            (key, numbers)
            for key, numbers in _read(self._metrics)
            if self._told.get(key) != numbers
        ]
        self._told.update(changed)
        return changed


class Together(Collector):
    """What this process, whose metrics are in `registry`, and others that were heard have counted,
    as one. `metrics` and `of_many` have them by their names; what else is in the registry is left
    as it is."""

    def __init__(
        self,
        registry: CollectorRegistry,
        metrics: Mapping[str, Counted],
        of_many: Mapping[str, OfMany],
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._of_many = of_many
        self._heard: dict[int, dict[Key, tuple[int, Numbers]]] = {}
        self._past: dict[Key, Numbers] = {}  # of processes that have ended
        self._changes = 0

    def hear(self, process: int, changes: Iterable[Any]) -> None:
        heard = self._heard.setdefault(process, {})
        for (name, labels), numbers in changes:
            self._changes += 1
            heard[name, tuple(labels)] = self._changes, tuple(numbers)

    def forget(self, process: int) -> None:
        """It has ended: what it had running runs no more, what it counted stays."""
        for key, (_, numbers) in self._heard.pop(process, {}).items():
            how = self._of_many[key[0]]
            if not how.startswith("live"):
                past = self._past.get(key)
                self._past[key] = numbers if past is None else _combined(how, past, numbers)

    def collect(self) -> Iterator[Metric]:
        if not self._heard and not self._past:
            for family in self._registry.collect():
                # When each series was begun is a seventh of all, and nobody asks for it.
                family.samples = [
                    sample for sample in family.samples if not sample.name.endswith("_created")
                ]
                yield family
            return
        added_up = self._added_up()
        for family in self._registry.collect():
            # A counter's family has the name without _total, as the metric had.
            if family.name in self._metrics:
                family.samples = []
                self._show(family, added_up.get(family.name, {}))
            yield family

    def _added_up(self) -> dict[str, dict[tuple[str, ...], Numbers]]:
        """By name and labels."""
        found: dict[str, dict[tuple[str, ...], Numbers]] = {}
        newest: dict[Key, int] = {}
        own = {key: (0, numbers) for key, numbers in _read(self._metrics)}
        past = {key: (0, numbers) for key, numbers in self._past.items()}
        for told in (past, own, *self._heard.values()):
            for key, (when, numbers) in told.items():
                name, labels = key
                known = found.setdefault(name, {})
                how = self._of_many[name]
                if labels not in known:
                    known[labels], newest[key] = numbers, when
                elif how != "livemostrecent":
                    known[labels] = _combined(how, known[labels], numbers)
                elif when > newest[key]:
                    known[labels], newest[key] = numbers, when
        return found

    def _show(self, family: Metric, counted: Mapping[tuple[str, ...], Numbers]) -> None:
        metric = self._metrics[family.name]
        suffix = "_total" if isinstance(metric, Counter) else ""
        for values, numbers in counted.items():
            labels = dict(zip(metric._labelnames, values, strict=True))
            if not isinstance(metric, Histogram):
                family.add_sample(family.name + suffix, labels, numbers[0])
                continue
            total = 0.0
            for bound, count in zip(metric._upper_bounds, numbers, strict=False):
                total += count
                within = {**labels, "le": _le(bound)}
                family.add_sample(f"{family.name}_bucket", within, total)
            family.add_sample(f"{family.name}_count", labels, total)
            family.add_sample(f"{family.name}_sum", labels, numbers[-1])


def _le(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _combined(how: OfMany, one: Numbers, other: Numbers) -> Numbers:
    if how.endswith("sum"):
        return tuple(a + b for a, b in zip(one, other, strict=True))
    return min(one, other) if how == "livemin" else max(one, other)
