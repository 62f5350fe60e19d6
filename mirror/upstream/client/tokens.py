"""What is shown to a registry: nothing, a Basic login, a given token, or a negotiated one.

The negotiation is that of Docker's token specification, as Docker Hub, ghcr.io and quay.io do it:
the registry answers 401 with `Bearer realm=…,service=…`; the realm, asked for the scope
`repository:<name>:pull`, gives a token, with the mirror's login or without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf

from cachetools import LRUCache
from yarl import URL

from ...asking.budgets import Budgets
from ...asking.once_more import once_more_if_silent
from ...asking.single_flight import NoTurn, Sharing, SingleFlight
from ...clock import Clock
from ...contracts.context import Asker
from ...oci.challenges import Challenge
from ...oci.errors import Denied, Refused, RegistryError
from ..endpoint import CONNECTIONS, Credentials, Endpoint
from ..failures import NoToken, Unreached
from ..http.transport import Transport, origin
from .logins import OwnLogin, Proof, header_of, refusal
from .realm import WORD, Realms, Token
from .site import Finder
from .turns import Turns

_MAX_TOKENS = 1000
_AT_ONCE = 8  # asks that show a login which is known to be good
_OF_CLIENT = 2  # asks for the same token
# A client's asks beside silent ones that were of no use: so many at once, and more a second.
_BESIDE = 8.0
_BESIDE_REFILL = 0.1


@dataclass(frozen=True, slots=True)
class _Key:
    """All that a token is good for: with less, it would be shown where it does not belong."""

    endpoint: str
    realm: str
    service: str
    scope: str
    account: str


class Reception(Enum):
    """What came of showing a login."""

    ACCEPTED = "accepted"
    WITHHELD = "withheld"  # the token realm may not see it
    NOT_ASKED_FOR = "not asked for"
    UNPROVEN = "unproven"  # whoever decides has trouble


class Authorizer:
    """Knows what to show to one endpoint for one login, or for none.

    It learns from the first 401 what the endpoint wants, so that later requests bring it along.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        own: OwnLogin | None,
        transport: Transport,
        finder: Finder,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self._finder = finder
        self.own = own
        self._origin = URL(endpoint.url).origin()
        self._transport = transport
        self._clock = clock
        self._realms = Realms(endpoint, own, transport, clock)
        self._wanted: Challenge | None = None
        self._tokens: LRUCache[_Key, Token] = LRUCache(_MAX_TOKENS)
        self._asks = self._asks_of(CONNECTIONS, lambda: False)
        self._asks_with_login = self._asks_of(
            _AT_ONCE, lambda: own is not None and not own.is_proven
        )

    def _asks_of(self, most: int, one_by_one: Callable[[], bool]) -> SingleFlight[_Key, Token]:
        name, limits = self._endpoint.name, self._endpoint.limits
        turns = Turns(
            name,
            most,
            one_by_one,
            limits.waits.realm_silent,
            limits.waits.realm,
            limits.waits.answer,
        )
        sharing = Sharing(
            limits.waits.realm_silent,
            _OF_CLIENT,
            of_all=inf,  # the turns bound them
            beside=Budgets(_BESIDE, _BESIDE_REFILL, self._clock),
            unheard=(NoTurn, Unreached),
        )
        return SingleFlight(sharing, turns)

    async def authorization(self, asker: Asker, repository: str) -> str | None:
        """The Authorization header for this repository, by what is known so far. Raises
        LoginRefused while the login rests."""
        if self.own is not None and self.own.is_given:
            return header_of(await self.own.admitted(self._prove_to_registry))
        if self._wanted is None:
            return None
        if self._wanted.scheme == "basic":
            if self.own is None:
                return None
            return header_of(await self.own.proven(self._prove_to_registry))
        try:
            return await self._bearer(asker, self._wanted, repository)
        except RegistryError as error:
            # The realm may have moved: the next request asks the registry for its challenge anew.
            if not isinstance(error, Denied) or isinstance(error, Refused):
                self._wanted = None
            raise

    async def answer(
        self, asker: Asker, challenges: Sequence[Challenge], repository: str, refused: str | None
    ) -> str | None:
        """What to show after a 401 for `refused`; None when there is nothing else to show.

        The caller asks again once: a second 401 is the registry's last word.
        """
        if self.own is not None and self.own.is_given:
            return None
        wanted = _chosen(challenges) or self._wanted
        if wanted is not None and wanted.scheme == "bearer":
            key = self._key(wanted, repository)  # refuses a realm that may not be asked
            known = self._tokens.get(key)
            # Another request may have renewed the token since this one left.
            if known is not None and known.authorization == refused:
                del self._tokens[key]
        self._wanted = wanted
        shown = await self.authorization(asker, repository)
        return None if shown == refused else shown

    async def introduce(self, challenges: Sequence[Challenge]) -> Reception:
        """Shows the login by itself, as before its first use, to whom these challenges name. Raises
        LoginRefused where it is no good, or rests; NoToken."""
        own, wanted = self.own, _chosen(challenges)
        if own is None or wanted is None:
            return Reception.NOT_ASKED_FOR
        prove: Proof = self._prove_to_registry
        if wanted.scheme == "bearer" and not own.is_given:
            realm = self._realm(wanted.parameters.get("realm", ""))
            if self._realms.own_for(realm) is None:
                return Reception.WITHHELD
            prove = self._realms.proof(realm, wanted.parameters.get("service", ""))
        await own.proven(prove)
        return Reception.ACCEPTED if own.is_proven else Reception.UNPROVEN

    async def heard(self, shown: str | None, status: int) -> bool:
        """The registry's answer to `shown`. Whether to ask once more: the login, which was refused
        there, is another one by now. Raises LoginRefused when it is no good."""
        own = self.own
        if own is None or shown is None:
            return False
        credentials = own.credentials
        if credentials is None or not (own.is_given or shown.startswith("Basic ")):
            return False  # a token: of the login that says nothing
        is_refused = status in (401, 403)
        if shown != header_of(credentials):
            return is_refused
        if is_refused:
            who = f"{self._endpoint.name} ({status})"
            return await own.was_refused(credentials, self._prove_to_registry, who)
        own.was_good()
        return False

    async def _prove_to_registry(self, credentials: Credentials) -> str | None:
        url = (await self._finder.site()).root
        shown, limits = {"Authorization": header_of(credentials)}, self._endpoint.limits

        async def ask() -> int:
            response = await self._transport.send("GET", url, shown, limits.waits.realm)
            await self._transport.discard(response)
            return response.status

        return refusal(
            await once_more_if_silent(ask, limits.waits.realm_silent), self._endpoint.name
        )

    def realm(self, challenges: Sequence[Challenge]) -> URL | None:
        """The token realm's URL that these challenges name; None where they name none."""
        wanted = _chosen(challenges)
        if wanted is None or wanted.scheme != "bearer":
            return None
        service = wanted.parameters.get("service", "")
        realm = self._realm(wanted.parameters.get("realm", ""))
        return realm.update_query({"service": service}) if service else realm

    async def close(self) -> None:
        """Stops asking for tokens."""
        await self._asks.close()
        await self._asks_with_login.close()

    async def _bearer(self, asker: Asker, wanted: Challenge, repository: str) -> str:
        key = self._key(wanted, repository)
        token = self._tokens.get(key)
        if token is not None and self._clock.monotonic() < token.renew_at:
            return token.authorization
        try:
            asks = self._asks_with_login if key.account else self._asks
            fetched, _ = await asks.answer(asker, key, lambda: self._ask(key))
            return fetched.authorization
        except RegistryError:
            if token is not None and self._clock.monotonic() < token.ends_at:
                return token.authorization
            raise

    def _key(self, wanted: Challenge, repository: str) -> _Key:
        realm = self._realm(wanted.parameters.get("realm", ""))
        own = self._realms.own_for(realm)
        return _Key(
            endpoint=str(self._origin),
            realm=str(realm),
            service=wanted.parameters.get("service", ""),
            scope=f"repository:{repository}:pull",
            account=own.name if own else "",
        )

    def _realm(self, text: str) -> URL:
        try:
            realm = URL(text).with_user(None).with_fragment(None)
            usable = realm.scheme in ("http", "https") and bool(realm.host)
        except ValueError:
            usable = False
        if not usable or not WORD.fullmatch(text):
            raise NoToken(f"{self._endpoint.name}: its challenge names no token realm")
        if self._origin.scheme == "https" and realm.scheme != "https":
            raise NoToken(
                f"{self._endpoint.name}: its token realm {origin(realm)} is not https; refused"
            )
        return realm

    async def _ask(self, key: _Key) -> Token:
        token = self._tokens[key] = await self._realms.token(URL(key.realm), key.service, key.scope)
        return token


def _chosen(challenges: Sequence[Challenge]) -> Challenge | None:
    """Bearer before Basic: a token tells the registry less than a password."""
    for scheme in ("bearer", "basic"):
        for challenge in challenges:
            if challenge.scheme == scheme:
                return challenge
    return None
