"""How many connections ranges may have of their own, beside those that bring whole blobs."""

from __future__ import annotations

from collections import Counter

_AT_ONCE = 128
_OF_CLIENT = 32  # containerd asks for a layer in many ranges


class RangeConnections:
    """Those of this process: a bounded number, of which one client has a share."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def take(self, client: str) -> bool:
        """Whether there is one more for this client, who gives it back."""
        if self._open.total() >= _AT_ONCE or self._open[client] >= _OF_CLIENT:
            return False
        self._open[client] += 1
        return True

    def give(self, client: str) -> None:
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]
