"""What the processes of a node tell each other of logins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RefusedLogin:
    """That an endpoint, or its token realm, refuses a login of ours, and `why`; "" when it is good
    again. Before `until` (seconds since the epoch) it is not shown. `secret` tells whether it is
    still the same one; "" where that cannot be told."""

    endpoint: str
    login: str
    why: str
    until: float
    secret: str


class Notes(Protocol):
    """What the processes of one node tell each other of one login at one endpoint. Its faults are
    its own: what it cannot say, it does not know."""

    def heard(self) -> RefusedLogin | None:
        """What another process has noted since this was last asked; None: nothing new. A few
        microseconds."""

    def note(self, record: RefusedLogin) -> None:
        """Tells the other processes, soon."""


class AccountNotes(Protocol):
    """Notes of all logins, each by an endpoint's URL and a login, in words that are always the
    same. Quotas are not shared: each answer tells them, and without that a worker asks for one
    manifest too many after a 429."""

    def login(self, account: str) -> Notes: ...
