"""One registry endpoint as an `Upstream`: the distribution-spec's pull API, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import aiohttp
import structlog
from yarl import URL

from ...clock import Clock
from ...contracts.accounts import AccountNotes
from ...contracts.bulletins import Bulletins
from ...contracts.context import Asker
from ...contracts.registry import BytesContent, TagPage
from ...events import Events
from ...oci.challenges import parse_challenges
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.digest import Digest
from ...oci.errors import (
    BlobUnknown,
    Denied,
    RangeInvalid,
    Refused,
    RegistryError,
    Unknown,
    Untrustworthy,
)
from ...oci.ranges import ByteRange, ContentRange, format_range
from ...oci.reference import Repository
from ..endpoint import Endpoint, Trust
from ..failures import FailureKind, Unreachable, Unreached, faulty, may_be_heads, without_name
from ..http.stream import BlobStream
from ..http.transport import Transport, origin
from ..retries import Retries
from . import answers
from .accounts import Accounts
from .checkup import Checkup
from .lists import Lists
from .manifests import Manifests
from .refusals import EXPIRED
from .requests import Request, Requests
from .site import Finder

_log = structlog.get_logger()

_PING = 5.0  # seconds
# What some hosts say to a HEAD of a URL that was signed for GET.
_NO_HEAD = EXPIRED | {404, 405, 501}


class Remote:
    """An Upstream. `transport` is this endpoint's own; closing the remote closes it. `notes`: how
    other processes hear what this endpoint said of our logins and their limits."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        retries: Retries,
        events: Events,
        clock: Clock,
        notes: AccountNotes | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._apart = transport.apart()
        self._finder = Finder(endpoint, self._apart, clock)
        self._accounts = Accounts(endpoint, self._apart, self._finder, clock, events, notes)
        self._requests = Requests(endpoint, transport, self._finder, self._accounts, retries, clock)
        self._manifests = Manifests(
            endpoint, transport, self._requests, events, clock, self._accounts.pulls_are_counted
        )
        self._lists = Lists(endpoint, self._requests, self._manifests)
        self._events = events
        self._clock = clock

    def share(self, elsewhere: Bulletins) -> None:
        """From now on other nodes are told what becomes of the logins, and tell it."""
        self._accounts.share(elsewhere)

    def look_again(self) -> None:
        """The operator has had the configuration read again, and may have seen to a login."""
        self._accounts.look_again()

    async def close(self) -> None:
        await self._accounts.close()
        await self._finder.close()
        await self._apart.close()
        await self._transport.close()

    def is_down(self, repository: Repository, tag: str) -> bool:
        return False  # the pool knows

    def is_scarce(self) -> bool:
        """Whether every login has little left."""
        return self._accounts.scarce()

    async def ping(self) -> None:
        """Asks for `/v2/`, and the token realm that a 401 to it names: two questions that no client
        has shaped. Raises Unavailable when the endpoint or the realm cannot be reached, does not
        answer, or has trouble (5xx); any other answer shows that it is there."""
        name, realm = self.endpoint.name, None
        try:
            async with asyncio.timeout(_PING):
                response = await self._answer_of((await self._finder.site()).root)
                if response.status == 401:
                    challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                    realm = self._accounts.realm(challenges)
                if realm is not None:
                    await self._realm_answers(realm)
        except TimeoutError:
            where = name if realm is None else f"{name}: its token realm {origin(realm)}"
            raise Unreached(
                f"{where} says nothing within {_PING:g} s", FailureKind.TIMEOUT
            ) from None
        except (Untrustworthy, Denied) as error:
            _log.info("ping_answered_oddly", endpoint=name, reason=error.message)

    def checkup(self) -> Checkup:
        """The endpoint looked at step by step."""
        return Checkup(self.endpoint, self._apart, self._finder, self._accounts, self._clock)

    async def _realm_answers(self, realm: URL) -> None:
        try:
            await self._answer_of(realm, ", whose token realm that is,")
        except Unreachable:  # it is the endpoint's own host
            raise
        except Unreached as error:
            name = self.endpoint.name
            message = f"{name}: its token realm {without_name(error, name)}"
            raise Unreached(message, error.kind, error.passes) from error

    async def _answer_of(self, url: URL, whose: str = ",") -> aiohttp.ClientResponse:
        response = await self._apart.fetch("GET", url, {})
        await self._apart.discard(response)
        if response.status >= 500:
            where = f"{self.endpoint.name}, at {origin(response.url)}{whose}"
            raise faulty(where, response.status, response.headers, self._clock)
        return response

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        return await self._manifests.resolve(asker, repository, tag, passed_over)

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        return await self._manifests.tagged(asker, repository, tag)

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        return await self._manifests.get(asker, repository, digest)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        """By HEAD. Where that is of no use, by a GET of the first byte; that the registry has no
        such blob is believed, since what is missing is asked for often."""
        asked = Request("HEAD", repository, f"blobs/{digest}", {}, self._is_of_heads, BlobUnknown)
        try:
            response = await self._requests.send(asker, asked)
        except RegistryError as error:
            if isinstance(error, Unknown) or not may_be_heads(error):
                raise
            return await self._first_byte(asker, repository, digest, error)
        await self._transport.discard(response)
        size = response.content_length
        if response.status != 200 or size is None or (not size and not digest.matches(b"")):
            return await self._first_byte(asker, repository, digest, None)
        answers.refuse_web_page(response.headers, self.endpoint.name)
        return Descriptor(OCTET_STREAM, digest, size)

    def _is_of_heads(self, response: aiohttp.ClientResponse) -> bool:
        """Also where the host that has the blob takes no HEAD."""
        takes_none = self._requests.is_elsewhere(response) and response.status in _NO_HEAD
        return response.status in (200, 405, 501) or takes_none

    async def _first_byte(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        refused: RegistryError | None,
    ) -> Descriptor:
        """As `stat`, by GET; once, where HEAD was `refused` for good."""
        request = self._of_blob(repository, digest, ByteRange(0, 1))
        if refused is None:
            response = await self._requests.send(asker, request)
        else:
            response = await self._requests.once(asker, request, refused)
        response.close()
        answers.refuse_web_page(response.headers, self.endpoint.name)
        if response.status == 200:
            size = response.content_length
        elif response.status == 206:
            part = ContentRange.parse(response.headers.get("Content-Range"))
            size = part.total if part else None
        else:  # a blob of no bytes has no first one
            size = answers.size_of_unsatisfied(response.headers)
        return Descriptor(OCTET_STREAM, digest, size)

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> BlobStream:
        """The stream starts at 0 also where the endpoint refused the range, or answered it with
        nonsense: then the whole blob is asked for, so that an interrupted download gets on."""
        if vouched and not self._is_the_registry:
            raise Denied(f"{self.endpoint.name} is not trusted with what nothing proves")
        if range is not None:
            try:
                return await self._open_blob(asker, repository, digest, range)
            except (Untrustworthy, Refused) as error:
                _log.warning("range_refused", endpoint=self.endpoint.name, reason=error.message)
        return await self._open_blob(asker, repository, digest, None)

    async def _open_blob(
        self, asker: Asker, repository: Repository, digest: Digest, range: ByteRange | None
    ) -> BlobStream:
        request = self._of_blob(repository, digest, range)
        response = await self._requests.send(asker, request)
        try:
            return self._stream(response, digest, range)
        except BaseException:
            response.close()
            raise

    def _of_blob(self, repository: Repository, digest: Digest, range: ByteRange | None) -> Request:
        headers = {} if range is None else {"Range": format_range(range)}
        usable = (200, 206) if range is None else (200, 206, 416)
        return Request(
            "GET",
            repository,
            f"blobs/{digest}",
            headers,
            lambda response: response.status in usable,
            BlobUnknown,
        )

    def _stream(
        self, response: aiohttp.ClientResponse, digest: Digest, range: ByteRange | None
    ) -> BlobStream:
        start, size = 0, response.content_length
        if range is not None and response.status == 416:
            total = answers.size_of_unsatisfied(response.headers)
            if total is not None and total <= range.start:
                raise RangeInvalid(total)
            raise Untrustworthy("a 416 to a range that it says exists")
        if response.status == 206 and (range is not None or "Content-Range" in response.headers):
            asked = range or ByteRange(0)
            part = answers.delivered(response.headers, asked, response.content_length)
            start, size = part.start, part.total
        return BlobStream(
            response,
            Descriptor(OCTET_STREAM, digest, size),
            start,
            self.endpoint,
            self._events,
        )

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        return await self._lists.referrers(asker, repository, digest)

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        return await self._lists.tags(asker, repository, count, last)

    @property
    def _is_the_registry(self) -> bool:
        return self.endpoint.trust is Trust.TAGS
