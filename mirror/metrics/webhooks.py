"""Webhooks: what receivers were sent, and what they are still to be sent."""

from __future__ import annotations

from ..contracts.events import WebhookAttempted, WebhooksCounted
from .instruments import Instruments


def count(make: Instruments) -> None:
    attempts = make.counter(
        "webhook_attempts",
        "Deliveries that were sent to the receivers of webhooks, by result: delivered, refused (a "
        "3xx or 4xx), later (a 5xx or 429: tried again), or unreachable (no answer: tried again)",
        "result",
    )
    lost = make.counter(
        "webhook_lost",
        "Deliveries that no receiver took, by reason: refused (a few times), or old (after a day)",
        "reason",
    )
    waiting = make.gauge(
        "webhook_waiting", "Deliveries that wait for their next attempt", of_many="max"
    )
    oldest = make.gauge(
        "webhook_oldest_waiting_seconds",
        "For how long the oldest of them has waited: a receiver is down, or wrong",
        of_many="max",
    )
    dropped = make.gauge(
        "webhook_dropped",
        "What found no room in the queue of its webhook, since the webhooks that are there were "
        "made",
        of_many="max",
    )

    def attempted(event: WebhookAttempted) -> None:
        attempts.labels(event.result).inc()
        if event.result == "refused" and event.ended:
            lost.labels("refused").inc()

    def counted(event: WebhooksCounted) -> None:
        waiting.set(event.waiting)
        oldest.set(event.oldest)
        dropped.set(event.dropped)
        lost.labels("old").inc(event.given_up)

    make.events.listen(WebhookAttempted, attempted)
    make.events.listen(WebhooksCounted, counted)
