"""The bus: what happens is told to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

E = TypeVar("E")


class Events:
    """Passes events on, by their type (see mirror/contracts/events.py for those of the mirror).

    Everything is synchronous and on the event loop: whoever works in a thread emits when it is
    back. A listener returns within microseconds, awaits nothing, and may raise: that harms neither
    the emitter nor the other listeners. One that is slow (a webhook) has to put events into a
    bounded queue of its own, drop what finds no room in it, and count what it dropped.
    """

    def __init__(self) -> None:
        self._listeners: dict[type, tuple[Callable[[Any], object], ...]] = {}
        self._told: set[tuple[Callable[[Any], object], type]] = set()
        self.failures = 0
        """How often a listener has raised."""

    def listen(self, kind: type[E], listener: Callable[[E], object]) -> None:
        """From now on, calls `listener` with each event of this very type, after those that have
        listened before."""
        self._listeners[kind] = (*self._listeners.get(kind, ()), listener)

    def emit(self, event: object) -> None:
        """Tells all who listen for this type of event. Raises nothing."""
        for listener in self._listeners.get(type(event), ()):
            try:
                listener(event)
            except Exception as error:
                self._failed(listener, event, error)

    def _failed(self, listener: Callable[[Any], object], event: object, error: Exception) -> None:
        """Logged once for each listener and kind of error: a broken one fails with each event."""
        self.failures += 1
        if (listener, type(error)) not in self._told:
            self._told.add((listener, type(error)))
            log.error("listener_failed", event_type=type(event).__name__, exc_info=error)
