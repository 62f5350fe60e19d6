"""What is shown to a registry: nothing, a Basic login, a given token, or a negotiated one.

The negotiation is that of Docker's token specification, as Docker Hub, ghcr.io and quay.io do it:
the registry answers 401 with `Bearer realm=…,service=…`; the realm, asked for a scope, gives a
token, with the mirror's login or without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

import structlog
from yarl import URL

from ...asking.once_more import once_more_if_silent
from ...clock import Clock
from ...contracts.context import Asker
from ...oci.challenges import Challenge, parse_challenges
from ...oci.errors import Denied, Refused, RegistryError, Unavailable, Untrustworthy
from ..endpoint import Credentials, Endpoint
from ..failures import FailureKind, LoginRefused, Unreached
from ..http.transport import Transport, origin
from .logins import OwnLogin, Proof, header_of, refusal
from .negotiation import Asked, Negotiation, Shown
from .site import Finder
from .tokens import Tokens
from .wanted import Basic, Bearer, Demands, Wanted

_log = structlog.get_logger()

_PING = 5.0  # seconds
_REFUSALS = (401, 403)
_LACKS_THE_RIGHT = "that login lacks the right"
# What may be another answer to a login: things are hidden from those who show none, or limited.
_WITHOUT_LOGIN = (*_REFUSALS, 404, 429)
# For how long it is believed that an endpoint's `/v2/` asks for nothing, and that it cannot say.
_LEARNT_FOR = 300.0
_UNHEARD_FOR = 10.0


class Reception(Enum):
    """What came of showing a login."""

    ACCEPTED = "accepted"
    WITHHELD = "withheld"  # the token realm may not see it
    NOT_ASKED_FOR = "not asked for"
    UNPROVEN = "unproven"  # whoever decides has trouble


class Authorizer:
    """Knows what to show to one endpoint for one login, or for none.

    It learns from the first refusal what the endpoint wants, so that later requests bring it along.
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
        self.tokens = Tokens(endpoint, own, transport, clock)
        self._demands = Demands.of(endpoint)
        self._negotiation = Negotiation(self._demands.registry, self.tokens)
        self._transport = transport
        self._clock = clock
        self._wanted: Wanted | None = None
        # Whether the registry refuses those who do not show what it wants: it has said so to a
        # question of a client's; or there is a login, without which it may hide what it has.
        self._is_certain = False
        self._learning = asyncio.Lock()
        self._learn_at = float("-inf")
        self._unheard: RegistryError | None = None  # why `/v2/` could not be asked, until then

    async def close(self) -> None:
        """Stops asking for tokens."""
        await self.tokens.close()

    async def authorization(self, asker: Asker, asked: Asked) -> Shown | None:
        """What to show, by what is known so far. Raises LoginRefused while the login rests."""
        if self.own is not None and self.own.is_given:
            return await self._own_shown(self.own)
        match self._wanted:
            case Bearer() as wanted:
                try:
                    return await self._negotiation.usual(asker, wanted, asked)
                except RegistryError as error:
                    if self._forgives(error):
                        return None
                    raise
            case Basic() if self.own is not None:
                return await self._own_shown(self.own)
            case _:
                return None

    async def answer(
        self, asker: Asker, asked: Asked, last: Shown | None, status: int, headers: Sequence[str]
    ) -> Shown | None:
        """What to show after this answer to `last`, which had these WWW-Authenticate lines; None
        when there is nothing else to show: then the answer is the registry's last word."""
        is_given = self.own is not None and self.own.is_given
        if is_given or status not in (_REFUSALS if self.own is None else _WITHOUT_LOGIN):
            return None
        wanted = None
        if status in (401, 403):
            wanted = self._demands.chosen(parse_challenges(headers), self.own is not None)
            self._is_certain |= wanted is not None
        if wanted is None and last is None and self._wanted is None:
            wanted = await self._learnt()
        if wanted is None and status == 401 and last is not None:
            wanted = self._wanted
        if wanted is None:
            return None
        before, self._wanted = self._wanted, wanted
        try:
            better = await self._better(asker, wanted, asked, last)
        except RegistryError as error:
            if self._forgives(error) or (status == 404 and _is_of_the_repository(error)):
                return None
            raise
        if better is not None and better.is_renewed:
            # The realm that gave the token before has given another: it goes on to be asked. A
            # registry may name another one to those whose token has ended (NVIDIA's does).
            self._wanted = before
        return better

    async def _better(
        self, asker: Asker, wanted: Wanted, asked: Asked, last: Shown | None
    ) -> Shown | None:
        if isinstance(wanted, Bearer):
            return await self._negotiation.better(asker, wanted, asked, last)
        if self.own is None:
            return None
        shown = await self._own_shown(self.own)
        is_same = last is not None and last.authorization == shown.authorization
        return None if is_same else shown

    async def heard(self, asked: Asked, shown: Shown | None, status: int) -> bool:
        """The registry's answer to `shown`. Whether to ask once more: the login, which was refused
        there, is another one by now. Raises LoginRefused when it is no good."""
        if shown is None:
            return False
        is_refused = status in (401, 403)
        if not is_refused:
            self._negotiation.accepted(asked, shown)
            self._is_certain |= status < 400
        own = self.own
        credentials = own.credentials if own is not None else None
        if own is None or credentials is None or shown.key is not None:
            return False  # a token: of the login that says nothing
        if shown.authorization != header_of(credentials):
            return is_refused
        if is_refused:
            who = f"{self._endpoint.name} ({status})"
            return await own.was_refused(credentials, self._prove_to_registry, who)
        own.was_good()
        return False

    async def introduce(self, challenges: Sequence[Challenge]) -> Reception:
        """Shows the login by itself, as before its first use, to whom these challenges name. Raises
        LoginRefused where it is no good, or rests; NoToken."""
        own, wanted = self.own, self._demands.chosen(challenges, self.own is not None)
        if own is None or wanted is None:
            return Reception.NOT_ASKED_FOR
        prove: Proof = self._prove_to_registry
        if isinstance(wanted, Bearer) and not own.is_given:
            if self.tokens.realms.own_for(wanted.realm) is None:
                return Reception.WITHHELD
            prove = self.tokens.realms.proof(wanted.realm, wanted.service)
        await own.proven(prove)
        return Reception.ACCEPTED if own.is_proven else Reception.UNPROVEN

    def realm(self, challenges: Sequence[Challenge]) -> URL | None:
        """The token realm's URL that these challenges name; None where they name none."""
        wanted = self._demands.chosen(challenges, self.own is not None)
        if not isinstance(wanted, Bearer):
            return None
        service = wanted.service
        return wanted.realm.update_query({"service": service}) if service else wanted.realm

    def lacks(self) -> str:
        """Why what is private may be refused, in words that follow "it is private and"."""
        if self.own is None:
            return "wants credentials"
        wanted = self._wanted
        why = self._demands.why_withheld(wanted.realm) if isinstance(wanted, Bearer) else ""
        is_withheld = why and not self.own.is_given
        return f"that login was not shown, since {why}" if is_withheld else _LACKS_THE_RIGHT

    async def _own_shown(self, own: OwnLogin) -> Shown:
        """The login itself, or the given token."""
        known = own.admitted if own.is_given else own.proven
        return Shown(header_of(await known(self._prove_to_registry)))

    def _forgives(self, error: RegistryError) -> bool:
        """Whether to go on without a token, which could not be had.

        A registry may let everybody read, and challenge those who ask for `/v2/`: then nothing
        that was read before needs one. Else the realm may have moved, and the next request asks
        the registry for its challenge anew.
        """
        if not self._is_certain and self.own is None:
            self._wanted = None
            return True
        if not isinstance(error, Denied) or isinstance(error, Refused):
            self._wanted, self._learn_at = None, float("-inf")
        return False

    async def _learnt(self) -> Wanted | None:
        """What `/v2/` asks for. A registry may hide from the anonymous what it has, without a word
        of how they could be more than that (GitLab, GitHub), or say it there alone; dockerd asks
        there before each pull. It is asked by one request for all that wait, and seldom."""
        async with self._learning:
            if self._wanted is not None or self._clock.monotonic() < self._learn_at:
                if self._unheard is not None and self._is_certain:
                    raise self._unheard.with_traceback(None)
                return self._wanted
            self._unheard = None
            try:
                async with asyncio.timeout(_PING):
                    wanted = await self._asked_for()
            except (Unavailable, Untrustworthy, Denied, TimeoutError) as error:
                self._learn_at = self._clock.monotonic() + _UNHEARD_FOR
                _log.info("challenge_not_heard", endpoint=self._endpoint.name, reason=str(error))
                self._unheard = self._not_heard(error)
                if self._is_certain:
                    raise self._unheard from error
                return None
            self._learn_at = self._clock.monotonic() + _LEARNT_FOR
            self._wanted = wanted
            self._is_certain |= wanted is not None and self.own is not None
            return wanted

    def _not_heard(self, error: RegistryError | TimeoutError) -> RegistryError:
        if isinstance(error, RegistryError):
            return error
        words = f"{self._endpoint.name}: /v2/ says nothing within {_PING:g} s"
        return Unreached(words, FailureKind.TIMEOUT)

    async def _asked_for(self) -> Wanted | None:
        """What `/v2/` asks for; None: nothing that is known here. Raises Unavailable where it
        cannot say, and what Transport raises."""
        url = (await self._finder.site()).root
        response = await once_more_if_silent(
            lambda: self._transport.fetch("GET", url, {}, within=_PING),
            self._endpoint.limits.waits.realm_silent,
        )
        headers = response.headers.getall("WWW-Authenticate", [])
        await self._transport.discard(response)
        if response.status >= 500 or response.status == 429:
            raise Unavailable(f"{self._endpoint.name} answered /v2/ with {response.status}")
        if response.status not in (401, 403) or origin(response.url) != origin(url):
            return None
        wanted = self._demands.chosen(parse_challenges(headers), self.own is not None)
        # Its scope, if it has one, is that of the whole registry.
        return replace(wanted, scope="") if isinstance(wanted, Bearer) else wanted

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


def _is_of_the_repository(error: RegistryError) -> bool:
    """Whether the realm gives nothing for this repository: then that it does not exist, which the
    registry has said, stands."""
    return isinstance(error, Denied) and not isinstance(error, Refused | LoginRefused)
