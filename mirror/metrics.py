"""What is counted, under Prometheus' names and units. Labels are from bounded sets only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__
from .contracts.content import Usage
from .logs import lines_dropped
from .tallies import Counted, Journal, Key, Numbers, OfMany, Together

# From a hit in memory to a layer of gigabytes over a slow line. The first is for what is counted
# together (`answered_at_once`).
_FIRST_BYTE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAST_BYTE = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """A Meter (see contracts) that Prometheus can read."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        metrics: dict[str, Counted] = {}
        how: dict[str, OfMany] = {}
        self._journal = Journal(metrics)
        self._together = Together(self._registry, metrics, how)
        self._shown = CollectorRegistry()
        self._shown.register(self._together)

        def counter(name: str, words: str, *labels: str) -> Counter:
            full = f"registry_mirror_{name}"
            made = metrics[full] = Counter(full, words, labels, registry=self._registry)
            how[full] = "sum"
            return made

        def histogram(name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
            full = f"registry_mirror_{name}"
            made = metrics[full] = Histogram(
                full, words, ("kind", "outcome"), buckets=buckets, registry=self._registry
            )
            how[full] = "sum"
            return made

        def gauge(
            name: str,
            words: str,
            *labels: str,
            of_many: OfMany,
        ) -> Gauge:
            full = f"registry_mirror_{name}"
            made = metrics[full] = Gauge(full, words, labels, registry=self._registry)
            how[full] = of_many
            return made

        self._requests = counter(
            "requests",
            "Requests by kind and by how the answer came to be",
            "kind",
            "outcome",
        )
        self._responses = counter("responses", "Responses by HTTP status", "kind", "status")
        self._sent = counter("sent_bytes", "Bytes of bodies sent to clients", "kind")
        self._first_byte = histogram(
            "first_byte_seconds", "From a request's arrival to its answer's first byte", _FIRST_BYTE
        )
        self._last_byte = histogram(
            "last_byte_seconds", "From a request's arrival to its answer's last byte", _LAST_BYTE
        )
        self._upstream_requests = counter(
            "upstream_requests",
            "Requests to upstreams, by HTTP status or kind of error",
            "endpoint",
            "method",
            "status",
        )
        self._upstream_bytes = counter(
            "upstream_bytes", "Bytes of bodies read from upstreams", "endpoint"
        )
        self._rejected = counter(
            "upstream_rejected", "Answers whose bytes were proven wrong", "endpoint"
        )
        self._hedges = counter(
            "upstream_hedges",
            "Asks besides another endpoint that was late, by whether they answered first",
            "endpoint",
            "won",
        )
        self._breakers = gauge(
            "upstream_breaker_open",
            "Whether an endpoint is passed over for this kind of trouble",
            "endpoint",
            "trouble",
            of_many="livemax",
        )
        self._quota_limit = gauge(
            "upstream_quota_limit",
            "Manifests that an endpoint gives to a login in its window",
            "endpoint",
            "login",
            of_many="livemostrecent",
        )
        self._quota_remaining = gauge(
            "upstream_quota_remaining",
            "Manifests that are left of the limit",
            "endpoint",
            "login",
            of_many="livemostrecent",
        )
        self._quota_until = gauge(
            "upstream_quota_until_seconds",
            "When an endpoint is asked for manifests again, in Unix time; 0 when it is now",
            "endpoint",
            "login",
            of_many="livemax",
        )
        self._login_refused = gauge(
            "upstream_login_refused",
            "Whether an endpoint, or its token realm, refuses a login",
            "endpoint",
            "login",
            of_many="livemax",
        )
        self._fills_running = gauge("fills_running", "Downloads under way", of_many="livesum")
        self._fills = counter("fills", "Downloads ended, by result", "result")
        self._tag_store_errors = counter(
            "tag_store_errors", "Failures of the tag memory", "store", "operation"
        )
        self._credentials = counter(
            "credentials_dropped", "Requests in which a client sent credentials to the mirror"
        )
        self._rotten = counter(
            "content_rotten", "Pieces of content found damaged on the disk, and set aside"
        )
        gauge("build_info", "The version that runs", "version", of_many="max").labels(
            __version__
        ).set(1)
        self._lines_dropped = counter(
            "log_lines_dropped", "Lines of the log that could not be written"
        )
        self._lines_counted = 0
        self._workers_replaced = counter(
            "workers_replaced", "Worker processes that ended, or were ended as they hung", "why"
        )
        for why in ("died", "hung"):
            self._workers_replaced.labels(why)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format: of this process, and of those that were heard."""
        self._count_lines_dropped()
        return generate_latest(self._shown)

    def changes(self) -> Sequence[tuple[Key, Numbers]]:
        """What has changed here since this was last asked: for another process to `hear`."""
        self._count_lines_dropped()
        return self._journal.changes()

    def hear(self, pid: int, changes: Sequence[Any]) -> None:
        """Another process counts along: its `changes`, as JSON has them."""
        self._together.hear(pid, changes)

    def forget(self, pid: int) -> None:
        """A process that counted along has died: what it had running runs no more."""
        self._together.forget(pid)

    def watch(self, usage: Callable[[], Usage]) -> None:
        """Exports what this store holds, asked at each scrape."""
        self._registry.register(_Store(usage))

    def _count_lines_dropped(self) -> None:
        dropped = lines_dropped()
        self._lines_dropped.inc(dropped - self._lines_counted)
        self._lines_counted = dropped

    def worker_replaced(self, why: str) -> None:
        self._workers_replaced.labels(why).inc()

    def upstream_request(self, endpoint: str, method: str, status: str) -> None:
        self._upstream_requests.labels(endpoint, method, status).inc()

    def upstream_bytes(self, endpoint: str, count: int) -> None:
        self._upstream_bytes.labels(endpoint).inc(count)

    def upstream_rejected(self, endpoint: str) -> None:
        self._rejected.labels(endpoint).inc()

    def upstream_hedged(self, endpoint: str, won: bool) -> None:
        self._hedges.labels(endpoint, "yes" if won else "no").inc()

    def upstream_breaker(self, endpoint: str, trouble: str, open: bool) -> None:
        self._breakers.labels(endpoint, trouble).set(open)

    def upstream_quota(self, endpoint: str, login: str, limit: int, remaining: int) -> None:
        self._quota_limit.labels(endpoint, login).set(limit)
        self._quota_remaining.labels(endpoint, login).set(remaining)

    def upstream_quota_until(self, endpoint: str, login: str, until: float) -> None:
        self._quota_until.labels(endpoint, login).set(until)

    def upstream_login_refused(self, endpoint: str, login: str, refused: bool) -> None:
        self._login_refused.labels(endpoint, login).set(refused)

    def fill_started(self) -> None:
        self._fills_running.inc()

    def fill_ended(self, result: str) -> None:
        self._fills_running.dec()
        self._fills.labels(result).inc()

    def tag_store_error(self, store: str, operation: str) -> None:
        self._tag_store_errors.labels(store, operation).inc()

    def content_rotten(self) -> None:
        self._rotten.inc()

    def credentials_dropped(self) -> None:
        self._credentials.inc()

    def sent(self, kind: str, count: int) -> None:
        self._sent.labels(kind).inc(count)

    def answered(
        self, kind: str, outcome: str, status: int, first_byte: float, last_byte: float
    ) -> None:
        self._requests.labels(kind, outcome).inc()
        self._responses.labels(kind, str(status)).inc()
        self._first_byte.labels(kind, outcome).observe(first_byte)
        self._last_byte.labels(kind, outcome).observe(last_byte)

    def answered_at_once(
        self, kind: str, outcome: str, status: int, count: int, took: float
    ) -> None:
        self._requests.labels(kind, outcome).inc(count)
        self._responses.labels(kind, str(status)).inc(count)
        for histogram in (self._first_byte, self._last_byte):
            # Observing them one by one would take longer than answering them did, and there is no
            # public way to observe many.
            observed = histogram.labels(kind, outcome)
            observed._buckets[0].inc(count)
            observed._sum.inc(took)


class _Store(Collector):
    def __init__(self, usage: Callable[[], Usage]) -> None:
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        usage = self._usage()
        for name, words, value in (
            ("cache_bytes", "Bytes of verified content in the cache", usage.content_bytes),
            ("cache_entries", "Pieces of verified content in the cache", usage.entries),
            ("cache_reserved_bytes", "Bytes set aside for running downloads", usage.reserved_bytes),
            ("cache_max_bytes", "The configured size of the cache", usage.max_bytes),
        ):
            yield GaugeMetricFamily(f"registry_mirror_{name}", words, value=value)
