"""What is shown to a registry: nothing, a Basic login, a given token, or a negotiated one.

The negotiation is that of Docker's token specification, as Docker Hub, ghcr.io and quay.io do it:
the registry answers 401 with `Bearer realm=…,service=…`; the realm, asked for the scope
`repository:<name>:pull`, gives a token, with the mirror's login or without one.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from cachetools import LRUCache
from yarl import URL

from ..interfaces import Clock
from ..oci.challenges import Challenge
from ..oci.documents import read_object
from ..oci.errors import Denied, RegistryError, Untrustworthy, quoted
from ..oci.registries import DOCKER_HUB, DOCKER_HUB_REALM, is_registry, parse_registry
from .endpoint import Credentials, Endpoint, GivenToken, Login
from .failures import Unreached, faulty, rate_limited
from .transport import Transport, origin

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
_MAX_ANSWER_OVERHEAD = 4096  # JSON around the token
_WORD = re.compile(r"[\x21-\x7e]+")  # what a header or a URL can carry as it is


@dataclass(frozen=True, slots=True)
class _Key:
    """All that a token is good for. One with less would be shown where it does not belong."""

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
        credentials: Credentials | None,
        transport: Transport,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self.credentials = credentials
        self._origin = URL(endpoint.url).origin()
        host = self._origin.host or ""
        self._registry = parse_registry(host) if is_registry(host) else ""
        self._transport = transport
        self._clock = clock
        self._wanted: Challenge | None = None
        self._tokens: LRUCache[_Key, _Token] = LRUCache(_MAX_TOKENS)
        self._asking: dict[_Key, asyncio.Task[_Token]] = {}
        self._warned_of: set[str] = set()

    async def authorization(self, repository: str) -> str | None:
        """The Authorization header for this repository, by what is known so far."""
        credentials = self.credentials
        if isinstance(credentials, GivenToken):
            return f"Bearer {credentials.token.get_secret_value()}"
        if self._wanted is None:
            return None
        if self._wanted.scheme == "basic":
            return _basic(credentials) if credentials else None
        try:
            return await self._bearer(self._wanted, repository)
        except RegistryError:
            # The realm may have moved: the next request asks the registry for its challenge anew.
            self._wanted = None
            raise

    async def answer(
        self, challenges: Sequence[Challenge], repository: str, refused: str | None
    ) -> str | None:
        """What to show after a 401 for `refused`; None when there is nothing else to show.

        The caller asks again once: a second 401 is the registry's last word.
        """
        if isinstance(self.credentials, GivenToken):
            return None
        wanted = _chosen(challenges) or self._wanted
        if wanted is not None and wanted.scheme == "bearer":
            key = self._key(wanted, repository)  # refuses a realm that may not be asked
            known = self._tokens.get(key)
            # Somebody else may have renewed it since this request left.
            if known is not None and known.authorization == refused:
                del self._tokens[key]
        self._wanted = wanted
        shown = await self.authorization(repository)
        return None if shown == refused else shown

    def realm(self, challenges: Sequence[Challenge]) -> URL | None:
        """See Accounts."""
        wanted = _chosen(challenges)
        if wanted is None or wanted.scheme != "bearer":
            return None
        service = wanted.parameters.get("service", "")
        realm = self._realm(wanted.parameters.get("realm", ""))
        return realm.update_query({"service": service}) if service else realm

    async def close(self) -> None:
        """Stops asking for tokens."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _bearer(self, wanted: Challenge, repository: str) -> str:
        key = self._key(wanted, repository)
        token = self._tokens.get(key)
        if token is not None and self._clock.monotonic() < token.renew_at:
            return token.authorization
        try:
            return (await self._renewed(key)).authorization
        except RegistryError:
            if token is not None and self._clock.monotonic() < token.ends_at:
                return token.authorization
            raise

    async def _renewed(self, key: _Key) -> _Token:
        """One ask at the realm for all who wait. It goes on when the first of them leaves."""
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def _asked(self, key: _Key, task: asyncio.Task[_Token]) -> None:
        del self._asking[key]
        if not task.cancelled() and task.exception() is None:
            self._tokens[key] = task.result()

    def _key(self, wanted: Challenge, repository: str) -> _Key:
        realm = self._realm(wanted.parameters.get("realm", ""))
        login = self._login_for(realm)
        return _Key(
            endpoint=str(self._origin),
            realm=str(realm),
            service=wanted.parameters.get("service", ""),
            scope=f"repository:{repository}:pull",
            account=login.username if login else "",
        )

    def _realm(self, text: str) -> URL:
        try:
            realm = URL(text).with_user(None).with_fragment(None)
            usable = realm.scheme in ("http", "https") and bool(realm.host)
        except ValueError:
            usable = False
        if not usable or not _WORD.fullmatch(text):
            raise Untrustworthy(f"{self._endpoint.name}: its challenge names no token realm")
        if self._origin.scheme == "https" and realm.scheme != "https":
            raise Untrustworthy(
                f"{self._endpoint.name}: its token realm {origin(realm)} is not https; refused"
            )
        return realm

    def _login_for(self, realm: URL) -> Login | None:
        """The login, if this realm may see it."""
        login = self.credentials
        if not isinstance(login, Login):
            return None
        configured = self._endpoint.realm
        if (
            realm.host == self._origin.host
            or origin(realm) == _KNOWN_REALMS.get(self._registry)
            or (configured is not None and origin(realm) == origin(URL(configured)))
        ):
            return login
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
        realm = URL(key.realm)
        login = self._login_for(realm)
        query = {"scope": key.scope}
        if key.service:
            query["service"] = key.service
        if key.account:
            query["account"] = key.account
        where = f"{self._endpoint.name}: its token realm {quoted(origin(realm) + realm.path, 200)}"
        try:
            response = await self._transport.fetch(
                "GET",
                realm.update_query(query),
                {"Accept": "application/json"},
                _basic(login) if login else None,
            )
            body = await self._transport.read(
                response, self._endpoint.limits.token + _MAX_ANSWER_OVERHEAD
            )
        except Unreached as error:
            raise Unreached(f"{where} gives no token: {error.message}", error.kind) from error
        if response.status in (401, 403):
            whom = f"the login of {login.username!r}" if login else "anonymous askers"
            raise Denied(f"{where} refuses {whom} ({response.status})")
        if response.status == 429:
            raise rate_limited(where, response.headers, self._clock)
        if response.status >= 500:
            raise faulty(where, response.status, response.headers, self._clock)
        if response.status != 200:
            raise Untrustworthy(f"{where} answered {response.status}")
        if body is None:
            raise Untrustworthy(f"{where} sent more than a token may be long")
        return self._read(body, where)

    def _read(self, body: bytes, where: str) -> _Token:
        try:
            answer = read_object(body)
        except Untrustworthy as error:
            raise Untrustworthy(f"{where} sent no token: {error.message}") from None
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise Untrustworthy(f"{where} sent no token")
        if len(token) > self._endpoint.limits.token or not _WORD.fullmatch(token):
            raise Untrustworthy(f"{where} sent a token that no header can carry")
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


def _basic(login: Login) -> str:
    pair = f"{login.username}:{login.password.get_secret_value()}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")
