"""How a metric is made: under the program's prefix, with the rule by which the counts of several
processes become one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..contracts.events import BreakerSwitched, EndpointLeft, LoginJudged, QuotaPaused
from ..contracts.hosted import HOSTED
from ..events import Events
from ..tallies import Counted, OfMany

PREFIX = "registry_mirror_"

_UNCONFIGURED = "unconfigured"  # as their endpoints are called

E = TypeVar("E", BreakerSwitched, QuotaPaused, LoginJudged)


class Instruments:
    """Makes metrics. `made` has each by its full name, `of_many` how it is added up over
    processes. All but these registries, which may change meanwhile, count as one."""

    def __init__(self, events: Events, registries: Collection[str] = ()) -> None:
        self.events = events
        self._registries = registries
        self._looks: list[Callable[[], None]] = []
        self.registry = CollectorRegistry()
        self.made: dict[str, Counted] = {}
        self.of_many: dict[str, OfMany] = {}

    def registry_label(self, name: str) -> str:
        """The label for a registry. "": the request named none, such as a ping."""
        known = not name or name == HOSTED or name in self._registries
        return name if known else _UNCONFIGURED

    def counter(self, name: str, words: str, *labels: str, prefix: str = PREFIX) -> Counter:
        full = prefix + name
        made = self.made[full] = Counter(full, words, labels, registry=self.registry)
        self.of_many[full] = "sum"
        return made

    def histogram(
        self, name: str, words: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        full = PREFIX + name
        made = self.made[full] = Histogram(
            full, words, labels, buckets=buckets, registry=self.registry
        )
        self.of_many[full] = "sum"
        return made

    def gauge(
        self, name: str, words: str, *labels: str, of_many: OfMany, prefix: str = PREFIX
    ) -> Gauge:
        full = prefix + name
        made = self.made[full] = Gauge(full, words, labels, registry=self.registry)
        self.of_many[full] = of_many
        return made

    def said_of_endpoint(
        self, kind: type[E], gauge: Callable[[E], Gauge], value: Callable[[E], float]
    ) -> None:
        """This gauge shows the trouble that was last said of an endpoint: none when it has left."""
        shown: dict[str, set[Gauge]] = {}

        def said(event: E) -> None:
            found = gauge(event)
            shown.setdefault(event.endpoint, set()).add(found)
            found.set(value(event))

        def left(event: EndpointLeft) -> None:
            for found in shown.pop(event.endpoint, ()):
                found.set(0)

        self.events.listen(kind, said)
        self.events.listen(EndpointLeft, left)

    def follow(self, counter: Counter, count: Callable[[], float]) -> None:
        """This counter shows what is counted elsewhere, from now on."""
        counted = 0.0

        def look() -> None:
            nonlocal counted
            now = count()
            counter.inc(now - counted)
            counted = now

        self.at_each_scrape(look)

    def at_each_scrape(self, look: Callable[[], None]) -> None:
        """`look` is called before the metrics are read."""
        self._looks.append(look)

    def look(self) -> None:
        """Brings up to date what is counted elsewhere."""
        for look in self._looks:
            look()
