"""What is counted, under Prometheus' names and units, and the events that feed it.

A new metric is one edit here: it is made in the method of its subject, and what it listens to
stands beside it. Labels are from bounded sets only: registries that are not configured count as
one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__
from .contracts.content import Usage
from .contracts.events import (
    BreakerSwitched,
    CatalogueDropped,
    ConfigLoaded,
    ConfigReloaded,
    ContentEvicted,
    ContentQuarantined,
    CredentialsDropped,
    FillEnded,
    FillQueued,
    FillStarted,
    HitsAnswered,
    LoginJudged,
    QuotaPaused,
    QuotaReported,
    RequestAnswered,
    SecondTierGiven,
    TagStoreFailed,
    UpstreamAsked,
    UpstreamHedged,
    UpstreamRead,
    UpstreamRejected,
    WorkerReplaced,
)
from .contracts.registry import Outcome
from .events import Events
from .instruments import Instruments
from .logs import lines_dropped
from .process_use import sampler
from .tallies import Journal, Key, Numbers, OfMany, Together, observe_fast

# From a hit in memory to a layer of gigabytes over a slow line. The first is for what is counted
# together (HitsAnswered).
_FIRST_BYTE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAST_BYTE = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

_UNCONFIGURED = "unconfigured"  # as their endpoints are called


class Metrics:
    """Counts what `events` tell, for Prometheus to read. All but these registries, which may
    change meanwhile, count as one."""

    def __init__(self, events: Events, registries: Collection[str] = ()) -> None:
        self._registries = registries
        self._events = events
        self._make = Instruments(events)
        self._journal = Journal(self._make.made)
        self._together = Together(self._make.registry, self._make.made, self._make.of_many)
        self._shown = CollectorRegistry()
        self._shown.register(self._together)
        self._requests()
        self._fills()
        self._content()
        self._tags()
        self._upstreams()
        self._limits_and_logins()
        self._processes()

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format: of this process, and of those that were heard."""
        self._make.look()
        return generate_latest(self._shown)

    def changes(self) -> Sequence[tuple[Key, Numbers]]:
        """What has changed here since this was last asked: for another process to `hear`."""
        self._make.look()
        return self._journal.changes()

    def hear(self, pid: int, changes: Sequence[Any]) -> None:
        """Another process counts along: its `changes`, as JSON has them."""
        self._together.hear(pid, changes)

    def forget(self, pid: int) -> None:
        """A process that counted along has died: what it had running runs no more."""
        self._together.forget(pid)

    def watch(self, usage: Callable[[], Usage], disk_free: Callable[[], int]) -> None:
        """Exports what this store holds, and how many bytes its disk has left, asked at each
        scrape. `disk_free` may raise OSError: then that is not exported."""
        self._make.registry.register(_Store(usage, disk_free))

    # The metrics, by subject.

    def _requests(self) -> None:
        requests = self._make.counter(
            "requests",
            "Requests by kind and by how the answer came to be",
            "registry",
            "kind",
            "outcome",
        )
        responses = self._make.counter("responses", "Responses by HTTP status", "kind", "status")
        sent = self._make.counter(
            "sent_bytes", "Bytes of bodies sent to clients", "registry", "kind"
        )
        first_byte = self._make.histogram(
            "first_byte_seconds", "From a request's arrival to its answer's first byte", _FIRST_BYTE
        )
        last_byte = self._make.histogram(
            "last_byte_seconds", "From a request's arrival to its answer's last byte", _LAST_BYTE
        )

        def answered(event: RequestAnswered) -> None:
            registry = self._registry_of(event.registry)
            kind, outcome = event.kind, event.outcome
            if event.sent:
                sent.labels(registry, kind).inc(event.sent)
            if event.status is None:
                return
            requests.labels(registry, kind, outcome).inc()
            responses.labels(kind, str(event.status)).inc()
            first_byte.labels(kind, outcome).observe(event.first_byte)
            last_byte.labels(kind, outcome).observe(event.last_byte)

        def hits(event: HitsAnswered) -> None:
            registry = self._registry_of(event.registry)
            kind, outcome = event.kind, Outcome.HIT.value
            requests.labels(registry, kind, outcome).inc(event.count)
            responses.labels(kind, str(event.status)).inc(event.count)
            if event.sent:
                sent.labels(registry, kind).inc(event.sent)
            for histogram in (first_byte, last_byte):
                # Observing them one by one would take longer than answering them did.
                observe_fast(histogram.labels(kind, outcome), event.count, event.took)

        self._events.listen(RequestAnswered, answered)
        self._events.listen(HitsAnswered, hits)
        credentials = self._make.counter(
            "credentials_dropped", "Requests in which a client sent credentials to the mirror"
        )
        self._events.listen(CredentialsDropped, lambda _: credentials.inc())

    def _fills(self) -> None:
        waiting = self._make.gauge(
            "fills_waiting", "Downloads that wait for their turn", "registry", of_many="livesum"
        )
        running = self._make.gauge(
            "fills_running", "Downloads under way", "registry", of_many="livesum"
        )
        ended = self._make.counter("fills", "Downloads ended, by result", "registry", "result")
        counted: dict[int, Gauge] = {}  # by the number of a fill: where it counts now

        def left(event: FillQueued | FillStarted | FillEnded) -> None:
            if (gauge := counted.pop(event.fill, None)) is not None:
                gauge.dec()

        def entered(event: FillQueued | FillStarted, gauge: Gauge) -> None:
            left(event)
            counted[event.fill] = gauge.labels(self._registry_of(event.repository.registry))
            counted[event.fill].inc()

        self._events.listen(FillQueued, lambda event: entered(event, waiting))
        self._events.listen(FillStarted, lambda event: entered(event, running))
        self._events.listen(FillEnded, left)
        self._events.listen(
            FillEnded,
            lambda event: ended.labels(
                self._registry_of(event.repository.registry), event.result
            ).inc(),
        )

    def _content(self) -> None:
        rotten = self._make.counter(
            "content_rotten", "Pieces of content found damaged on the disk, and set aside"
        )
        self._events.listen(ContentQuarantined, lambda _: rotten.inc())
        evicted = self._make.counter("evicted", "Pieces of content removed to make room")
        evicted_bytes = self._make.counter("evicted_bytes", "Bytes of content removed to make room")
        self._events.listen(ContentEvicted, lambda _: evicted.inc())
        self._events.listen(ContentEvicted, lambda event: evicted_bytes.inc(event.size))

        given = self._make.counter(
            "second_tier_kept", "Pieces of content that the second tier keeps"
        )
        dropped = self._make.counter(
            "second_tier_dropped", "Pieces of content that the second tier was to keep and does not"
        )
        self._events.listen(SecondTierGiven, lambda event: (given if event.kept else dropped).inc())
        lost = self._make.counter(
            "catalogue_dropped", "Things that happened and did not get into the catalogue"
        )
        self._events.listen(CatalogueDropped, lambda event: lost.inc(event.count))

    def _tags(self) -> None:
        errors = self._make.counter(
            "tag_store_errors", "Failures of the tag memory", "store", "operation"
        )
        self._events.listen(
            TagStoreFailed, lambda event: errors.labels(event.store, event.operation).inc()
        )

    def _upstreams(self) -> None:
        listen = self._events.listen
        requests = self._make.counter(
            "upstream_requests",
            "Requests to upstreams, by HTTP status or kind of error",
            "registry",
            "endpoint",
            "method",
            "status",
        )
        listen(
            UpstreamAsked,
            lambda event: requests.labels(
                self._registry_of(event.registry), event.endpoint, event.method, event.status
            ).inc(),
        )
        read = self._make.counter(
            "upstream_bytes", "Bytes of bodies read from upstreams", "registry", "endpoint"
        )
        listen(
            UpstreamRead,
            lambda event: read.labels(self._registry_of(event.registry), event.endpoint).inc(
                event.count
            ),
        )
        rejected = self._make.counter(
            "upstream_rejected", "Answers whose bytes were proven wrong", "registry", "endpoint"
        )
        listen(
            UpstreamRejected,
            lambda event: rejected.labels(self._registry_of(event.registry), event.endpoint).inc(),
        )
        hedges = self._make.counter(
            "upstream_hedges",
            "Asks beside another endpoint that was late, by whether they answered first",
            "registry",
            "endpoint",
            "won",
        )
        listen(
            UpstreamHedged,
            lambda event: hedges.labels(
                self._registry_of(event.registry), event.endpoint, "yes" if event.won else "no"
            ).inc(),
        )
        breakers = self._make.gauge(
            "upstream_breaker_open",
            "Whether an endpoint is passed over for this kind of trouble",
            "registry",
            "endpoint",
            "trouble",
            of_many="livemax",
        )
        self._make.said_of_endpoint(
            BreakerSwitched,
            lambda event: breakers.labels(
                self._registry_of(event.registry), event.endpoint, event.trouble
            ),
            lambda event: event.open,
        )

    def _limits_and_logins(self) -> None:
        def gauge(name: str, words: str, of_many: OfMany) -> Gauge:
            return self._make.gauge(name, words, "endpoint", "login", of_many=of_many)

        limit = gauge(
            "upstream_quota_limit",
            "Manifests that an endpoint gives to a login in its window",
            "livemostrecent",
        )
        remaining = gauge(
            "upstream_quota_remaining", "Manifests that are left of the limit", "livemostrecent"
        )

        def reported(event: QuotaReported) -> None:
            limit.labels(event.endpoint, event.login).set(event.limit)
            remaining.labels(event.endpoint, event.login).set(event.remaining)

        self._events.listen(QuotaReported, reported)
        until = gauge(
            "upstream_quota_until_seconds",
            "When an endpoint is asked for manifests again, in Unix time; 0 when it is now",
            "livemax",
        )
        self._make.said_of_endpoint(
            QuotaPaused,
            lambda event: until.labels(event.endpoint, event.login),
            lambda event: event.until,
        )
        refused = gauge(
            "upstream_login_refused",
            "Whether an endpoint, or its token realm, refuses a login",
            "livemax",
        )
        self._make.said_of_endpoint(
            LoginJudged,
            lambda event: refused.labels(event.endpoint, event.login),
            lambda event: event.refused,
        )

    def _processes(self) -> None:
        self._make.gauge("build_info", "The version that runs", "version", of_many="max").labels(
            __version__
        ).set(1)
        reloads = self._make.counter(
            "config_reloads", "Times that the configuration was read again, by result", "result"
        )
        for result in ("applied", "refused", "failed"):
            reloads.labels(result)
        self._events.listen(ConfigReloaded, lambda event: reloads.labels(event.result).inc())
        loaded = self._make.gauge(
            "config_loaded_seconds",
            "When the configuration that runs was read, in Unix time",
            of_many="max",
        )
        self._events.listen(ConfigLoaded, lambda event: loaded.set(event.at))
        replaced = self._make.counter(
            "workers_replaced", "Worker processes that ended, or were ended as they hung", "why"
        )
        for why in ("died", "hung"):
            replaced.labels(why)
        self._events.listen(WorkerReplaced, lambda event: replaced.labels(event.why).inc())
        self._make.follow(
            self._make.counter("log_lines_dropped", "Lines of the log that could not be written"),
            lambda: lines_dropped(),
        )
        self._make.follow(
            self._make.counter("listener_failures", "Events that a listener failed to take"),
            lambda: self._events.failures,
        )
        self._make.follow(
            self._make.counter("process_cpu_seconds", "Processor time of all processes"),
            lambda: sample().cpu_seconds,
        )
        resident = self._make.gauge(
            "process_resident_bytes", "Memory of all processes", of_many="livesum"
        )
        descriptors = self._make.gauge(
            "process_open_fds", "File descriptors of the process with most", of_many="livemax"
        )
        limit = self._make.gauge(
            "process_max_fds", "How many a process may have", of_many="livemax"
        )
        sample = sampler()

        def look() -> None:
            use = sample()
            resident.set(use.resident_bytes)
            descriptors.set(use.open_fds)
            limit.set(use.max_fds)

        self._make.at_each_scrape(look)

    def _registry_of(self, name: str) -> str:
        """The label for a registry. "": the request named none, such as a ping."""
        return name if not name or name in self._registries else _UNCONFIGURED


class _Store(Collector):
    def __init__(self, usage: Callable[[], Usage], disk_free: Callable[[], int]) -> None:
        self._usage = usage
        self._disk_free = disk_free

    def collect(self) -> Iterator[Metric]:
        usage = self._usage()
        for name, words, value in (
            ("cache_bytes", "Bytes of verified content in the cache", usage.content_bytes),
            ("cache_entries", "Pieces of verified content in the cache", usage.entries),
            ("cache_reserved_bytes", "Bytes set aside for running downloads", usage.reserved_bytes),
            ("cache_max_bytes", "The configured size of the cache", usage.max_bytes),
        ):
            yield GaugeMetricFamily(f"registry_mirror_{name}", words, value=value)
        with suppress(OSError):
            yield GaugeMetricFamily(
                "registry_mirror_cache_disk_free_bytes",
                "Bytes that are free on the file system of the cache",
                value=self._disk_free(),
            )
