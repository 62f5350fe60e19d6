"""What the nodes of a fleet tell one another of upstreams: short words, which all have in about a
second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Words = Mapping[str, Any]
"""What JSON has. Other nodes are trusted, but may be of another version: to be read with care."""


class Bulletin(Protocol):
    """The latest word on one subject. Its faults are its own."""

    def tell(self, words: Words, seconds: float) -> None:
        """Tells the others, soon, in place of what was told before; it is kept so long."""

    def mark(self, secret: str) -> str:
        """Tells a secret from others, and whoever has not the fleet's own learns nothing by it."""

    def leave(self) -> None:
        """Hears nothing more."""


class Bulletins(Protocol):
    def join(self, subject: str, hear: Callable[[Words], None]) -> Bulletin:
        """`subject` is the same words on all nodes. `hear` is called on the event loop with what
        others tell, each time that it is new; words that `hear` raises ValueError, TypeError or
        LookupError at are passed over."""
