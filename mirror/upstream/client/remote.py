"""One registry endpoint as an `Upstream`: the distribution-spec's pull API, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
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
    RegistryError,
    Unavailable,
    Unknown,
    Untrustworthy,
)
from ...oci.manifests import ACCEPT, MANIFEST_TYPES, OCI_INDEX, read_manifest
from ...oci.ranges import ByteRange, ContentRange, format_range
from ...oci.reference import Repository
from ...threads import aside, read_aside
from ..endpoint import KIB, MIB, Endpoint, Login, Trust
from ..failures import (
    FailureKind,
    LoginRefused,
    ReferralExpired,
    Unfit,
    Unreached,
    faulty,
    rate_limited,
)
from ..http.stream import BlobStream
from ..http.transport import Transport, origin
from ..retries import Retries
from . import answers
from .accounts import Account, Accounts
from .tokens import Authorizer

_log = structlog.get_logger()

_ACCEPT_MANIFESTS = {"Accept": ", ".join(ACCEPT)}
_PING = 5.0  # seconds
_MAX_ERROR = 64 * KIB
_MAX_LIST = 16 * MIB
# What a CDN says to a signed URL whose time is over (Google 400, S3 and Azure 403).
_EXPIRED = frozenset((400, 401, 403))
# Request Timeout and Too Early (RFC 9110, 15.5.9; RFC 8470): the same request may do better later.
_PASSING = frozenset((408, 425))
# What some hosts say to a HEAD of a URL that was signed for GET.
_NO_HEAD = _EXPIRED | {404, 405, 501}

# Manifests that a tag's GET brought, until they are asked for by digest.
_HANDOVER_BYTES = 16 * MIB
_HANDOVER_SECONDS = 60

Usable = Callable[[aiohttp.ClientResponse], bool]


class Remote:
    """An Upstream. `transport` is this endpoint's own; closing the remote closes it. `notes`: how
    what is learnt of its limits is shared with other processes."""

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
        self._base = endpoint.url.rstrip("/")
        self._transport = transport
        self._apart = transport.apart()
        self._accounts = Accounts(endpoint, self._apart, clock, events, notes)
        self._retries = retries
        self._events = events
        self._clock = clock
        self._handover: TTLCache[tuple[str, Digest], BytesContent] = TTLCache(
            _HANDOVER_BYTES,
            _HANDOVER_SECONDS,
            timer=clock.monotonic,
            getsizeof=lambda content: len(content.data),
        )

    async def close(self) -> None:
        await self._accounts.close()
        await self._apart.close()
        await self._transport.close()

    def scarce(self) -> bool:
        """See Budgeted."""
        return self._accounts.scarce()

    async def ping(self) -> None:
        """Asks the endpoint, and the token realm that it names, what no client has a part in.
        Raises Unavailable when one of them is not there, or has trouble (5xx); any other answer
        is one."""
        name, realm = self.endpoint.name, None
        try:
            async with asyncio.timeout(_PING):
                response = await self._answer_of(URL(f"{self._base}/v2/"))
                if response.status == 401:
                    challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                    realm = self._accounts.realm(challenges)
                if realm is not None:
                    await self._answer_of(realm)
        except TimeoutError:
            where = name if realm is None else f"{name}: its token realm {origin(realm)}"
            raise Unreached(
                f"{where} says nothing within {_PING:g} s", FailureKind.TIMEOUT
            ) from None
        except (Untrustworthy, Denied) as error:
            _log.info("ping_answered_oddly", endpoint=name, reason=error.message)

    async def _answer_of(self, url: URL) -> aiohttp.ClientResponse:
        response = await self._apart.fetch("GET", url, {})
        await self._apart.discard(response)
        if response.status >= 500:
            where = f"{self.endpoint.name}, at {origin(response.url)},"
            raise faulty(where, response.status, response.headers, self._clock)
        return response

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        found = await self._resolve(asker, repository, tag)
        if found.digest in passed_over:  # no fault of its own: anybody may push such a tag
            raise Unfit(
                f"{self.endpoint.name} says that {repository.name}:{tag} is {found.digest}, which "
                "cannot be had"
            )
        return found

    async def _resolve(self, asker: Asker, repository: Repository, tag: str) -> Descriptor:
        """By HEAD; by GET where the HEAD leaves something open, and then `manifest` of that digest
        costs no second one."""
        path = f"{repository.name}/manifests/{tag}"
        response = await self._ask(
            asker,
            "HEAD",
            path,
            repository,
            _ACCEPT_MANIFESTS,
            usable=lambda response: response.status in (200, 405, 501),
            missing=ManifestUnknown,
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
        content = await self._get_manifest(asker, path, repository, None)
        self._handover[repository.name, content.descriptor.digest] = content
        return content.descriptor

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        kept = self._handover.pop((repository.name, digest), None)
        if kept is not None:
            return kept
        path = f"{repository.name}/manifests/{digest}"
        return await self._get_manifest(asker, path, repository, digest)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        path = f"{repository.name}/blobs/{digest}"
        response = await self._ask(
            asker,
            "HEAD",
            path,
            repository,
            {},
            usable=lambda response: (
                response.status == 200
                or response.status in (405, 501)
                or (self._is_elsewhere(response) and response.status in _NO_HEAD)
            ),
            missing=BlobUnknown,
        )
        await self._transport.discard(response)
        if response.status == 200 and response.content_length is not None:
            answers.refuse_masked(response.headers, self.endpoint.name)
            return Descriptor(OCTET_STREAM, digest, response.content_length)
        response = await self._ask(
            asker,
            "GET",
            path,
            repository,
            {"Range": format_range(ByteRange(0, 1))},
            usable=lambda response: response.status in (200, 206, 416),
            missing=BlobUnknown,
        )
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
        nonsense: then the whole is asked for, since whoever resumes has to get on."""
        if vouched and not self._is_the_registry:
            raise Denied(f"{self.endpoint.name} is not trusted with what nothing proves")
        path = f"{repository.name}/blobs/{digest}"
        if range is not None:
            try:
                return await self._part(asker, path, repository, digest, range)
            except (Untrustworthy, Refused) as error:
                _log.warning("range_refused", endpoint=self.endpoint.name, reason=error.message)
        response = await self._ask(
            asker,
            "GET",
            path,
            repository,
            {},
            usable=lambda response: response.status == 200,
            missing=BlobUnknown,
        )
        try:
            return self._stream(response, digest, None)
        except BaseException:
            response.close()
            raise

    async def _part(
        self, asker: Asker, path: str, repository: Repository, digest: Digest, range: ByteRange
    ) -> BlobStream:
        response = await self._ask(
            asker,
            "GET",
            path,
            repository,
            {"Range": format_range(range)},
            usable=lambda response: response.status in (200, 206, 416),
            missing=BlobUnknown,
        )
        try:
            return self._stream(response, digest, range)
        except BaseException:
            response.close()
            raise

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
            self.endpoint.name,
            self._is_the_registry,
            self._events,
        )

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        """From the referrers API, all its pages, else from the fallback tag (distribution-spec,
        "Referrers Tag Schema")."""
        try:
            pages = await self._referrer_pages(
                asker, f"{repository.name}/referrers/{digest}", repository
            )
        except (Unknown, Refused):  # it has no such API
            path = f"{repository.name}/manifests/{referrers.fallback_tag(digest)}"
            try:
                pages = await self._referrer_pages(asker, path, repository)
            except Unfit as error:  # whoever may push can give that tag to anything
                raise ManifestUnknown(error.message) from error
        return await aside(referrers.together, pages)

    async def _referrer_pages(self, asker: Asker, path: str, repository: Repository) -> list[bytes]:
        pages: list[bytes] = []
        query: str | None = None
        left = self.endpoint.limits.manifest
        while True:
            where = f"{path}?{query}" if query else path
            content, response = await self._fetch_manifest(asker, where, repository, None)
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
        path = f"{repository.name}/tags/list" + (f"?{query}" if query else "")
        response = await self._ask(
            asker, "GET", path, repository, {"Accept": "application/json"}, _is_200, NameUnknown
        )
        data = await self._body(response, _MAX_LIST)
        try:
            tags = await read_aside(answers.tag_names, data)
        except Untrustworthy as error:
            raise Untrustworthy(f"{self.endpoint.name}: {error.message}") from error
        return TagPage(tags, answers.next_marker(response.headers.getall("Link", []), tags))

    async def _get_manifest(
        self, asker: Asker, path: str, repository: Repository, digest: Digest | None
    ) -> BytesContent:
        """GET, proven by `digest` where one was asked, and by the one that is claimed."""
        content, _ = await self._fetch_manifest(asker, path, repository, digest)
        return content

    async def _fetch_manifest(
        self, asker: Asker, path: str, repository: Repository, digest: Digest | None
    ) -> tuple[BytesContent, aiohttp.ClientResponse]:
        response = await self._ask(
            asker, "GET", path, repository, _ACCEPT_MANIFESTS, _is_200, ManifestUnknown
        )
        data = await self._body(response, self.endpoint.limits.manifest)
        claimed = answers.claimed_digest(response.headers)
        proof = digest or claimed or Digest.of(data)
        if not proof.matches(data):
            self._events.emit(UpstreamRejected(self.endpoint.name))
            raise Untrustworthy(f"{self.endpoint.name} sent other bytes than those of {proof}")
        try:
            content_type = response.headers.get("Content-Type")
            manifest = await read_aside(read_manifest, data, content_type)
        except Untrustworthy as error:
            message = f"{self.endpoint.name}: {error.message}"
            if digest or claimed or answers.is_of_a_registry(response.headers):
                raise Unfit(message) from error
            self._events.emit(UpstreamRejected(self.endpoint.name))
            raise Untrustworthy(message) from error
        descriptor = Descriptor(manifest.media_type, proof, len(data))
        content = BytesContent(
            descriptor, data, Outcome.FILLED, self._is_the_registry, source=self.endpoint.name
        )
        return content, response

    async def _body(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        data = await self._transport.read(response, limit)
        if data is None:
            raise Unfit(f"{self.endpoint.name} sent more than {limit} bytes; no more are taken")
        if not answers.encoding(response.headers):
            return data
        return await aside(answers.decoded, data, response.headers, limit, self.endpoint.name)

    async def _words(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The body of an error, which is worth no waiting."""
        try:
            return await self._transport.read(response, _MAX_ERROR, self.endpoint.limits.unwanted)
        except Unavailable:
            return None

    @property
    def _is_the_registry(self) -> bool:
        return self.endpoint.trust is Trust.TAGS

    def _is_elsewhere(self, response: aiohttp.ClientResponse) -> bool:
        return origin(response.url) != origin(URL(self._base))

    async def _ask(
        self,
        asker: Asker,
        method: str,
        path: str,
        repository: Repository,
        headers: Mapping[str, str],
        usable: Usable,
        missing: type[Unknown],
    ) -> aiohttp.ClientResponse:
        """An answer that the caller can use, within `limits.answer` seconds; else the error."""

        async def attempt() -> aiohttp.ClientResponse:
            account, response = await self._governed(asker, method, path, repository, headers)
            if usable(response):
                return response
            raise await self._error(response, account, path, repository, missing)

        seconds = self.endpoint.limits.answer
        try:
            async with asyncio.timeout(seconds):
                return await self._retries.run(repository, attempt)
        except TimeoutError as error:
            raise Unreached(
                f"{self.endpoint.name}: no answer within {seconds:g} s, retries included",
                FailureKind.TIMEOUT,
            ) from error

    async def _governed(
        self,
        asker: Asker,
        method: str,
        path: str,
        repository: Repository,
        headers: Mapping[str, str],
    ) -> tuple[Account, aiohttp.ClientResponse]:
        """An answer, and for which login it was: a manifest is asked for only by those whose limits
        allow it, and what one may not read is asked for with the others. Raises RateLimited when
        none may ask, Denied when no token is given to any."""
        name, accounts = repository.name, self._accounts
        is_manifest = path.removeprefix(name).startswith("/manifests/")
        # Who may not list a repository may still read it.
        is_content = is_manifest or path.removeprefix(name).startswith("/blobs/")
        pull = method == "GET"
        refused: list[Account] = []
        while True:
            account = (
                accounts.for_manifest(name, pull, refused)
                if is_manifest
                else accounts.any(name, refused)
            )
            try:
                response = await self._authorized(asker, account, method, path, repository, headers)
            except Denied as error:
                refused.append(account)
                if is_content and not isinstance(error, LoginRefused):
                    accounts.denied(account, name)
                if not accounts.has_more(refused):
                    raise self._denied(error.message) from error
                continue
            if self._is_elsewhere(response):
                return account, response
            if is_manifest and response.status == 429:
                account.quota.refused(name, pull, response.headers)
                await self._transport.discard(response)
                continue
            if is_manifest:
                account.quota.answered(name, pull, response.headers)
            if response.status not in (401, 403):
                accounts.allowed(account, name)
                return account, response
            refused.append(account)
            if is_content:
                accounts.denied(account, name)
            if not accounts.has_more(refused):
                return account, response
            await self._transport.discard(response)

    async def _authorized(
        self,
        asker: Asker,
        account: Account,
        method: str,
        path: str,
        repository: Repository,
        headers: Mapping[str, str],
    ) -> aiohttp.ClientResponse:
        """One ask, one more with another token after a 401, and one more with the login as it is by
        now after a refusal of it. Raises LoginRefused when it is no good."""
        url = URL(f"{self._base}/v2/{path}", encoded=True)
        authorizer = account.authorizer
        shown = await authorizer.authorization(asker, repository.name)
        response = await self._transport.fetch(method, url, headers, shown)
        if response.status == 401 and not self._is_elsewhere(response):
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            other = await authorizer.answer(asker, challenges, repository.name, refused=shown)
            if other is not None:
                await self._transport.discard(response)
                shown = other
                response = await self._transport.fetch(method, url, headers, shown)
        if not await self._is_to_ask_again(authorizer, shown, response):
            return response
        await self._transport.discard(response)
        shown = await authorizer.authorization(asker, repository.name)
        response = await self._transport.fetch(method, url, headers, shown)
        await self._is_to_ask_again(authorizer, shown, response)
        return response

    async def _is_to_ask_again(
        self, authorizer: Authorizer, shown: str | None, response: aiohttp.ClientResponse
    ) -> bool:
        # Who sends us elsewhere has nothing against what was shown.
        status = 200 if self._is_elsewhere(response) else response.status
        try:
            return await authorizer.heard(shown, status)
        except LoginRefused:
            await self._transport.discard(response)
            raise

    def _denied(self, words: str) -> Denied:
        refused = (refusal.message for refusal in self._accounts.refusals())
        return Denied("; ".join([words, *(message for message in refused if message != words)]))

    def _whom(self, refused: Account) -> str:
        if len(self._accounts) > 1:
            return f"any of the {len(self._accounts)} logins"
        own = refused.authorizer.own
        login = own.credentials if own else None
        return f"the login {login.username!r}" if isinstance(login, Login) else "us"

    async def _error(
        self,
        response: aiohttp.ClientResponse,
        account: Account,
        path: str,
        repository: Repository,
        missing: type[Unknown],
    ) -> RegistryError:
        """What an answer means that is of no use. Ends the response."""
        name, status = self.endpoint.name, response.status
        elsewhere = self._is_elsewhere(response)
        where = f"{name}, at {origin(response.url)}," if elsewhere else name
        if status == 404:
            body = await self._words(response)
            return answers.unknown(body, f"{where} does not have {path.partition('?')[0]}", missing)
        await self._transport.discard(response)
        if elsewhere and status in _EXPIRED:
            return ReferralExpired(f"{where} refuses the URL that the registry gave ({status})")
        if status in (401, 403):
            return self._denied(
                f"{name} does not let {self._whom(account)} read {repository.name} ({status}): "
                "it does not exist there, or it is private"
            )
        if status == 429:
            return rate_limited(where, response.headers, self._clock)
        if status >= 500 or status in _PASSING:
            return faulty(where, status, response.headers, self._clock)
        if 400 <= status < 500:
            return Refused(f"{where} does not take this request ({status})")
        return Unavailable(f"{where} answered {status}")


def _is_200(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200
