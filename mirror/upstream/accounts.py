"""The logins of one endpoint, used by what each of them may read, and has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cachetools import TTLCache
from yarl import URL

from ..interfaces import Clock, Meter, QuotaNotes
from ..oci.challenges import Challenge
from ..oci.errors import RateLimited
from .endpoint import Credentials, Endpoint, Login
from .quota import Quota
from .tokens import Authorizer
from .transport import Transport

# That a login may not read a repository is believed for so many seconds: rights are given.
_DENIED_FOR = 600.0
_MOST_DENIED = 4096

Notes = Callable[[str], QuotaNotes]
"""How what is learnt of an account is shared, by the account's name."""


@dataclass(frozen=True, slots=True)
class Account:
    """One login, or none: what it shows to the endpoint, and what it may still ask there."""

    authorizer: Authorizer
    quota: Quota


class Accounts:
    """All of an endpoint's logins. What each may read is learnt by asking."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        clock: Clock,
        meter: Meter,
        notes: Notes | None = None,
    ) -> None:
        labels = [_label(credentials) for credentials in endpoint.credentials or (None,)]
        self._all: Sequence[Account] = [
            Account(
                Authorizer(endpoint, credentials, transport, clock),
                Quota(
                    endpoint.name,
                    labels[place],
                    clock,
                    meter,
                    endpoint.quota_low,
                    # Tokens have no name: they are told apart by their order.
                    notes(f"{endpoint.url} {labels[place]} {labels[:place].count(labels[place])}")
                    if notes
                    else None,
                ),
            )
            for place, credentials in enumerate(endpoint.credentials or (None,))
        ]
        self._denied: TTLCache[tuple[Account, str], None] = TTLCache(
            _MOST_DENIED, _DENIED_FOR, clock.monotonic
        )

    def __len__(self) -> int:
        return len(self._all)

    def any(self, repository: str, besides: Collection[Account] = ()) -> Account:
        """For what no limit counts: of those that may read this, the one that has most left."""
        return max(self._welcome(repository, besides), key=lambda account: account.quota.left)

    def for_manifest(
        self, repository: str, pull: bool, besides: Collection[Account] = ()
    ) -> Account:
        """For a GET (`pull`) or a HEAD of a manifest: of those that may read this, and may ask, the
        one that has most left. Raises RateLimited when none may ask."""
        refusals: list[RateLimited] = []
        free: list[Account] = []
        for account in self._welcome(repository, besides):
            refusal = account.quota.refusal(repository, pull)
            if refusal is None:
                free.append(account)
            else:
                refusals.append(refusal)
        if not free:
            raise min(refusals, key=lambda refusal: refusal.retry_after or 0.0)
        return max(free, key=lambda account: account.quota.left)

    def realm(self, challenges: Sequence[Challenge]) -> URL | None:
        """The token realm of these, with the service that it is asked for; None: there is none.
        Raises Untrustworthy."""
        return self._all[0].authorizer.realm(challenges)

    def denied(self, account: Account, repository: str) -> None:
        """The endpoint does not let this one read that: others are asked first, for a while."""
        if len(self._all) > 1:
            self._denied[account, repository] = None

    def allowed(self, account: Account, repository: str) -> None:
        self._denied.pop((account, repository), None)

    def _welcome(self, repository: str, besides: Collection[Account]) -> Sequence[Account]:
        """Those of whom nothing says that they may not read this; all, when none is left."""
        untried = [account for account in self._all if account not in besides]
        return [one for one in untried if (one, repository) not in self._denied] or untried

    def scarce(self) -> bool:
        """Whether every login has little left."""
        return all(account.quota.low() for account in self._all)

    async def close(self) -> None:
        await asyncio.gather(*(account.authorizer.close() for account in self._all))


def _label(credentials: Credentials | None) -> str:
    """What metrics and messages call it."""
    if isinstance(credentials, Login):
        return credentials.username
    return "token" if credentials else ""
