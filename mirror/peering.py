"""What nodes of a fleet say to one another, and how they prove to be of it: by a secret that all of
them have."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

from .frozen import dataclass

SCHEME = "Fleet"
"""Of the header Authorization (RFC 9110, 11.4): who asks, when, and the MAC of the request."""

NODE_PATH = "/fleet/1/node"
"""Answered at once by a node that lives."""

CONTENT_PATH = "/fleet/1/content/"
"""Before a registry and a digest."""

UPLOADS_PATH = "/fleet/1/uploads/"
"""Before the id of an upload that the node has which is asked."""

ELSEWHERE = 421
"""The status of an answer that names other nodes, as `{"nodes": [URL, …]}`."""

SKEW = 60.0
"""Seconds by which the clocks of two nodes may differ. A request that somebody has overheard is
good for so long, at the node that it was for."""

LONGEST_URL = 300
"""Characters of a node's URL."""

_PROOF = re.compile(r"Fleet (https?://[\x21-\x7e]{1,300}) ([0-9]{1,12}) ([0-9a-f]{64})", re.ASCII)


def mac_of(secret: bytes, purpose: str, *words: str) -> str:
    """64 hex digits (HMAC-SHA256) over what it is for, and each word with its length: what is
    signed for one purpose is good for no other, and no two lists of words are the same text."""
    text = "".join(f"{len(word)}:{word}," for word in ("registry-mirror 1", purpose, *words))
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def is_mac_of(mac: str, secret: bytes, purpose: str, *words: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(mac.encode(), mac_of(secret, purpose, *words).encode())


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of one node to another. `path` and `range` as they are sent, "" for no Range."""

    method: str
    path: str
    range: str = ""


class Refused(Exception):
    """A request is none of the fleet's. Its text is for whoever looks after the two nodes;
    `reason` is one of a few words, to be counted by."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class Proof:
    """Signs this node's requests, and verifies those of others. `own`: this node's URL; `wall`: the
    seconds since the epoch."""

    def __init__(self, secret: bytes, own: str, wall: Callable[[], float]) -> None:
        self._secret = secret
        self._own = own
        self._wall = wall

    def of(self, ask: Ask, to: str) -> str:
        """The value of Authorization."""
        now = str(int(self._wall()))
        mac = mac_of(self._secret, "ask", ask.method, to, ask.path, ask.range, self._own, now)
        return f"{SCHEME} {self._own} {now} {mac}"

    def asker(self, ask: Ask, given: str) -> str:
        """The URL of the node that asks this one. Raises Refused."""
        match = _PROOF.fullmatch(given)
        if match is None:
            raise Refused("unsigned", "this port is for the nodes of a fleet, and shows them alone")
        url, at, mac = match.groups()
        signed = (ask.method, self._own, ask.path, ask.range, url, at)
        if not is_mac_of(mac, self._secret, "ask", *signed):
            raise Refused(
                "signature",
                f"not signed by this fleet's secret, or meant for another node than {self._own}",
            )
        late = self._wall() - int(at)
        if abs(late) > SKEW:
            raise Refused(
                "clock",
                f"the clock here ({self._own}) is {abs(late):.0f} s "
                f"{'ahead of' if late > 0 else 'behind'} that of the node that asks ({url}), and "
                f"{SKEW:.0f} s are borne: set both by NTP",
            )
        return url
