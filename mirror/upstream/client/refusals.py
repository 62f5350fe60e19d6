"""What a refusal means: from an answer that is of no use to the error that says whose fault it is,
and what to do."""

from __future__ import annotations

import aiohttp
from yarl import URL

from ...clock import Clock
from ...oci.challenges import parse_challenges
from ...oci.errors import Denied, Refused, RegistryError, Unavailable, Unknown
from ..endpoint import KIB, Endpoint
from ..failures import PASSING, ReferralExpired, faulty, rate_limited
from ..http.transport import Transport, origin
from . import answers
from .accounts import Account, Accounts
from .referred import asked_at

_MAX_ERROR = 64 * KIB
EXPIRED = frozenset((400, 401, 403))
"""What a CDN says to a signed URL whose time is over (Google 400, S3 and Azure 403)."""


class Refusals:
    """Of one endpoint. `transport` is the one by which it was asked."""

    def __init__(
        self, endpoint: Endpoint, transport: Transport, accounts: Accounts, clock: Clock
    ) -> None:
        self._endpoint = endpoint
        self._origin = origin(URL(endpoint.url))
        self._transport = transport
        self._accounts = accounts
        self._clock = clock

    def is_elsewhere(self, response: aiohttp.ClientResponse) -> bool:
        """Whether a redirect led to another host than the endpoint's, which gave this answer."""
        return origin(response.url) != self._origin

    async def error(
        self,
        response: aiohttp.ClientResponse,
        account: Account,
        repository: str,
        path: str,
        missing: type[Unknown],
    ) -> RegistryError:
        """What an answer means that is of no use. Ends the response. `repository` and `path`: what
        was asked for, as the registry calls it; `missing`: what a 404 means that does not say."""
        name, status = self._endpoint.name, response.status
        elsewhere = self.is_elsewhere(response)
        where = f"{name}, at {origin(response.url)}," if elsewhere else name
        if status == 404:
            body = await self._words(response)
            what = f"{repository}/{path.partition('?')[0]}"
            # It may be hidden from those who do not show the login that is refused.
            words = self._and_refusals(f"{where} does not have {what}")
            return answers.unknown(body, words, missing)
        await self._transport.discard(response)
        if elsewhere and (words := self._not_for_us(response)):
            return Denied(f"{where} {words}")
        if elsewhere and status in EXPIRED:
            return ReferralExpired(f"{where} refuses the URL that the registry gave ({status})")
        if status in (401, 403):
            lacks = account.authorizer.lacks()
            return self.denied(
                f"{name} does not let {self._whom(account)} read {repository} ({status}): "
                f"it does not exist there, or it is private and {lacks}"
            )
        if status == 429:
            return rate_limited(where, response.headers, self._clock)
        if status >= 500 or status in PASSING:
            return faulty(where, status, response.headers, self._clock)
        if 400 <= status < 500:
            return Refused(f"{where} does not take this request ({status})")
        return Unavailable(f"{where} answered {status}")

    def _not_for_us(self, response: aiohttp.ClientResponse) -> str:
        """Why a host that the registry redirects to refuses us, in words; "": since its URL has
        ended, as far as is known."""
        if response.status not in (401, 403):
            return ""
        anonymous = f"to which it redirects, refuses anonymous askers ({response.status})"
        if "Authorization" in response.request_info.headers:
            return anonymous
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        if any(one.scheme == "basic" for one in challenges):
            return (
                f"to which it redirects, asks for a login ({response.status}), and none goes to a "
                "host that a redirect names: configure that registry itself"
            )
        # What ends is a signed URL, whose signature is in its query.
        is_registry = asked_at(response.url).repository and not response.url.query_string
        return anonymous if is_registry else ""

    async def _words(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The body of an error, which is worth no waiting; None when it does not come at once."""
        try:
            return await self._transport.read(
                response, _MAX_ERROR, self._endpoint.limits.waits.unwanted
            )
        except Unavailable:
            return None

    def denied(self, words: str) -> Denied:
        """Tells also of the logins that are refused."""
        return Denied(self._and_refusals(words))

    def _and_refusals(self, words: str) -> str:
        """These words, and those of logins that are refused."""
        refused = (refusal.message for refusal in self._accounts.refusals())
        return "; ".join([words, *(message for message in refused if message != words)])

    def _whom(self, refused: Account) -> str:
        if len(self._accounts) > 1:
            return f"any of the {len(self._accounts)} logins"
        own = refused.authorizer.own
        if own is None:
            return "us"
        return "the configured token" if own.is_given else f"the login {own.name!r}"
