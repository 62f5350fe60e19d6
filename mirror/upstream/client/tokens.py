"""Tokens of one login, or of none: each asked for once, and kept as long as it is good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, field
from math import inf

from cachetools import LRUCache
from yarl import URL

from ...asking.budgets import Budgets
from ...asking.single_flight import NoTurn, Sharing, SingleFlight
from ...clock import Clock
from ...contracts.context import Asker
from ...frozen import dataclass
from ...oci.errors import RegistryError
from ..endpoint import CONNECTIONS, MIB, Endpoint
from ..failures import Unreached
from ..http.transport import Transport
from .logins import OwnLogin
from .realm import Realms, Token
from .turns import Turns
from .wanted import Bearer

# Of all tokens that are kept, with what they are for: about 1000 of Docker Hub's. Clients choose
# how many there are, and the realm how long they are.
_MOST_BYTES = 4 * MIB
_BESIDES = 1024  # bytes of a token's entry beside its texts
_AT_ONCE = 8  # asks that show a login which is known to be good
_OF_CLIENT = 2  # asks for the same token
# A client's asks beside silent ones that were of no use: so many at once, and more a second.
_BESIDE = 8.0
_BESIDE_REFILL = 0.1
_UNPROVEN_FOR = 60.0  # seconds before a token is renewed that was refused, and never accepted


@dataclass(frozen=True, slots=True)
class Key:
    """All that a token is good for: with less, it would be shown where it does not belong."""

    registry: str
    realm: str
    service: str
    scope: str
    account: str


@dataclass(slots=True)
class _Kept:
    """A token, when it was got, and for which kinds of questions the registry has taken it.
    `size`: bytes, with its key."""

    token: Token
    since: float
    size: int
    accepted: set[str] = field(default_factory=set)


class Tokens:
    """`own`: the login that token realms are shown where they may see it."""

    def __init__(
        self, endpoint: Endpoint, own: OwnLogin | None, transport: Transport, clock: Clock
    ) -> None:
        self.realms = Realms(endpoint, own, transport, clock)
        self._endpoint = endpoint
        self._clock = clock
        self._kept: LRUCache[Key, _Kept] = LRUCache(_MOST_BYTES, getsizeof=lambda kept: kept.size)
        self._asks = self._asks_of(CONNECTIONS, lambda: False)
        self._asks_with_login = self._asks_of(
            _AT_ONCE, lambda: own is not None and not own.is_proven
        )

    def _asks_of(self, most: int, one_by_one: Callable[[], bool]) -> SingleFlight[Key, Token]:
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

    async def close(self) -> None:
        """Stops asking for tokens."""
        await self._asks.close()
        await self._asks_with_login.close()

    def key(self, registry: URL, wanted: Bearer, scope: str) -> Key:
        """Under what the token is kept that the realm gives for this scope."""
        own = self.realms.own_for(wanted.realm)
        return Key(
            registry=str(registry),
            realm=str(wanted.realm),
            service=wanted.service,
            scope=scope,
            account=own.name if own else "",
        )

    async def authorization(self, asker: Asker, key: Key) -> str:
        """The token in the words of a header. Raises LoginRefused when the login is no good, Denied
        when the realm gives none for this, NoToken or Unavailable."""
        kept = self._kept.get(key)
        if kept is not None and self._clock.monotonic() < kept.token.renew_at:
            return kept.token.authorization
        try:
            asks = self._asks_with_login if key.account else self._asks
            fetched, _ = await asks.answer(asker, key, lambda: self._ask(key))
            return fetched.authorization
        except RegistryError:
            if kept is not None and self._clock.monotonic() < kept.token.ends_at:
                return kept.token.authorization
            raise

    def was_accepted(self, key: Key, shown: str, kind: str) -> None:
        """The registry has taken this token for a question of this kind."""
        kept = self._kept.get(key)
        if kept is not None and kept.token.authorization == shown:
            kept.accepted.add(kind)

    def is_accepted(self, key: Key, kind: str) -> bool:
        """Whether the registry has taken the token that is kept for such questions."""
        kept = self._kept.get(key)
        return kept is not None and kind in kept.accepted

    async def renewed(self, asker: Asker, key: Key, refused: str) -> str | None:
        """Another token than this one, which the registry has refused; None where the next would
        be as good as it. Raises as `authorization` does.

        One that was accepted once was revoked since. One that never was is not renewed at once:
        else each request for what nobody may read would cost a token.
        """
        kept = self._kept.get(key)
        if kept is not None and kept.token.authorization == refused:
            if not kept.accepted and self._clock.monotonic() - kept.since < _UNPROVEN_FOR:
                return None
            del self._kept[key]
        renewed = await self.authorization(asker, key)
        return renewed if renewed != refused else None

    async def _ask(self, key: Key) -> Token:
        token = await self.realms.token(URL(key.realm), key.service, key.scope)
        size = _BESIDES + sum(map(len, (token.authorization, *astuple(key))))
        self._kept[key] = _Kept(token, self._clock.monotonic(), size)
        return token
