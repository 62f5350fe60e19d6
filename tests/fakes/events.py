"""A bus that remembers."""

from __future__ import annotations

from typing import TypeVar

from mirror.contracts.events import CredentialsDropped, HitsAnswered, RequestAnswered
from mirror.contracts.registry import Outcome
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


class Answers(Recorder):
    """What the server tells of the requests that it has answered."""

    @property
    def answers(self) -> list[tuple[str, str, int]]:
        """Kind, outcome and status of each."""
        found: list[tuple[str, str, int]] = []
        for each in self.seen:
            if isinstance(each, RequestAnswered) and each.status is not None:
                assert 0 <= each.first_byte <= each.last_byte
                found.append((each.kind, each.outcome, each.status))
            elif isinstance(each, HitsAnswered):
                assert 0 <= each.took <= each.count / 1000
                found += [(each.kind, Outcome.HIT, each.status)] * each.count
        return found

    @property
    def bytes(self) -> dict[str, int]:
        """Of bodies, by kind."""
        found: dict[str, int] = {}
        for each in (*self.of(RequestAnswered), *self.of(HitsAnswered)):
            if each.sent:
                found[each.kind] = found.get(each.kind, 0) + each.sent
        return found

    @property
    def credentials(self) -> int:
        return len(self.of(CredentialsDropped))
