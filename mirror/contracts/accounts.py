"""What the processes of a node tell each other of logins."""

from __future__ import annotations

from typing import Protocol

from ..frozen import dataclass


@dataclass(frozen=True, slots=True)
class RefusedLogin:
    """That a login of ours is not shown, and `why`: an endpoint, or its token realm, refuses it, or
    it cannot be had; "" when it is good again. Before `until` (seconds since the epoch) that stays
    so. `secret` tells whether it is still the same one; "" where that cannot be told. `mend`: what
    the operator has to do."""

    endpoint: str
    login: str
    why: str
    until: float
    secret: str
    mend: str


class Notes(Protocol):
    """What the processes of one node tell each other of one login at one endpoint. Its faults are
    its own: what it cannot say, it does not know."""

    def heard(self) -> RefusedLogin | None:
        """What another process has noted since this was last asked; None: nothing new. A few
        microseconds."""

    def note(self, record: RefusedLogin) -> None:
        """Tells the other processes, soon."""


class AccountNotes(Protocol):
    """Notes of all logins, each by an endpoint's host and a login, in words that are always the
    same. Quotas are shared among the nodes of a fleet alone (see bulletins): each answer tells
    them, and without that a worker asks for one manifest too many after a 429."""

    def login(self, account: str) -> Notes: ...
