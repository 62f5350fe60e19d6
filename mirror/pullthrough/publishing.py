"""The one way in which what an upstream sent becomes content."""

from __future__ import annotations

from collections.abc import Awaitable

from ..contracts.events import ContentCommitted
from ..events import Events


async def publish(commit: Awaitable[bool], content: ContentCommitted, events: Events) -> bool:
    """Waits until a store has proven and published these bytes, and then says so; whether they are
    kept. `commit` is the store's, of a blob's partial or of a manifest; what it raises is raised.

    Nothing is said of bytes that another process publishes: it does."""
    kept = await commit
    if kept:
        events.emit(content)
    return kept
