"""All of it, put together by the records."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from ..clock import Clock
from ..contracts.hosted import HostedRecords
from ..contracts.identity import IdentityRecords
from ..tasks import beside
from .accounts import Accounts
from .audit import HostedAudit
from .authenticator import HostedAuthenticator, Realm
from .guard import Guard, Hosted
from .key_ring import KeyRing
from .passwords import BcryptPasswords
from .rights import HostedRights
from .tokens import Tokens
from .uses import Uses


class Identity:
    """Of one process. `service`: the name that tokens are for, the same in all processes and
    nodes. `still`: see HostedRights. In use while it is `running`."""

    def __init__(
        self,
        records: IdentityRecords,
        hosted: HostedRecords,
        service: str,
        clock: Clock,
        still: Callable[[str], Callable[[], bool]] = lambda _: lambda: True,
    ) -> None:
        wall, monotonic = clock.wall, clock.monotonic
        accounts = Accounts(records, wall=wall, monotonic=monotonic)
        keys = KeyRing(records, wall=wall, monotonic=monotonic)
        tokens = Tokens(service, keys, wall)
        self._uses = Uses(records, wall)
        self.audit = HostedAudit(records, wall=wall, monotonic=monotonic)
        self.passwords = BcryptPasswords()
        self.rights = HostedRights(accounts, records, hosted, monotonic=monotonic, still=still)
        self.authenticator = HostedAuthenticator(
            accounts, self.passwords, tokens, monotonic, self.audit.note_login, self._uses
        )
        self.realm = Realm(self.authenticator, self.rights, tokens)

    def guard(self, registry: Hosted) -> Guard:
        """What clients are given of this registry."""
        return Guard(registry, self.rights, self.audit)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At its end what waits to be written is written, if that takes no more than seconds."""
        try:
            async with beside(self.audit.run(), "audit"), beside(self._uses.run(), "uses"):
                yield
        finally:
            self.passwords.close()
