"""The logins of one endpoint, used by what each of them has left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..interfaces import Clock, Meter
from ..oci.errors import RateLimited
from .endpoint import Endpoint, Login
from .quota import Quota
from .tokens import Authorizer
from .transport import Transport


@dataclass(frozen=True, slots=True)
class Account:
    """One login, or none: what it shows to the endpoint, and what it may still ask there."""

    authorizer: Authorizer
    quota: Quota


class Accounts:
    """All of an endpoint's logins. Each is taken to be good for everything that is asked."""

    def __init__(
        self, endpoint: Endpoint, transport: Transport, clock: Clock, meter: Meter
    ) -> None:
        self._all: Sequence[Account] = [
            Account(
                Authorizer(endpoint, credentials, transport, clock),
                Quota(
                    endpoint.name,
                    credentials.username
                    if isinstance(credentials, Login)
                    else "token"
                    if credentials
                    else "",
                    clock,
                    meter,
                ),
            )
            for credentials in endpoint.credentials or (None,)
        ]

    def any(self) -> Account:
        """For what no limit counts: the one that has most left."""
        return max(self._all, key=lambda account: account.quota.left)

    def for_manifest(self, pull: bool) -> Account:
        """For a GET (`pull`) or a HEAD of a manifest: of those who may ask, the one that has most
        left. Raises RateLimited when none may."""
        refusals: list[RateLimited] = []
        free: list[Account] = []
        for account in self._all:
            refusal = account.quota.refusal(pull)
            if refusal is None:
                free.append(account)
            else:
                refusals.append(refusal)
        if not free:
            raise min(refusals, key=lambda refusal: refusal.retry_after or 0.0)
        return max(free, key=lambda account: account.quota.left)

    def scarce(self) -> bool:
        """Whether every login has little left."""
        return all(account.quota.low() for account in self._all)

    async def close(self) -> None:
        await asyncio.gather(*(account.authorizer.close() for account in self._all))
