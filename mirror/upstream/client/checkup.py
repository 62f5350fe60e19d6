"""One endpoint looked at step by step, for people: by the requests, over the connections and with
the logins that pulls are answered by. What a step says is what a pull would meet."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

import aiohttp
from yarl import URL

from ...clock import Clock
from ...frozen import dataclass
from ...oci.challenges import Challenge, parse_challenges
from ...oci.errors import RegistryError, quoted
from ...oci.registries import is_address
from ..endpoint import KIB, Endpoint, Trust
from ..failures import FailureKind, LoginRefused, Unreachable, Unreached, without_name
from ..http.connected import Certificate, connected, refused_certificate
from ..http.redirects import REDIRECTS
from ..http.transport import Transport, origin
from . import answers
from .accounts import Account, Accounts
from .authorizer import Reception
from .logins import OwnLogin
from .site import Finder, heard
from .wanted import Demands

_SHOWN_ADDRESSES = 4
_ENDS_SOON = 14 * 86400.0  # seconds: that a certificate is valid for
_WITHIN = 10.0  # seconds, for one question
_SKEW = 60.0  # seconds: tokens of Docker Hub live for 300
_MOST = 64 * KIB  # of the token realm's answer


class Step(StrEnum):
    NAME = "name"
    CONNECTION = "connection"
    TLS = "TLS"
    CLOCK = "clock"
    REGISTRY = "registry"
    TOKEN = "token"  # noqa: S105 - what is looked at
    LOGIN = "login"
    IMAGE = "image"


class Mark(StrEnum):
    GOOD = "ok"
    NOTE = "note"
    BAD = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a step has shown, in words."""

    step: Step
    mark: Mark
    words: str


@dataclass(frozen=True, slots=True)
class _Said:
    """What came of a login that was shown, and, where it is refused, how to mend that. `by`: the
    endpoint for which it was."""

    reception: Reception | LoginRefused
    mend: str
    by: str


