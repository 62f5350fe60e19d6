"""Endpoints: how they answer, which are passed over, what they still give to our logins."""

from __future__ import annotations

from ..contracts.events import (
    BreakerSwitched,
    EndpointJoined,
    EndpointLeft,
    LoginJudged,
    QuotaPaused,
    QuotaReported,
    UpstreamAsked,
    UpstreamHedged,
    UpstreamRead,
    UpstreamRejected,
)
from .instruments import Instruments

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)  # seconds
_TROUBLES = ("fault", "limited", "wrong")
_DOWN = ("fault", "wrong")  # which keep an endpoint from being asked for everything


def count(make: Instruments) -> None:
    _asked(make)
    _passed_over(make)
    _quota(make)
    _logins(make)


def _asked(make: Instruments) -> None:
    listen = make.events.listen
    requests = make.counter(
        "upstream_requests",
        "Requests to endpoints, by HTTP status, or by what went wrong where there was no answer: "
        "connect, dns, tls, timeout, cut, proxy",
        "registry",
        "endpoint",
        "method",
        "status",
    )
    latency = make.histogram(
        "upstream_first_byte_seconds",
        "Latency of endpoints: seconds from a request to the head of its answer, or to its failure",
        _LATENCY,
        "registry",
        "endpoint",
        "method",
    )

    def asked(event: UpstreamAsked) -> None:
        registry = make.registry_label(event.registry)
        requests.labels(registry, event.endpoint, event.method, event.status).inc()
        latency.labels(registry, event.endpoint, event.method).observe(event.took)

    listen(UpstreamAsked, asked)
    read = make.counter(
        "upstream_bytes",
        "Bytes of bodies read from endpoints: what the cache could not answer",
        "registry",
        "endpoint",
    )
    listen(
        UpstreamRead,
        lambda event: read.labels(make.registry_label(event.registry), event.endpoint).inc(
            event.count
        ),
    )
    rejected = make.counter(
        "upstream_rejected",
        "Answers of endpoints whose bytes are not what their digest says: they were not kept",
        "registry",
        "endpoint",
    )
    listen(
        UpstreamRejected,
        lambda event: rejected.labels(make.registry_label(event.registry), event.endpoint).inc(),
    )
    hedges = make.counter(
        "upstream_hedges",
        "How often an endpoint was asked besides another that was late, by whether it answered "
        "first",
        "registry",
        "endpoint",
        "won",
    )
    listen(
        UpstreamHedged,
        lambda event: hedges.labels(
            make.registry_label(event.registry), event.endpoint, "yes" if event.won else "no"
        ).inc(),
    )

    def joined(event: EndpointJoined) -> None:
        # Counters that are there from the beginning show their first step.
        labels = make.registry_label(event.registry), event.endpoint
        for counter in (read, rejected):
            counter.labels(*labels)
        for won in ("yes", "no"):
            hedges.labels(*labels, won)

    listen(EndpointJoined, joined)


def _passed_over(make: Instruments) -> None:
    listen = make.events.listen
    breakers = make.gauge(
        "upstream_breaker_open",
        "1 while an endpoint is passed over for this kind of trouble: fault (it does not answer), "
        "limited (429), wrong (it sent what was not asked for)",
        "registry",
        "endpoint",
        "trouble",
        of_many="livemax",
    )
    make.said_of_endpoint(
        BreakerSwitched,
        lambda event: breakers.labels(
            make.registry_label(event.registry), event.endpoint, event.trouble
        ),
        lambda event: event.open,
    )
    there = make.gauge(
        "upstream_endpoints",
        "Endpoints that the configuration names for a registry",
        "registry",
        of_many="livemax",
    )
    down = make.gauge(
        "upstream_endpoints_down",
        "Endpoints of a registry that are passed over, as they do not answer or are not trusted. "
        "Where all are, only what is cached is served",
        "registry",
        of_many="livemax",
    )
    troubles: dict[str, dict[str, set[str]]] = {}  # by registry and endpoint: what it is down for

    def show(registry: str) -> None:
        endpoints = troubles.get(registry, {})
        there.labels(registry).set(len(endpoints))
        down.labels(registry).set(sum(map(bool, endpoints.values())))

    def joined(event: EndpointJoined) -> None:
        troubles.setdefault(event.registry, {}).setdefault(event.endpoint, set())
        for trouble in _TROUBLES:
            breakers.labels(make.registry_label(event.registry), event.endpoint, trouble)
        show(event.registry)

    def left(event: EndpointLeft) -> None:
        if troubles.get(event.registry, {}).pop(event.endpoint, None) is not None:
            show(event.registry)

    def switched(event: BreakerSwitched) -> None:
        found = troubles.get(event.registry, {}).get(event.endpoint)
        if found is None or event.trouble not in _DOWN:
            return
        if event.open:
            found.add(event.trouble)
        else:
            found.discard(event.trouble)
        show(event.registry)

    listen(EndpointJoined, joined)
    listen(EndpointLeft, left)
    listen(BreakerSwitched, switched)


def _quota(make: Instruments) -> None:
    labels = ("registry", "endpoint", "login")
    limit = make.gauge(
        "upstream_quota_limit",
        "Manifests that an endpoint gives to a login in its window; login is empty for asking "
        "without one",
        *labels,
        of_many="livemostrecent",
    )
    remaining = make.gauge(
        "upstream_quota_remaining",
        "Manifests that an endpoint still gives to a login in this window",
        *labels,
        of_many="livemostrecent",
    )
    reset = make.gauge(
        "upstream_quota_reset_timestamp_seconds",
        "When the window ends, at the latest, and the whole limit is there again, in Unix time; 0 "
        "where none is missing, or the endpoint names no window",
        *labels,
        of_many="livemostrecent",
    )

    def reported(event: QuotaReported) -> None:
        values = make.registry_label(event.registry), event.endpoint, event.login
        limit.labels(*values).set(event.limit)
        remaining.labels(*values).set(event.remaining)
        reset.labels(*values).set(event.resets)

    make.events.listen(QuotaReported, reported)
    until = make.gauge(
        "upstream_quota_until_seconds",
        "When an endpoint that has refused by its limit is asked for manifests again, in Unix "
        "time; 0 when it may be asked now",
        *labels,
        of_many="livemax",
    )
    make.said_of_endpoint(
        QuotaPaused,
        lambda event: until.labels(
            make.registry_label(event.registry), event.endpoint, event.login
        ),
        lambda event: event.until,
    )


def _logins(make: Instruments) -> None:
    refused = make.gauge(
        "upstream_login_refused",
        "1 while an endpoint, or its token realm, refuses this login of the configuration: it is "
        "not shown for a while, and what is public is asked for without it",
        "registry",
        "endpoint",
        "login",
        of_many="livemax",
    )
    make.said_of_endpoint(
        LoginJudged,
        lambda event: refused.labels(
            make.registry_label(event.registry), event.endpoint, event.login
        ),
        lambda event: event.refused,
    )
