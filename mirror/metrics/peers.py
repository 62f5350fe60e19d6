"""The other nodes of a fleet: which there are, what they were given, and what they were asked
for."""

from __future__ import annotations

from ..contracts.events import FleetNodesCounted, PeerAnswered, PeerAsked, PeerFollowing
from .instruments import Instruments


def count(make: Instruments) -> None:
    nodes = make.gauge(
        "fleet_nodes",
        "Nodes of the fleet that are known, this one among them. Of two nodes that know different "
        "numbers, one does not read what the other does",
        of_many="max",
    )
    answers = make.counter(
        "peer_answers",
        "Other nodes' requests for content, by result: here (given from the disk), growing (given "
        "as it came), elsewhere (sent to others who read it), nothing, or cut (in the midst of it)",
        "result",
    )
    refused = make.counter(
        "peer_refused",
        "Requests at the peer port that were none of the fleet's, by reason: unsigned, signature "
        "(another secret, or meant for another URL), or clock (they differ by more than a minute)",
        "reason",
    )
    sent = make.counter("peer_sent_bytes", "Bytes of content that other nodes were given")
    followers = make.gauge(
        "peer_followers", "Streams by which other nodes read what still comes here", of_many="sum"
    )
    asked = make.counter(
        "peer_asks",
        "Times that another node was asked for content, by result: stream, elsewhere (it named "
        "others who read it), nothing, away (it does not answer), refused (by it), or wrong",
        "result",
    )

    def answered(event: PeerAnswered) -> None:
        if event.result == "refused":
            refused.labels(event.reason).inc()
            return
        answers.labels(event.result).inc()
        sent.inc(event.sent)

    listen = make.events.listen
    listen(FleetNodesCounted, lambda event: nodes.set(event.known))
    listen(PeerAnswered, answered)
    listen(PeerFollowing, lambda event: followers.inc(event.more))
    listen(PeerAsked, lambda event: asked.labels(event.result).inc())