class Receptions:
    """What came of each login that was shown: one that several endpoints have is shown once to
    each token realm, or registry, that decides on it."""

    def __init__(self) -> None:
        self._locks: defaultdict[Hashable, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._said: dict[Hashable, _Said] = {}

    async def once(
        self, whom: str, endpoint: str, own: OwnLogin, introduce: Callable[[], Awaitable[Reception]]
    ) -> _Said:
        """What `whom` says of this login of the endpoint's."""
        key = (whom, own.configured)
        async with self._locks[key]:
            if key not in self._said:
                try:
                    said: Reception | LoginRefused = await introduce()
                except LoginRefused as error:
                    said = error
                self._said[key] = _Said(said, own.mend, endpoint)
            return self._said[key]


class Checkup:
    """Looks at one endpoint. `transport` is the one for what the mirror asks in its own name."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        finder: Finder,
        accounts: Accounts,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self._url = URL(endpoint.url, encoded=True).join(URL("/v2/"))  # until it is known
        self._host = self._url.host or ""
        self._transport = transport
        self._finder = finder
        self._accounts = accounts
        self._clock = clock

    async def findings(self, shown: Receptions) -> AsyncIterator[Finding]:
        """Each step, as long as the ones before let it be taken."""
        try:
            if self._transport.proxy_for(self._url) is None and not is_address(self._host):
                yield await self._name()
            response = await self._transport.send("GET", self._url, {}, _WITHIN)
            await self._transport.discard(response)
        except RegistryError as error:
            async for finding in self._unreached(error):
                yield finding
            return
        for finding in self._way(response):
            yield finding
        try:
            site, *others = await self._finder.sites()
            if site.root != self._url or response.status in REDIRECTS:
                self._url = site.root
                response = await self._ask(self._url)
        except RegistryError as error:
            yield Finding(Step.REGISTRY, Mark.BAD, self._words(error))
            return
        lines = response.headers.getall("WWW-Authenticate", []) if response.status == 401 else ()
        challenges = parse_challenges(lines)
        finding = self._registry(response, challenges)
        yield finding
        if finding.mark is Mark.BAD:
            return
        for other in others:
            words = (
                f"it answers {other.root.path} as a registry, too: until a pull shows which is "
                f"meant, both {site.layout} and {other.layout} are tried; write one of them"
            )
            yield Finding(Step.REGISTRY, Mark.NOTE, words)
        if not others and (prefix := site.layout.prefix):
            words = f"its repositories are asked for below {prefix}/"
            yield Finding(Step.REGISTRY, Mark.GOOD, words)
        try:
            realm = self._accounts.realm(challenges)
            if realm is not None:
                yield await self._token(realm)
        except RegistryError as error:
            yield Finding(Step.TOKEN, Mark.BAD, self._words(error))
            return
        for account in self._accounts.configured:
            yield await self._login(account, realm, challenges, shown)
        if not self._accounts.configured:
            yield Finding(Step.LOGIN, Mark.GOOD, self._none())

    async def _name(self) -> Finding:
        """Raises Unreached."""
        found = await self._transport.addresses(self._url)
        more = len(found) - _SHOWN_ADDRESSES
        words = ", ".join(found[:_SHOWN_ADDRESSES]) + (f" and {more} more" if more > 0 else "")
        return Finding(Step.NAME, Mark.GOOD, f"{self._host} is at {words}")

    def _way(self, response: aiohttp.ClientResponse) -> Iterator[Finding]:
        """By which connection the answer came."""
        over, proxy = connected(response), self._transport.proxy_for(self._url)
        if over is None:
            return
        whom = over.address
        if proxy is not None:
            whom = f"{self._host}:{self._url.port} by the proxy {proxy.url} ({over.address})"
        yield Finding(Step.CONNECTION, Mark.GOOD, f"connected to {whom}")
        if over.certificate is not None:
            yield self._certificate(over.certificate)
        ahead = self._clock.wall() - _time(response.headers.get("Date", ""), self._clock.wall())
        if abs(ahead) > _SKEW:
            words = (
                f"this host's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} "
                "the endpoint's: certificates and tokens may count as not valid yet, or no more; "
                "have it set by the network (timedatectl set-ntp true)"
            )
            yield Finding(Step.CLOCK, Mark.NOTE, words)

    async def _ask(self, url: URL) -> aiohttp.ClientResponse:
        response = await self._transport.fetch("GET", url, {}, within=_WITHIN)
        await self._transport.discard(response)
        return response

    def _certificate(self, certificate: Certificate) -> Finding:
        ends_soon = certificate.until - self._clock.wall() < _ENDS_SOON
        words = _of(certificate)
        if ends_soon:
            return Finding(Step.TLS, Mark.NOTE, f"{words}: have it renewed before")
        return Finding(Step.TLS, Mark.GOOD, words)

    async def _unreached(self, error: RegistryError) -> AsyncIterator[Finding]:
        """At which step the way to the endpoint has ended."""
        step = Step.REGISTRY
        if isinstance(error, Unreached):
            kinds = {FailureKind.DNS: Step.NAME, FailureKind.TLS: Step.TLS}
            is_connection = isinstance(error, Unreachable) or error.kind is FailureKind.PROXY
            step = kinds.get(error.kind, Step.CONNECTION if is_connection else Step.REGISTRY)
        if step is Step.TLS:
            words = f"{self._url.host}:{self._url.port} takes connections"
            yield Finding(Step.CONNECTION, Mark.GOOD, words)
        yield Finding(step, Mark.BAD, self._words(error) + await self._refused(step))

    async def _refused(self, step: Step) -> str:
        """Whose certificate is refused, in words."""
        addresses, port = self._endpoint.addresses, self._url.port
        is_near = addresses.configured and self._transport.proxy_for(self._url) is None
        if step is not Step.TLS or not is_near or port is None:
            return ""
        shown = await refused_certificate(self._host, port, _WITHIN)
        return f" ({_of(shown)})" if shown else ""

    def _registry(
        self, response: aiohttp.ClientResponse, challenges: Sequence[Challenge]
    ) -> Finding:
        """Whether what has answered `/v2/` is a registry."""
        status = response.status
        at = origin(response.url)
        where = f"{at}, to which it redirects," if at != origin(self._url) else "it"
        words = f"{where} answers {self._url.path} with {status}"
        if heard(status, response.headers, challenges).is_registry:
            asks = "asks for no login" if status == 200 else "asks who we are"
            return Finding(Step.REGISTRY, Mark.GOOD, f"{words}: a registry, which {asks}")
        if status == 429:
            words += ": it limits our requests; wait, or log in"
            return Finding(Step.REGISTRY, Mark.NOTE, words)
        if status >= 500:
            words += ": it has trouble; whoever runs it can tell more"
        elif answers.is_page(response.headers):
            words += (
                " and a web page: that is no registry; correct the url, or have whatever stands "
                "before the registry (a sign-in page, a filter) let the mirror through"
            )
        elif status == 404:
            words += ": no registry is there; correct the url, and its path if it has one"
        else:
            words += ", which is no registry's answer; correct the url, or ask whoever runs it"
        return Finding(Step.REGISTRY, Mark.BAD, words)

    async def _token(self, realm: URL) -> Finding:
        """The token realm, asked for nothing and with no login. Raises RegistryError."""
        where = quoted(origin(realm) + realm.path, 200)
        response = await self._transport.fetch("GET", realm, {}, within=_WITHIN)
        status = response.status
        body = await self._transport.read(response, _MOST, _WITHIN) or b""
        is_page = body.lstrip().startswith(b"<")  # NVIDIA's says text/html of its tokens, too
        if status >= 500 or is_page:
            trouble = "has trouble" if status >= 500 else "is a web page, and gives no tokens"
            return Finding(
                Step.TOKEN, Mark.BAD, f"the token realm {where} {trouble} ({status}); "
                "whoever runs the registry can tell more",
            )  # fmt: skip
        if status in (401, 403):
            words = f"the token realm {where} gives none without a login ({status})"
            is_alone = not self._accounts.configured
            return Finding(Step.TOKEN, Mark.NOTE if is_alone else Mark.GOOD, words)
        return Finding(Step.TOKEN, Mark.GOOD, f"the token realm {where} answers ({status})")

    async def _login(
        self,
        account: Account,
        realm: URL | None,
        challenges: Sequence[Challenge],
        shown: Receptions,
    ) -> Finding:
        own = account.authorizer.own
        if own is None:
            return Finding(Step.LOGIN, Mark.GOOD, self._none())
        decides = realm or self._url
        whom = origin(decides)
        what = quoted(own.name) + (f" ({own.place})" if own.place else "")
        await own.listen()  # what the mirror that serves has noted
        if own.rests():
            resting = own.refusal()
            words = self._words(resting) if resting else ""
            return Finding(
                Step.LOGIN,
                Mark.BAD,
                f"{what} rests, and is not shown now: {words}. {_sentence(own.mend)}",
            )
        name = self._endpoint.name
        said = await shown.once(
            whom + decides.path, name, own, lambda: account.authorizer.introduce(challenges)
        )
        again = "" if said.by == name else f", as was said to the endpoint {said.by}"
        match said.reception:
            case LoginRefused() as refusal:
                return Finding(
                    Step.LOGIN,
                    Mark.BAD,
                    f"{what} is refused{again}: {self._words(refusal)}. {_sentence(said.mend)}; "
                    "until then what is public is asked for without a login",
                )
            case Reception.ACCEPTED:
                return Finding(Step.LOGIN, Mark.GOOD, f"{what} is accepted by {whom}{again}")
            case Reception.WITHHELD:
                return Finding(
                    Step.LOGIN,
                    Mark.BAD,
                    f"{what} is not shown to {whom}: "
                    + (Demands.of(self._endpoint).why_withheld(realm) if realm else "it may not"),
                )
            case Reception.NOT_ASKED_FOR:
                return Finding(
                    Step.LOGIN, Mark.NOTE, f"{what} was not asked for: name an IMAGE that needs it"
                )
            case _:
                return Finding(
                    Step.LOGIN,
                    Mark.NOTE,
                    f"{what}: {whom} says neither yes nor no; name an IMAGE that needs it",
                )

    def _none(self) -> str:
        if self._endpoint.trust is not Trust.TAGS:
            return "none of its own: asked as anybody, since the registry's is not for it"
        return "none is configured: asked as anybody"

    def _words(self, error: RegistryError) -> str:
        return without_name(error, self._endpoint.name)


def _time(date: str, unknown: float) -> float:
    """Seconds since the epoch, of a Date header (RFC 9110, 6.6.1)."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return unknown


def _of(certificate: Certificate) -> str:
    until = datetime.fromtimestamp(certificate.until, UTC)
    return (
        f"the certificate is for {', '.join(certificate.names)}, by {certificate.issuer}, "
        f"valid until {until:%Y-%m-%d %H:%M} UTC"
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
