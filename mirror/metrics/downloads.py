"""Fills: downloads of blobs, which wait for a place, run, and end."""

from __future__ import annotations

from prometheus_client import Gauge

from ..contracts.events import (
    EndpointJoined,
    FillEnded,
    FillQueued,
    FillStarted,
    Prefetched,
    PrefetchRead,
)
from .instruments import Instruments

_WAITED = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # seconds


def count(make: Instruments) -> None:
    waiting = make.gauge(
        "fills_waiting",
        "Downloads that wait for a place among those that run (limits.fills)",
        "registry",
        of_many="livesum",
    )
    running = make.gauge(
        "fills_running", "Downloads of blobs that are under way", "registry", of_many="livesum"
    )
    waited = make.histogram(
        "fills_waited_seconds",
        "Seconds that a download has waited for its place. Where it is more than moments, raise "
        "limits.fills, or the line to the upstream is full",
        _WAITED,
        "registry",
    )
    ended = make.counter(
        "fills",
        "Downloads that have ended, by result: committed (kept), followed (another worker brought "
        "it), rejected (wrong bytes), suspended (to be resumed), failed, uncached (no room)",
        "registry",
        "result",
    )
    counted: dict[int, Gauge] = {}  # by the number of a fill: where it counts now

    def left(event: FillQueued | FillStarted | FillEnded) -> None:
        if (gauge := counted.pop(event.fill, None)) is not None:
            gauge.dec()

    def entered(event: FillQueued | FillStarted, gauge: Gauge) -> None:
        left(event)
        counted[event.fill] = gauge.labels(make.registry_label(event.repository.registry))
        counted[event.fill].inc()

    def started(event: FillStarted) -> None:
        entered(event, running)
        waited.labels(make.registry_label(event.repository.registry)).observe(event.waited)

    def has_ended(event: FillEnded) -> None:
        left(event)
        ended.labels(make.registry_label(event.repository.registry), event.result).inc()

    make.events.listen(FillQueued, lambda event: entered(event, waiting))
    make.events.listen(FillStarted, started)
    make.events.listen(FillEnded, has_ended)

    prefetched = make.counter(
        "prefetched_bytes",
        "Bytes of layers that were downloaded before any client had asked for them",
        "registry",
    )
    read = make.counter(
        "prefetched_read_bytes",
        "Bytes of layers that were downloaded ahead, and that a client has asked for since. What "
        "is missing of prefetched_bytes was downloaded in vain so far",
        "registry",
    )
    make.events.listen(
        Prefetched,
        lambda event: prefetched.labels(make.registry_label(event.repository.registry)).inc(
            event.size
        ),
    )
    make.events.listen(
        PrefetchRead,
        lambda event: read.labels(make.registry_label(event.repository.registry)).inc(event.size),
    )

    def joined(event: EndpointJoined) -> None:
        for counter in (prefetched, read):  # from the beginning, so that a first step shows
            counter.labels(make.registry_label(event.registry))

    make.events.listen(EndpointJoined, joined)
