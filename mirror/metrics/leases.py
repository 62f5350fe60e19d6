"""Which node fetches what: of a fleet that fetches together."""

from __future__ import annotations

from ..contracts.events import FleetAsked, FleetWentOn, LeasesSwitched
from .instruments import Instruments

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60)


def count(make: Instruments) -> None:
    """`result`, of all of them: fetches, follows or alone, as of FleetAsked."""
    asked = make.counter(
        "fleet_asked",
        "Manifests and blobs of which it was asked who of the fleet fetches them. fetches: this "
        "node, for all; follows: another, and this one reads from it; alone: this node for itself, "
        "as nobody could say, or who fetches it was not reached",
        "result",
    )
    waited = make.histogram(
        "fleet_wait_seconds",
        "Seconds until it was known who of the fleet fetches a manifest or blob, and that node or "
        "the upstream had answered",
        _SECONDS,
    )
    went_on = make.counter(
        "fleet_taken_over",
        "Blobs that came from another node until that failed or fell silent, by who brought the "
        "rest, as in registry_mirror_fleet_asked_total",
        "result",
    )
    silent = make.histogram(
        "fleet_takeover_seconds",
        "For how many seconds nothing came of a blob whose node failed, until another went on",
        _SECONDS,
    )
    works = make.gauge(
        "fleet_leases_up",
        "1: Redis says which node fetches what. 0: each node fetches for itself",
        of_many="livemin",
    )
    for result in ("fetches", "follows", "alone"):
        asked.labels(result)
        went_on.labels(result)
    works.set(1)

    def was_asked(event: FleetAsked) -> None:
        asked.labels(event.result).inc()
        waited.observe(event.waited)

    def has_gone_on(event: FleetWentOn) -> None:
        went_on.labels(event.result).inc()
        silent.observe(event.silent)

    make.events.listen(FleetAsked, was_asked)
    make.events.listen(FleetWentOn, has_gone_on)
    make.events.listen(LeasesSwitched, lambda event: works.set(event.works))
