"""How a token realm is asked for a token, with a login of ours or without one.

Docker's token specification: `GET <realm>?service=…&scope=…`, with the login as HTTP Basic, answers
`{"token": …, "expires_in": …}`. An identity token is changed by OAuth 2.0 (RFC 6749, 6), as the
specification has it too: `POST <realm>` with a form, which answers `{"access_token": …}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

import aiohttp
import structlog
from yarl import URL

from ...asking.once_more import once_more_if_silent
from ...clock import Clock
from ...contracts.tracing import span
from ...frozen import dataclass
from ...oci.documents import read_object
from ...oci.errors import Denied, Refused, Untrustworthy, quoted
from ..endpoint import Credentials, Endpoint, IdentityToken
from ..failures import NoToken, RealmUnreached, Unreached, faulty, rate_limited, without_name
from ..http.transport import Transport, origin
from . import answers
from .logins import OwnLogin, Proof, header_of, name_of, refusal
from .wanted import Demands

_log = structlog.get_logger()

DEFAULT_LIFETIME = 60.0  # seconds; the token specification's, where `expires_in` is missing
_LONGEST_LIFETIME = 12 * 3600.0
_MARGIN = 30.0  # renewed this long before the end, or at three quarters of a short life
# A realm gives the token twice, for old clients and for new ones, and more beside it.
_TOKENS_OF_ANSWER = 2
_MAX_ANSWER_OVERHEAD = 4096  # JSON around them
# To a POST: not all realms know that. The specification says 404.
_NO_POST = frozenset((404, 405))
# The errors of OAuth (RFC 6749, 5.2) that mean the refresh token, or that it is not taken here.
_REFUSALS = frozenset(("invalid_grant", "invalid_client", "unauthorized_client"))
_CLIENT = "registry-mirror"

WORD = re.compile(r"[\x21-\x7e]+")
"""What a header can carry as it is."""


@dataclass(frozen=True, slots=True)
class Token:
    authorization: str = field(repr=False)
    renew_at: float  # monotonic seconds, as `ends_at`
    ends_at: float


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes | None  # None: it was too long

    def error(self) -> str:
        """The error of OAuth that it names (RFC 6749, 5.2), or ""."""
        if self.status != 400:
            return ""
        try:
            return str(read_object(self.body or b"").get("error", ""))
        except Untrustworthy:
            return ""

    def refuses(self) -> bool:
        """Whether whoever was shown is refused, if not only for this scope."""
        return self.status in (401, 403) or self.error() in _REFUSALS


class Realms:
    """Asks the token realms of one endpoint, each with the login where it may see that."""

    def __init__(
        self, endpoint: Endpoint, own: OwnLogin | None, transport: Transport, clock: Clock
    ) -> None:
        self._endpoint = endpoint
        self._own = own
        self._demands = Demands.of(endpoint)
        self._transport = transport
        self._clock = clock
        self._warned_of: set[str] = set()

    def own_for(self, realm: URL) -> OwnLogin | None:
        """The login, if this realm may see it."""
        own = self._own
        if own is None or own.is_given:
            return None
        why = self._demands.why_withheld(realm)
        if not why:
            return own
        shown = origin(realm)
        if shown not in self._warned_of and len(self._warned_of) < 16:
            self._warned_of.add(shown)
            _log.warning(
                "login_withheld",
                endpoint=self._endpoint.name,
                realm=shown,
                hint=f"{why}. Until then tokens are asked for anonymously",
            )
        return None

    async def token(self, realm: URL, service: str, scope: str) -> Token:
        """A token for this scope, anew. Raises LoginRefused when the login is no good, Denied when
        the realm gives none for this scope, and NoToken or Unavailable."""
        own = self.own_for(realm)
        if own is None:
            return self._given(await self._ask(realm, service, scope, None), realm, None)
        prove = self.proof(realm, service)
        credentials = await own.admitted(prove)
        answer = await self._ask(realm, service, scope, credentials)
        who = f"{self._where(realm)} ({answer.status})"
        if answer.refuses() and await own.was_refused(credentials, prove, who):
            credentials = await own.admitted(prove)
            answer = await self._ask(realm, service, scope, credentials)
            if answer.refuses():
                await own.was_refused(credentials, prove, who)
        token = self._given(answer, realm, credentials)
        own.was_good()
        return token

    def proof(self, realm: URL, service: str) -> Proof:
        """Asks the realm for a token that is good for nothing, as `docker login` does."""

        async def prove(credentials: Credentials) -> str | None:
            answer = await once_more_if_silent(
                lambda: self._ask(realm, service, "", credentials),
                self._endpoint.limits.waits.realm_silent,
            )
            where = self._where(realm)
            return (
                f"{where} ({answer.status})" if answer.refuses() else refusal(answer.status, where)
            )

        return prove

    async def _ask(
        self, realm: URL, service: str, scope: str, credentials: Credentials | None
    ) -> _Answer:
        try:
            with span("upstream token", {"registry_mirror.endpoint": self._endpoint.name}):
                if isinstance(credentials, IdentityToken):
                    answer = await self._post(realm, service, scope, credentials)
                    if answer.status not in _NO_POST and answer.error() != "unsupported_grant_type":
                        return answer
                return await self._get(realm, service, scope, credentials)
        except Unreached as error:
            words = without_name(error, self._endpoint.name)
            message = f"{self._where(realm)} gives no token: {words}"
            raise RealmUnreached(message, error.kind, error.passes) from error

    async def _get(
        self, realm: URL, service: str, scope: str, credentials: Credentials | None
    ) -> _Answer:
        query: dict[str, str | list[str]] = {"scope": scope.split()} if scope else {}
        if service:
            query["service"] = service
        if credentials is not None:
            query["account"] = name_of(credentials)
        response = await self._transport.fetch(
            "GET",
            realm.update_query(query),
            {"Accept": "application/json"},
            header_of(credentials) if credentials else None,
            within=self._endpoint.limits.waits.realm,
        )
        return await self._read(response)

    async def _post(self, realm: URL, service: str, scope: str, token: IdentityToken) -> _Answer:
        """As Docker's clients do, which keep the identity token whatever new one the answer has."""
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": _CLIENT,
            "scope": scope,
            "refresh_token": token.secret.get_secret_value(),
        }
        within = self._endpoint.limits.waits.realm
        return await self._read(await self._transport.post(realm, form, within))

    async def _read(self, response: aiohttp.ClientResponse) -> _Answer:
        limits = self._endpoint.limits
        most = limits.token * _TOKENS_OF_ANSWER + _MAX_ANSWER_OVERHEAD
        body = await self._transport.read(response, most, limits.waits.realm)
        return _Answer(response.status, response.headers, body)

    def _where(self, realm: URL) -> str:
        return f"{self._endpoint.name}: its token realm {quoted(origin(realm) + realm.path, 200)}"

    def _given(self, answer: _Answer, realm: URL, credentials: Credentials | None) -> Token:
        where, status = self._where(realm), answer.status
        if answer.refuses():
            raise Denied(f"{where} refuses {self._whom(realm, credentials)} ({status})")
        if status == 429:
            raise rate_limited(where, answer.headers, self._clock)
        if status >= 500:
            raise faulty(where, status, answer.headers, self._clock)
        if 400 <= status < 500:
            raise Refused(f"{where} does not take this request ({status})")
        if status != 200:
            raise NoToken(f"{where} answered {status}")
        if answer.body is None:
            raise NoToken(f"{where} sent more than a token may be long")
        most = self._endpoint.limits.token * _TOKENS_OF_ANSWER + _MAX_ANSWER_OVERHEAD
        try:
            body = answers.decoded(answer.body, answer.headers, most, where)
        except Untrustworthy:
            raise NoToken(
                f"{where} sent a Content-Encoding that was not asked for, and no token in gzip"
            ) from None
        return self._token_in(body, where)

    def _whom(self, realm: URL, shown: Credentials | None) -> str:
        """Who is refused, and why it was asked without a login, where there is one."""
        if shown is not None:
            return f"the login of {name_of(shown)!r}"
        own = self._own
        if own is None or own.is_given:
            return "anonymous askers"
        why = self._demands.why_withheld(realm)
        return f"anonymous askers, and was not shown the login {own.name!r}, since {why}"

    def _token_in(self, body: bytes, where: str) -> Token:
        try:
            answer = read_object(body)
        except Untrustworthy as error:
            raise NoToken(
                f"{where} sent no token ({error.message}): is a page to sign in at in between?"
            ) from None
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise NoToken(f"{where} sent no token")
        if len(token) > self._endpoint.limits.token or not WORD.fullmatch(token):
            raise NoToken(f"{where} sent a token that no header can carry")
        lifetime = _lifetime(answer.get("expires_in"))
        # Counted from now by the monotonic clock: `issued_at` is another host's wall clock.
        now = self._clock.monotonic()
        renew_after = max(lifetime - _MARGIN, lifetime * 0.75)
        return Token(f"Bearer {token}", now + renew_after, now + lifetime)


def _lifetime(expires_in: object) -> float:
    """Seconds that a token may be used, from what its answer said. Some write a number in quotes;
    one that is not positive says as little as none at all, for which the specification has a
    default (docker takes it for that too)."""
    if isinstance(expires_in, str) and re.fullmatch(r"[0-9]{1,12}", expires_in):
        expires_in = int(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return DEFAULT_LIFETIME
    return float(min(expires_in, _LONGEST_LIFETIME)) if expires_in > 0 else DEFAULT_LIFETIME
