"""What clients ask, and how they are answered."""

from __future__ import annotations

from functools import cache

from ..contracts.events import CredentialsDropped, HitsAnswered, RequestAnswered
from ..contracts.registry import Outcome
from ..tallies import observe_fast
from .instruments import Instruments

# In seconds, from a hit in memory to a layer of gigabytes over a slow line. What is counted
# together (HitsAnswered) took no longer than one of the first two or three bounds.
_FIRST_BYTE = (
    *(0.0002, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 100),
)
_LAST_BYTE = (0.0002, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100, 300, 600)


def count(make: Instruments) -> None:
    requests = make.counter(
        "requests",
        "Requests of clients, by what was asked for (kind) and how the answer came to be "
        "(outcome): hit, revalidated and stale were answered from the cache, joined and filled "
        "waited for an upstream",
        "registry",
        "kind",
        "outcome",
    )
    responses = make.counter(
        "responses",
        "Answers to clients, by HTTP status: 5xx are pulls that failed",
        "registry",
        "kind",
        "status",
    )
    sent = make.counter(
        "sent_bytes",
        "Bytes of bodies sent to clients; less upstream_bytes, what the cache has saved",
        "registry",
        "kind",
    )
    first_byte = make.histogram(
        "first_byte_seconds",
        "Latency of requests: seconds from a request's arrival to its answer's first byte, which "
        "for a miss includes the upstream's",
        _FIRST_BYTE,
        "kind",
        "outcome",
    )
    last_byte = make.histogram(
        "last_byte_seconds",
        "Duration of requests: seconds from a request's arrival to its answer's last byte, which "
        "for a blob depends on the client's line too",
        _LAST_BYTE,
        "kind",
        "outcome",
    )

    # To find what it counts in takes prometheus-client 1 µs each time, and a hit takes 3 in all.
    requests_of, responses_of = cache(requests.labels), cache(responses.labels)
    first_byte_of, last_byte_of = cache(first_byte.labels), cache(last_byte.labels)
    sent_of = cache(sent.labels)

    def answered(event: RequestAnswered) -> None:
        registry = make.registry_label(event.registry)
        kind, outcome = event.kind, event.outcome
        if event.sent:
            sent_of(registry, kind).inc(event.sent)
        if event.status is None:
            return
        requests_of(registry, kind, outcome).inc()
        responses_of(registry, kind, str(event.status)).inc()
        first_byte_of(kind, outcome).observe(event.first_byte)
        last_byte_of(kind, outcome).observe(event.last_byte)

    def hits(event: HitsAnswered) -> None:
        registry = make.registry_label(event.registry)
        kind, outcome = event.kind, Outcome.HIT.value
        requests_of(registry, kind, outcome).inc(event.count)
        responses_of(registry, kind, str(event.status)).inc(event.count)
        if event.sent:
            sent_of(registry, kind).inc(event.sent)
        for histogram_of in (first_byte_of, last_byte_of):
            # Observing them one by one would take longer than answering them did.
            observe_fast(histogram_of(kind, outcome), event.count, event.took, event.within)

    make.events.listen(RequestAnswered, answered)
    make.events.listen(HitsAnswered, hits)
    credentials = make.counter(
        "credentials_dropped",
        "Requests in which a client sent credentials to the mirror, which wants none: they were "
        "thrown away, and the client is configured wrongly",
    )
    make.events.listen(CredentialsDropped, lambda _: credentials.inc())
