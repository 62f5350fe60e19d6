"""Requests to one endpoint: with which of our logins, and how often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from yarl import URL

from ...clock import Clock
from ...contracts.context import Asker
from ...contracts.tracing import span
from ...frozen import dataclass
from ...oci.errors import (
    Denied,
    RateLimited,
    RegistryError,
    Unavailable,
    Unknown,
    Untrustworthy,
)
from ...oci.reference import Repository
from ..endpoint import Endpoint
from ..failures import (
    Exhausted,
    FailureKind,
    LoginRefused,
    Unreached,
    in_time,
    out_of_time,
)
from ..http.transport import Transport
from ..retries import Retries
from . import answers
from .accounts import Account, Accounts
from .authorizer import Authorizer
from .negotiation import Asked, Shown
from .referred import Referred
from .refusals import Refusals
from .site import Finder, Site

# One request is sent again so often, with what refusals ask for: a token for the mirror's own
# scope, for the registry's, and in place of a revoked one.
_MOST_ANSWERS = 4

T = TypeVar("T")
Usable = Callable[[aiohttp.ClientResponse], bool]


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is what stands behind the repository's name in the URL, such as `manifests/latest`,
    with a query if there is one. `usable` says whether the caller can use an answer; `missing` is
    what a 404 means that does not say."""

    method: str
    repository: Repository
    path: str
    headers: Mapping[str, str]
    usable: Usable
    missing: type[Unknown]

    @property
    def is_manifest(self) -> bool:
        return self.path.startswith("manifests/")

    @property
    def is_blob(self) -> bool:
        return self.path.startswith("blobs/")

    @property
    def is_content(self) -> bool:
        """Whether its refusal tells that the repository may not be read: lists may be refused to
        those who may read it."""
        return self.is_manifest or self.is_blob

    @property
    def is_pull(self) -> bool:
        """Whether an endpoint that counts manifests counts this one, if it is one."""
        return self.method == "GET"


@dataclass(frozen=True, slots=True)
class _Placed:
    """A request as it is put to the registry: `repository` is what the registry calls it."""

    request: Request
    repository: str
    url: URL

    @property
    def asked(self) -> Asked:
        """What a token is needed for."""
        return Asked(self.repository, self.request.path.partition("/")[0])

    @classmethod
    def at(cls, site: Site, request: Request) -> _Placed:
        repository = site.layout.repository(request.repository.name)
        return cls(request, repository, site.url(repository, request.path))


