"""What is shown to a registry: nothing, a Basic login, a given token, or a negotiated one.

The negotiation is that of Docker's token specification, as Docker Hub, ghcr.io and quay.io do it:
the registry answers 401 with `Bearer realm=…,service=…`; the realm, asked for the scope
`repository:<name>:pull`, gives a token, with the mirror's login or without one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import aiohttp
import structlog
from cachetools import LRUCache
from yarl import URL

from ...asking.budgets import Budgets
from ...asking.once_more import once_more_if_silent
from ...asking.single_flight import NoTurn, Sharing, SingleFlight
from ...clock import Clock
from ...contracts.context import Asker
from ...oci.challenges import Challenge
from ...oci.documents import read_object
from ...oci.errors import Denied, Refused, RegistryError, Unavailable, Untrustworthy, quoted
from ...oci.registries import DOCKER_HUB, DOCKER_HUB_REALM, is_registry, parse_registry
from ..endpoint import CONNECTIONS, Credentials, Endpoint, GivenToken, Login
from ..failures import NoToken, Unreached, faulty, rate_limited
from ..http.transport import Transport, origin
from .logins import OwnLogin, Proof, name_of
from .turns import Turns

_log = structlog.get_logger()

# Realms on another host that are known to belong to their registry, so that they may see its login.
_KNOWN_REALMS = {
    DOCKER_HUB: DOCKER_HUB_REALM,
    "registry.gitlab.com": "https://gitlab.com",
}

DEFAULT_LIFETIME = 60.0  # seconds; the token specification's, where `expires_in` is missing
_LONGEST_LIFETIME = 12 * 3600.0
_MARGIN = 30.0  # renewed this long before the end, or at three quarters of a short life
_MAX_TOKENS = 1000
_AT_ONCE = 8  # asks that show a login which is known to be good
_OF_CLIENT = 2  # asks for the same token
# A client's asks beside silent ones that were of no use: so many at once, and more a second.
_BESIDE = 8.0
_BESIDE_REFILL = 0.1
_MAX_ANSWER_OVERHEAD = 4096  # JSON around the token
_WORD = re.compile(r"[\x21-\x7e]+")  # what a header or a URL can carry as it is


@dataclass(frozen=True, slots=True)
class _Key:
    """All that a token is good for: with less, it would be shown where it does not belong."""

    endpoint: str
    realm: str
    service: str
    scope: str
    account: str


@dataclass(frozen=True, slots=True)
class _Token:
    authorization: str = field(repr=False)
    renew_at: float  # monotonic seconds, as `ends_at`
    ends_at: float


class Authorizer:
    """Knows what to show to one endpoint for one login, or for none.

    It learns from the first 401 what the endpoint wants, so that later requests bring it along.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        own: OwnLogin | None,
        transport: Transport,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self.own = own
        self._origin = URL(endpoint.url).origin()
        host = self._origin.host or ""
        self._registry = parse_registry(host) if is_registry(host) else ""
        self._transport = transport
        self._clock = clock
        self._wanted: Challenge | None = None
        self._tokens: LRUCache[_Key, _Token] = LRUCache(_MAX_TOKENS)
        self._asks = self._asks_of(CONNECTIONS, lambda: False)
        self._asks_with_login = self._asks_of(
            _AT_ONCE, lambda: own is not None and not own.is_proven
        )
        self._warned_of: set[str] = set()

    def _asks_of(self, most: int, one_by_one: Callable[[], bool]) -> SingleFlight[_Key, _Token]:
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
        if self.own is not None and isinstance(self.own.credentials, GivenToken):
            return _header(await self.own.admitted(self._prove_to_registry))
        if self._wanted is None:
            return None
        if self._wanted.scheme == "basic":
            if self.own is None:
                return None
            return _header(await self.own.proven(self._prove_to_registry))
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
        if self.own is not None and isinstance(self.own.credentials, GivenToken):
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

    async def heard(self, shown: str | None, status: int) -> bool:
        """The registry's answer to `shown`. Whether to ask once more: the login, which was refused
        there, is another one by now. Raises LoginRefused when it is no good."""
        own = self.own
        if own is None or shown is None:
            return False
        if isinstance(own.credentials, Login) and not shown.startswith("Basic "):
            return False  # a token: of the login that says nothing
        credentials = own.credentials
        is_refused = status in (401, 403)
        if shown != _header(credentials):
            return is_refused
        if is_refused:
            return await own.was_refused(credentials, self._prove_to_registry)
        own.was_good()
        return False

    async def _prove_to_registry(self, credentials: Credentials) -> str | None:
        url = URL(self._endpoint.url.rstrip("/") + "/v2/", encoded=True)
        shown, limits = {"Authorization": _header(credentials)}, self._endpoint.limits

        async def ask() -> int:
            response = await self._transport.send("GET", url, shown, limits.waits.realm)
            await self._transport.discard(response)
            return response.status

        return _refusal(
            await once_more_if_silent(ask, limits.waits.realm_silent), self._endpoint.name
        )

    def _prove_to(self, realm: URL, service: str) -> Proof:
        """Asks the realm for a token that is good for nothing, as `docker login` does."""

        async def prove(credentials: Credentials) -> str | None:
            response, _ = await once_more_if_silent(
                lambda: self._ask_realm(realm, service, None, credentials),
                self._endpoint.limits.waits.realm_silent,
            )
            return _refusal(response.status, self._where(realm))

        return prove

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
        own = self._own_for(realm)
        return _Key(
            endpoint=str(self._origin),
            realm=str(realm),
            service=wanted.parameters.get("service", ""),
            scope=f"repository:{repository}:pull",
            account=name_of(own.credentials) if own else "",
        )

    def _realm(self, text: str) -> URL:
        try:
            realm = URL(text).with_user(None).with_fragment(None)
            usable = realm.scheme in ("http", "https") and bool(realm.host)
        except ValueError:
            usable = False
        if not usable or not _WORD.fullmatch(text):
            raise NoToken(f"{self._endpoint.name}: its challenge names no token realm")
        if self._origin.scheme == "https" and realm.scheme != "https":
            raise NoToken(
                f"{self._endpoint.name}: its token realm {origin(realm)} is not https; refused"
            )
        return realm

    def _own_for(self, realm: URL) -> OwnLogin | None:
        """The login, if this realm may see it."""
        own = self.own
        if own is None or not isinstance(own.credentials, Login):
            return None
        configured = self._endpoint.logins.realm
        if (
            realm.host == self._origin.host
            or origin(realm) == _KNOWN_REALMS.get(self._registry)
            or (configured is not None and origin(realm) == origin(URL(configured)))
        ):
            return own
        shown = origin(realm)
        if shown not in self._warned_of and len(self._warned_of) < 16:
            self._warned_of.add(shown)
            _log.warning(
                "login_withheld",
                endpoint=self._endpoint.name,
                realm=shown,
                hint="the token realm is on another host; name it as `realm` if it may see the "
                "login. Tokens are asked for anonymously",
            )
        return None

    async def _ask(self, key: _Key) -> _Token:
        token = self._tokens[key] = await self._asked(key)
        return token

    async def _asked(self, key: _Key) -> _Token:
        realm = URL(key.realm)
        own = self._own_for(realm)
        if own is None:
            response, body = await self._ask_realm(realm, key.service, key.scope, None)
            return self._given(response, body, realm, None)
        prove = self._prove_to(realm, key.service)
        credentials = await own.admitted(prove)
        response, body = await self._ask_realm(realm, key.service, key.scope, credentials)
        if response.status in (401, 403) and await own.was_refused(credentials, prove):
            credentials = own.credentials
            response, body = await self._ask_realm(realm, key.service, key.scope, credentials)
            if response.status in (401, 403):
                await own.was_refused(credentials, prove)
        token = self._given(response, body, realm, credentials)
        own.was_good()
        return token

    async def _ask_realm(
        self, realm: URL, service: str, scope: str | None, credentials: Credentials | None
    ) -> tuple[aiohttp.ClientResponse, bytes | None]:
        limits = self._endpoint.limits
        query = {"scope": scope} if scope else {}
        if service:
            query["service"] = service
        if credentials is not None:
            query["account"] = name_of(credentials)
        try:
            response = await self._transport.fetch(
                "GET",
                realm.update_query(query),
                {"Accept": "application/json"},
                _header(credentials) if credentials else None,
                within=limits.waits.realm,
            )
            body = await self._transport.read(
                response, limits.token + _MAX_ANSWER_OVERHEAD, limits.waits.realm
            )
        except Unreached as error:
            where = self._where(realm)
            raise Unreached(f"{where} gives no token: {error.message}", error.kind) from error
        return response, body

    def _where(self, realm: URL) -> str:
        return f"{self._endpoint.name}: its token realm {quoted(origin(realm) + realm.path, 200)}"

    def _given(
        self,
        response: aiohttp.ClientResponse,
        body: bytes | None,
        realm: URL,
        credentials: Credentials | None,
    ) -> _Token:
        where = self._where(realm)
        if response.status in (401, 403):
            name = name_of(credentials)
            whom = f"the login of {name!r}" if credentials else "anonymous askers"
            raise Denied(f"{where} refuses {whom} ({response.status})")
        if response.status == 429:
            raise rate_limited(where, response.headers, self._clock)
        if response.status >= 500:
            raise faulty(where, response.status, response.headers, self._clock)
        if 400 <= response.status < 500:
            raise Refused(f"{where} does not take this request ({response.status})")
        if response.status != 200:
            raise NoToken(f"{where} answered {response.status}")
        if body is None:
            raise NoToken(f"{where} sent more than a token may be long")
        return self._read(body, where)

    def _read(self, body: bytes, where: str) -> _Token:
        try:
            answer = read_object(body)
        except Untrustworthy as error:
            raise NoToken(f"{where} sent no token: {error.message}") from None
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise NoToken(f"{where} sent no token")
        if len(token) > self._endpoint.limits.token or not _WORD.fullmatch(token):
            raise NoToken(f"{where} sent a token that no header can carry")
        lifetime = _lifetime(answer.get("expires_in"))
        # Counted from now by the monotonic clock: `issued_at` is another host's wall clock.
        now = self._clock.monotonic()
        renew_after = max(lifetime - _MARGIN, lifetime * 0.75)
        return _Token(f"Bearer {token}", now + renew_after, now + lifetime)


def _lifetime(expires_in: object) -> float:
    """Seconds that a token may be used, from what its answer said."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return DEFAULT_LIFETIME
    return float(min(max(expires_in, 0), _LONGEST_LIFETIME))


def _chosen(challenges: Sequence[Challenge]) -> Challenge | None:
    """Bearer before Basic: a token tells the registry less than a password."""
    for scheme in ("bearer", "basic"):
        for challenge in challenges:
            if challenge.scheme == scheme:
                return challenge
    return None


def _refusal(status: int, where: str) -> str | None:
    """See Proof."""
    if status in (401, 403):
        return f"{where} ({status})"
    if not 200 <= status < 300:
        raise Unavailable(f"{where} answered {status}")
    return None


def _header(credentials: Credentials) -> str:
    """The Authorization header that shows these."""
    secret = credentials.secret.get_secret_value()
    if isinstance(credentials, GivenToken):
        return f"Bearer {secret}"
    return "Basic " + base64.b64encode(f"{credentials.username}:{secret}".encode()).decode("ascii")
