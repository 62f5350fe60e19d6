"""The logins of one endpoint, used by what each of them may read, and has left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence

from cachetools import TTLCache
from yarl import URL

from ...clock import Clock
from ...contracts.accounts import AccountNotes
from ...contracts.bulletins import Bulletins
from ...events import Events
from ...frozen import dataclass
from ...oci.challenges import Challenge
from ...oci.errors import RateLimited
from ...oci.layout import layouts
from ..endpoint import Configured, Endpoint
from ..failures import LoginRefused
from ..http.transport import Transport, origin
from .authorizer import Authorizer
from .logins import OwnLogin, name_of
from .quota import Quota
from .site import Finder
from .sources import place_of

# What a login may read, and may not, is believed for so many seconds: rights are given and taken.
_KNOWN_FOR = 600.0
_MOST_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class Account:
    """One login, or none: what it shows to the endpoint, and what it may still ask there."""

    authorizer: Authorizer
    quota: Quota

    def rests(self) -> bool:
        """Whether the account's login is refused, and not to be shown now."""
        return self.authorizer.own is not None and self.authorizer.own.rests()


class Accounts:
    """All of an endpoint's logins. What each may read is learnt by asking. While one is refused,
    what is public is asked for without a login."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        finder: Finder,
        clock: Clock,
        events: Events,
        notes: AccountNotes | None = None,
    ) -> None:
        url = URL(endpoint.url, encoded=True)
        self._place = f"{origin(url)}{layouts(url.path)[0].path}"

        def account(login: Configured | None, number: int) -> Account:
            label = name_of(login)
            own = None
            if login is not None:
                # All endpoints at a host hear of it: projects of one registry have one login, and
                # are shown a wrong one together. Below another path is another registry, whose
                # users may be others. Tokens have no name: their order tells them apart.
                words = f"{self._place} {label} {number} {place_of(login)}"
                told = notes.login(words) if notes else None
                own = OwnLogin(endpoint.name, login, clock, events, told, endpoint.registry)
            low = endpoint.logins.quota_low
            quota = Quota(endpoint.name, label, clock, events, low, endpoint.registry)
            return Account(Authorizer(endpoint, own, transport, finder, clock), quota)

        numbers: Counter[str] = Counter()
        configured = []
        for login in endpoint.logins.credentials:
            configured.append(account(login, numbers[name_of(login)]))
            numbers[name_of(login)] += 1
        self.anonymous = account(None, 0)
        self._all: Sequence[Account] = configured or (self.anonymous,)
        self._denied, self._reading = (
            TTLCache[tuple[Account, str], None](_MOST_KNOWN, _KNOWN_FOR, clock.monotonic)
            for _ in range(2)
        )

    def share(self, elsewhere: Bulletins) -> None:
        """From now on other nodes are told what becomes of the logins, and what is left to them,
        and tell it. A login is the same on all nodes by its name and its place in the list."""
        for number, account in enumerate((self.anonymous, *self.configured)):
            own = account.authorizer.own
            who = f"{self._place} {own.name if own else ''} {number}"
            account.quota.share(elsewhere, f"quota {who}")
            if own is not None:
                own.share(elsewhere, f"login {who}")

    def __len__(self) -> int:
        return len(self._all)

    @property
    def configured(self) -> Sequence[Account]:
        """One for each login; none, where all is asked for anonymously."""
        return [account for account in self._all if account.authorizer.own is not None]

    def any(self, repository: str, besides: Collection[Account] = ()) -> Account:
        """The account for what no limit counts: of those that may read this, the one that has most
        left."""
        return max(self._welcome(repository, besides), key=lambda account: account.quota.left)

    def for_manifest(
        self, repository: str, pull: bool, besides: Collection[Account] = ()
    ) -> Account:
        """The account for a GET (`pull`) or a HEAD of a manifest: of those that may read this, and
        may ask, the one that has most left. Raises RateLimited when none may ask."""
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

    async def listen(self) -> None:
        """Hears, before an account is chosen, what has become of the logins meanwhile."""
        for account in self._all:
            if account.authorizer.own is not None:
                await account.authorizer.own.listen()

    def look_again(self) -> None:
        """The operator has the configuration read again: see OwnLogin."""
        for account in self._all:
            if account.authorizer.own is not None:
                account.authorizer.own.look_again()

    def has_more(self, besides: Collection[Account]) -> bool:
        """Whether there is another account to ask with than these."""
        return bool(self._untried(besides))

    def refusals(self) -> Sequence[LoginRefused]:
        """For each login that is refused, the error that says so."""
        own = (account.authorizer.own for account in self._all)
        return [refusal for one in own if one is not None and (refusal := one.refusal())]

    def realm(self, challenges: Sequence[Challenge]) -> URL | None:
        """The token realm of these, with the service that it is asked for; None: there is none.
        Raises Untrustworthy."""
        return self._all[0].authorizer.realm(challenges)

    def denied(self, account: Account, repository: str) -> None:
        """The endpoint does not let this account read that: others are used first, for a while."""
        if len(self._all) > 1:
            self._denied[account, repository] = None

    def allowed(self, account: Account, repository: str, status: int) -> None:
        """The endpoint lets this account ask there, and has answered it."""
        self._denied.pop((account, repository), None)
        if len(self._all) > 1 and status < 400:
            self._reading[account, repository] = None

    def reads(self, account: Account, repository: str) -> bool:
        """Whether what this account does not find there is not hidden from it alone: it has read
        there lately, or no other account could."""
        return len(self._all) == 1 or (account, repository) in self._reading

    def _untried(self, besides: Collection[Account]) -> Sequence[Account]:
        """The accounts whose logins are not refused; when none is left and one was refused, the
        anonymous one."""
        untried = [one for one in self._all if one not in besides and not one.rests()]
        if not untried and self.refusals() and self.anonymous not in besides:
            return [self.anonymous]
        return untried

    def _welcome(self, repository: str, besides: Collection[Account]) -> Sequence[Account]:
        """The accounts that are not known not to read this repository; all, when none is left."""
        untried = self._untried(besides) or [self.anonymous]
        return [one for one in untried if (one, repository) not in self._denied] or untried

    def pulls_are_counted(self) -> bool:
        """Whether the endpoint is known to grant a login only so many manifests."""
        return any(account.quota.is_known for account in (*self._all, self.anonymous))

    def scarce(self) -> bool:
        """Whether every login has little left."""
        return all(account.quota.low() for account in self._untried(()))

    async def close(self) -> None:
        accounts = {*self._all, self.anonymous}
        for account in accounts:
            account.quota.leave()
            if account.authorizer.own is not None:
                account.authorizer.own.leave()
        await asyncio.gather(*(account.authorizer.close() for account in accounts))