class Requests:
    """Sends requests for Remote, each with the login that may do what is asked and has most left
    of its limit. `transport` is Remote's own."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        finder: Finder,
        accounts: Accounts,
        retries: Retries,
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._finder = finder
        self._accounts = accounts
        self._retries = retries
        self._refusals = Refusals(endpoint, transport, accounts, clock)
        self.is_elsewhere = self._refusals.is_elsewhere
        self._referred = Referred(accounts.anonymous.authorizer.tokens)

    async def send(self, asker: Asker, request: Request) -> aiohttp.ClientResponse:
        """An answer that the caller can use, within `waits.answer` seconds and while the asker has
        time; else the error. The caller ends the response."""
        attempt = partial(self._attempt, asker, request)
        seconds = self._endpoint.limits.waits.answer
        about = {
            "registry_mirror.endpoint": self._endpoint.name,
            "registry_mirror.repository": request.repository.name,
        }
        ends = asyncio.get_running_loop().time() + seconds
        # One timer for both: there are several of these for each small thing that is asked for.
        patience = asyncio.timeout_at(min(ends, asker.deadline))
        try:
            with span(f"upstream {request.path.partition('/')[0]}", about):
                async with patience:
                    return await self._retries.run(asker, request.repository, attempt)
        except TimeoutError as error:
            if patience.expired() and asker.deadline < ends:
                raise out_of_time(self._endpoint.name) from error
            raise Unreached(
                f"{self._endpoint.name}: no answer within {seconds:g} s, retries included",
                FailureKind.TIMEOUT,
            ) from error

    async def once(
        self, asker: Asker, request: Request, instead_of: RegistryError
    ) -> aiohttp.ClientResponse:
        """As `send`, without retries, of what was asked for in another way and failed with this
        error, which is raised again where this does no better: was not sent, or not let through.
        Where it was the endpoint's trouble, this is one of the repository's retries."""
        is_trouble = isinstance(instead_of, Unavailable)
        if is_trouble and not self._retries.take(request.repository):
            raise instead_of
        try:
            async with in_time(asker, self._endpoint.name):
                return await self._attempt(asker, request)
        except (RateLimited, Exhausted, Denied, Untrustworthy):
            raise instead_of from None

    async def _attempt(self, asker: Asker, request: Request) -> aiohttp.ClientResponse:
        site, *others = await self._finder.sites()
        try:
            return await self._answer_at(site, asker, request)
        except (Unknown, Denied):
            for other in others:
                with contextlib.suppress(Unknown, Denied):
                    return await self._answer_at(other, asker, request)
            raise

    async def _answer_at(
        self, site: Site, asker: Asker, request: Request
    ) -> aiohttp.ClientResponse:
        """An answer that the caller can use; else the error."""
        placed = _Placed.at(site, request)
        account, response = await self._governed(asker, placed)
        if not request.usable(response):
            raise await self._error(response, account, placed)
        if response.status == 200 and not answers.is_page(response.headers):
            self._finder.settle(site)
        return response

    async def _governed(
        self, asker: Asker, placed: _Placed
    ) -> tuple[Account, aiohttp.ClientResponse]:
        """An answer, and for which login it was: a manifest is asked for only with logins whose
        limits allow it, and what one login may not read is asked for with the others. So is what it
        does not find, where it has not read anything of the repository yet: registries hide like
        that what a login may not read. Raises RateLimited when the limits of all are used up,
        Denied when the token realm gives none of them a token, Unknown."""
        request, name, accounts = placed.request, placed.repository, self._accounts
        await accounts.listen()
        refused: list[Account] = []
        hiding: list[Account] = []  # of those refused: they do not find it
        missing: RegistryError | None = None  # as the first of them has it
        while True:
            try:
                account = (
                    accounts.for_manifest(name, request.is_pull, refused)
                    if request.is_manifest
                    else accounts.any(name, refused)
                )
                response = await self._authorized(asker, account, placed)
            except RateLimited as limited:
                raise missing or limited from limited.__cause__
            except Denied as denied:
                refused.append(account)
                if request.is_content and not isinstance(denied, LoginRefused):
                    accounts.denied(account, name)
                if not accounts.has_more(refused):
                    raise missing or self._refusals.denied(denied.message) from denied
                continue
            if self.is_elsewhere(response):
                return account, response
            if request.is_manifest and response.status == 429:
                account.quota.refused(name, request.is_pull, response.headers)
                await self._transport.discard(response)
                continue
            if request.is_manifest:
                account.quota.answered(name, request.is_pull, response.headers)
            is_refused = response.status in (401, 403)
            if not is_refused and (response.status != 404 or accounts.reads(account, name)):
                accounts.allowed(account, name, response.status)
                for other in hiding if response.status < 400 else ():
                    accounts.denied(other, name)
                return account, response
            refused.append(account)
            if is_refused and request.is_content:
                accounts.denied(account, name)
            error = await self._error(response, account, placed)
            if not is_refused:
                missing = missing or error
                hiding.append(account)
            if not accounts.has_more(refused):
                raise missing or error

    async def _authorized(
        self, asker: Asker, account: Account, placed: _Placed
    ) -> aiohttp.ClientResponse:
        """The answer to the request, sent again with what its refusals ask for, and once more with
        the login as its file has it by now after a refusal of the login. Raises LoginRefused when
        the login is no good."""
        authorizer, asked = account.authorizer, placed.asked
        shown = await authorizer.authorization(asker, asked)
        response = await self._exchange(asker, placed, shown)
        for _ in range(_MOST_ANSWERS):
            is_page = _is_page(response)
            if self.is_elsewhere(response) and not is_page:
                break
            lines = response.headers.getall("WWW-Authenticate", [])
            status = HTTPStatus.NOT_FOUND if is_page else response.status
            answer = authorizer.answer(asker, asked, shown, status, lines)
            other = await self._or_ended(response, answer)
            if other is None:
                break
            await self._transport.discard(response)
            shown = other
            response = await self._exchange(asker, placed, shown)
        if not await self._is_to_ask_again(authorizer, asked, shown, response):
            return response
        await self._transport.discard(response)
        shown = await authorizer.authorization(asker, asked)
        response = await self._exchange(asker, placed, shown)
        await self._is_to_ask_again(authorizer, asked, shown, response)
        return response

    async def _exchange(
        self, asker: Asker, placed: _Placed, shown: Shown | None
    ) -> aiohttp.ClientResponse:
        """The answer to the request with this, from where redirects lead: another registry there is
        asked again with what it asks for, of which our logins are no part."""
        passage = self._referred.passage(asker)

        async def fetch(url: URL, authorization: str | None) -> aiohttp.ClientResponse:
            return await self._transport.fetch(
                placed.request.method,
                url,
                placed.request.headers,
                authorization,
                elsewhere=passage.authorization,
                is_proven=placed.request.is_blob,
            )

        response = await fetch(placed.url, shown.authorization if shown is not None else None)
        for _ in range(_MOST_ANSWERS):
            if not self.is_elsewhere(response):
                break
            other = await self._or_ended(response, passage.answer(response))
            if other is None:
                break
            await self._transport.discard(response)
            response = await fetch(response.url, other)
        return response

    async def _error(
        self, response: aiohttp.ClientResponse, account: Account, placed: _Placed
    ) -> RegistryError:
        request = placed.request
        return await self._refusals.error(
            response, account, placed.repository, request.path, request.missing
        )

    async def _or_ended(self, response: aiohttp.ClientResponse, answer: Awaitable[T]) -> T:
        """The answer; where there is none, the response is ended."""
        try:
            return await answer
        except BaseException:
            response.close()
            raise

    async def _is_to_ask_again(
        self,
        authorizer: Authorizer,
        asked: Asked,
        shown: Shown | None,
        response: aiohttp.ClientResponse,
    ) -> bool:
        # A registry that redirects has nothing against what was shown.
        status = 200 if self.is_elsewhere(response) else response.status
        try:
            return await authorizer.heard(asked, shown, status)
        except LoginRefused:
            await self._transport.discard(response)
            raise


def _is_page(response: aiohttp.ClientResponse) -> bool:
    """Whether those who show no login are led to where they can log in, in place of being told that
    there is no such thing."""
    return response.status == 200 and answers.is_page(response.headers)
