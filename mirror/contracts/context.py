"""For whom something is done."""

from __future__ import annotations

from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Protocol


class Asker(Protocol):
    """For whom something is done. Both may change meanwhile: others come to wait for the same."""

    @property
    def client(self) -> str:
        """Whose share of what is scarce it takes: an address, or what stands for a network."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for it. What nobody wants gives way to all."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client; or nobody, for what is done ahead of clients."""

    client: str
    is_wanted: bool = True


NOBODY = Client("")


AHEAD = Client("ahead of clients", is_wanted=False)


CLIENT: ContextVar[Asker] = ContextVar("CLIENT", default=NOBODY)


"""Whose request this is, for sharing fairly what is scarce. Set by the server, by fills and by what
works ahead of clients; it would otherwise be a parameter of every Registry that only the innermost
reads."""


def ahead_of_clients() -> Context:
    """A context for tasks that work ahead of clients."""
    context = Context()
    context.run(CLIENT.set, AHEAD)
    return context
