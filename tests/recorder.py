"""A bus that remembers."""

from __future__ import annotations

from typing import TypeVar

from mirror.events import Events

E = TypeVar("E")


class Recorder(Events):
    """`seen`: all that was emitted, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def emit(self, event: object) -> None:
        self.seen.append(event)
        super().emit(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen if isinstance(event, kind)]
