"""What the processes of a node tell each other of logins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

N = TypeVar("N")


@dataclass(frozen=True, slots=True)
class QuotaRecord:
    """What an endpoint said of the manifests that it gives to one login: so many in `window`
    seconds, so many left; `source` is whom it counts, "" when it does not say.

    Times are in seconds since the epoch. Before `pulls_at` no manifest is pulled, because the count
    was used up where it was `counted`; before `asks_at` none is asked for at all.
    """

    limit: int | None
    remaining: int | None
    window: float | None
    source: str
    said_at: float
    pulls_at: float
    counted: bool
    asks_at: float


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


class Notes(Protocol[N]):
    """What the processes of one node tell each other of one login at one endpoint. Its faults are
    its own: what it cannot say, it does not know."""

    def heard(self) -> N | None:
        """What another has noted since this was last asked; None: nothing new. A few
        microseconds."""

    def note(self, record: N) -> None:
        """Tells the others, soon."""


class AccountNotes(Protocol):
    """Notes of all logins, each by an endpoint's URL and a login, in words that are always the
    same."""

    def quota(self, account: str) -> Notes[QuotaRecord]: ...

    def login(self, account: str) -> Notes[RefusedLogin]: ...
