"""One registry endpoint as an `Upstream`: the distribution-spec's pull API, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from urllib.parse import urlencode

import aiohttp
import structlog
from cachetools import TTLCache
from yarl import URL

from ...clock import Clock
from ...contracts.accounts import AccountNotes
from ...contracts.context import Asker
from ...contracts.events import UpstreamRejected
from ...contracts.registry import BytesContent, Outcome, TagPage
from ...events import Events
from ...oci import referrers
from ...oci.challenges import parse_challenges
from ...oci.descriptor import OCTET_STREAM, Descriptor
from ...oci.digest import Digest
from ...oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    Refused,
    Unknown,
    Untrustworthy,
)
from ...oci.manifests import ACCEPT, MANIFEST_TYPES, OCI_INDEX, read_manifest
from ...oci.ranges import ByteRange, ContentRange, format_range
from ...oci.reference import Repository
from ...threads import aside, read_aside
from ..endpoint import MIB, Endpoint, Trust
from ..failures import FailureKind, Unfit, Unreachable, Unreached, faulty, in_time, without_name
from ..http.stream import BlobStream
from ..http.transport import Transport, origin
from ..retries import Retries
from . import answers
from .accounts import Accounts
from .checkup import Checkup
from .requests import EXPIRED, Request, Requests
from .site import Finder

_log = structlog.get_logger()

_ACCEPT_MANIFESTS = {"Accept": ", ".join(ACCEPT)}
_PING = 5.0  # seconds
_MAX_LIST = 16 * MIB
# What some hosts say to a HEAD of a URL that was signed for GET.
_NO_HEAD = EXPIRED | {404, 405, 501}

# Manifests that a tag's GET brought, until they are asked for by digest.
_HANDOVER_BYTES = 16 * MIB
_HANDOVER_SECONDS = 60


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
        self._events = events
        self._clock = clock
        self._handover: TTLCache[tuple[str, Digest], BytesContent] = TTLCache(
            _HANDOVER_BYTES,
            _HANDOVER_SECONDS,
            timer=clock.monotonic,
            getsizeof=lambda content: len(content.data),
        )

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
        found = await self._resolve(asker, repository, tag)
        if found.digest in passed_over:  # no fault of the endpoint's: anybody may push such a tag
            raise Unfit(
                f"{self.endpoint.name} says that {repository.name}:{tag} is {found.digest}, which "
                "cannot be had"
            )
        return found

    async def _resolve(self, asker: Asker, repository: Repository, tag: str) -> Descriptor:
        """By HEAD. Where its answer lacks a digest, type or size that can be used, by GET; then
        `manifest` of that digest costs no second GET."""
        path = f"manifests/{tag}"
        response = await self._requests.send(
            asker,
            Request(
                "HEAD",
                repository,
                path,
                _ACCEPT_MANIFESTS,
                lambda response: response.status in (200, 405, 501),
                ManifestUnknown,
            ),
        )
        await self._transport.discard(response)
        digest = answers.claimed_digest(response.headers)
        media_type = answers.media_type(response.headers)
        size = response.content_length
        if (
            response.status == 200
            and digest is not None
            and media_type in MANIFEST_TYPES
            and size is not None
            and 0 < size <= self.endpoint.limits.manifest
            and not answers.encoding(response.headers)
        ):
            return Descriptor(media_type, digest, size)
        content, _ = await self._fetch_manifest(asker, repository, path, None)
        self._handover[repository.name, content.descriptor.digest] = content
        return content.descriptor

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        fetched = self._handover.pop((repository.name, digest), None)
        if fetched is not None:
            return fetched
        content, _ = await self._fetch_manifest(asker, repository, f"manifests/{digest}", digest)
        return content

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        """By HEAD. Where the host that has the blob takes none, by a GET of its first byte."""
        path = f"blobs/{digest}"
        response = await self._requests.send(
            asker,
            Request(
                "HEAD",
                repository,
                path,
                {},
                lambda response: (
                    response.status in (200, 405, 501)
                    or (self._requests.is_elsewhere(response) and response.status in _NO_HEAD)
                ),
                BlobUnknown,
            ),
        )
        await self._transport.discard(response)
        if response.status == 200 and response.content_length is not None:
            answers.refuse_masked(response.headers, self.endpoint.name)
            return Descriptor(OCTET_STREAM, digest, response.content_length)
        response = await self._get_blob(asker, repository, digest, ByteRange(0, 1))
        response.close()
        answers.refuse_masked(response.headers, self.endpoint.name)
        if response.status == 200:
            size = response.content_length
        elif response.status == 206:
            part = ContentRange.parse(response.headers.get("Content-Range"))
            size = part.total if part else None
        else:  # a blob of no bytes has no first one
            size = answers.size_of_unsatisfied(response.headers)
        if size is None:
            raise Untrustworthy(f"{self.endpoint.name} does not say how long {digest} is")
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
        response = await self._get_blob(asker, repository, digest, range)
        try:
            return self._stream(response, digest, range)
        except BaseException:
            response.close()
            raise

    async def _get_blob(
        self, asker: Asker, repository: Repository, digest: Digest, range: ByteRange | None
    ) -> aiohttp.ClientResponse:
        headers = {} if range is None else {"Range": format_range(range)}
        usable = (200,) if range is None else (200, 206, 416)
        return await self._requests.send(
            asker,
            Request(
                "GET",
                repository,
                f"blobs/{digest}",
                headers,
                lambda response: response.status in usable,
                BlobUnknown,
            ),
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
        answers.refuse_masked(response.headers, self.endpoint.name)
        if range is not None and response.status == 206:
            part = answers.delivered(response.headers, range, response.content_length)
            start, size = part.start, part.total
        return BlobStream(
            response,
            Descriptor(OCTET_STREAM, digest, size),
            start,
            self.endpoint,
            self._events,
        )

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        """From the referrers API, all its pages, else from the fallback tag (distribution-spec,
        "Referrers Tag Schema")."""
        try:
            pages = await self._referrer_pages(asker, repository, f"referrers/{digest}")
        except (Unknown, Refused):  # the registry has no such API
            path = f"manifests/{referrers.fallback_tag(digest)}"
            try:
                pages = await self._referrer_pages(asker, repository, path)
            except Unfit as error:  # anybody who may push can give that tag to anything
                raise ManifestUnknown(error.message) from error
        return await aside(referrers.together, pages)

    async def _referrer_pages(self, asker: Asker, repository: Repository, path: str) -> list[bytes]:
        pages: list[bytes] = []
        query: str | None = None
        left = self.endpoint.limits.manifest
        while True:
            where = f"{path}?{query}" if query else path
            content, response = await self._fetch_manifest(asker, repository, where, None)
            if content.descriptor.media_type != OCI_INDEX:
                raise Unfit(f"{self.endpoint.name}: the referrers are no OCI index")
            left -= len(content.data)
            if left < 0 or len(pages) == referrers.MOST_PAGES:
                raise Unfit(f"{self.endpoint.name}: more referrers than are taken")
            pages.append(content.data)
            query = answers.next_query(response.headers.getall("Link", []))
            if not query:
                return pages

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        asked = {"n": count, "last": last}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        path = "tags/list" + (f"?{query}" if query else "")
        accept = {"Accept": "application/json"}
        response = await self._requests.send(
            asker, Request("GET", repository, path, accept, _is_200, NameUnknown)
        )
        data = await self._body(asker, response, _MAX_LIST)
        try:
            tags = await read_aside(answers.tag_names, data)
        except Untrustworthy as error:
            raise Untrustworthy(f"{self.endpoint.name}: {error.message}") from error
        return TagPage(tags, answers.next_marker(response.headers.getall("Link", []), tags))

    async def _fetch_manifest(
        self, asker: Asker, repository: Repository, path: str, digest: Digest | None
    ) -> tuple[BytesContent, aiohttp.ClientResponse]:
        """The manifest, by GET, and the answer. Its bytes are proven by `digest` where
        one was asked for, else by the one that the endpoint claims."""
        response = await self._requests.send(
            asker, Request("GET", repository, path, _ACCEPT_MANIFESTS, _is_200, ManifestUnknown)
        )
        data = await self._body(asker, response, self.endpoint.limits.manifest)
        claimed = answers.claimed_digest(response.headers)
        proof = digest or claimed or Digest.of(data)
        if not proof.matches(data):
            self._events.emit(UpstreamRejected(self.endpoint.registry, self.endpoint.name))
            raise Untrustworthy(f"{self.endpoint.name} sent other bytes than those of {proof}")
        try:
            content_type = response.headers.get("Content-Type")
            manifest = await read_aside(read_manifest, data, content_type)
        except Untrustworthy as error:
            at = origin(response.url)
            elsewhere = f", at {at}" if self._requests.is_elsewhere(response) else ""
            message = f"{self.endpoint.name}{elsewhere}: {error.message}"
            if digest or claimed or answers.is_of_a_registry(response.headers):
                raise Unfit(message) from error
            self._events.emit(UpstreamRejected(self.endpoint.registry, self.endpoint.name))
            raise Untrustworthy(message) from error
        descriptor = Descriptor(manifest.media_type, proof, len(data))
        content = BytesContent(
            descriptor, data, Outcome.FILLED, self._is_the_registry, source=self.endpoint.name
        )
        return content, response

    async def _body(self, asker: Asker, response: aiohttp.ClientResponse, limit: int) -> bytes:
        async with in_time(asker, self.endpoint.name):
            data = await self._transport.read(response, limit)
        if data is None:
            raise Unfit(f"{self.endpoint.name} sent more than {limit} bytes; no more are taken")
        if not answers.encoding(response.headers):
            return data
        return await aside(answers.decoded, data, response.headers, limit, self.endpoint.name)

    @property
    def _is_the_registry(self) -> bool:
        return self.endpoint.trust is Trust.TAGS


def _is_200(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200
