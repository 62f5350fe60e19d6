"""The manifests of one endpoint: what a tag points to, and their bytes.

Registries answer HEAD and GET differently: some know no HEAD, refuse it, or say less by it. Docker
asks by GET whenever HEAD is of no use, skopeo asks by nothing else. So does the mirror; where both
are the same, HEAD is cheaper, and no pull that a registry counts. Of a tag that is new here the GET
has to follow, and is sent at once, unless pulls are counted; what it does not find may be known to
a HEAD, which another replica answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import aiohttp
from cachetools import TTLCache

from ...clock import Clock
from ...contracts.context import Asker
from ...contracts.events import UpstreamAsked, UpstreamRejected
from ...contracts.registry import BytesContent, Outcome
from ...events import Events
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import ManifestUnknown, RegistryError, Unknown, Untrustworthy
from ...oci.manifests import ACCEPT, MANIFEST_TYPES, read_manifest
from ...oci.reference import Repository
from ...threads import aside, read_aside
from ..endpoint import MIB, Endpoint, Trust
from ..failures import FailureKind, QuotaSpent, Unfit, in_time, may_be_heads
from ..http.transport import Transport, origin
from . import answers
from .requests import Request, Requests, Usable

_ACCEPT = {"Accept": ", ".join(ACCEPT)}

# Manifests that a tag's GET brought, until they are asked for by digest.
_HANDOVER_BYTES = 16 * MIB
_HANDOVER_SECONDS = 60


class Manifests:
    """See the module. `pulls_are_counted`: whether the endpoint is known to do so. `transport` is
    the one by which `requests` are sent."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        requests: Requests,
        events: Events,
        clock: Clock,
        pulls_are_counted: Callable[[], bool],
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._requests = requests
        self._events = events
        self._pulls_are_counted = pulls_are_counted
        self._handover: TTLCache[tuple[str, Digest], BytesContent] = TTLCache(
            _HANDOVER_BYTES,
            _HANDOVER_SECONDS,
            timer=clock.monotonic,
            getsizeof=lambda content: len(content.data),
        )

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest]
    ) -> Descriptor:
        """By HEAD, and by GET where that is of no use; then `get` of that digest costs no second
        GET. Raises Unfit where the tag is one of `passed_over`."""
        asked = manifest_request("HEAD", repository, f"manifests/{tag}", _is_of_heads)
        silent = self._endpoint.limits.waits.head_silent
        try:
            async with asyncio.timeout(None if self._pulls_are_counted() else silent) as patience:
                response = await self._requests.send(asker, asked)
        except TimeoutError:
            if not patience.expired():
                raise
            self._tell_silent("HEAD", silent)
            return await self._by_get(asker, repository, tag, passed_over)
        except RegistryError as error:
            if not may_be_heads(error):
                raise
            return await self._instead(asker, repository, tag, passed_over, error)
        await self._transport.discard(response)
        said = self._said(response)
        if said is None:
            return await self._by_get(asker, repository, tag, passed_over)
        if said.digest not in passed_over:
            return said
        try:  # whether GET says something else than HEAD
            async with asyncio.timeout(silent):
                return await self._by_get(asker, repository, tag, passed_over)
        except (RegistryError, TimeoutError):
            raise self._of_no_use(repository, tag, said.digest) from None

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        """By GET at once: a HEAD would say less, and the GET have to follow. Where pulls are
        counted, or none is left, that has to be needed: the manifest may be here by another name;
        and whether the limit is on all requests shows by the HEAD. One 404 is not believed of a
        tag that a HEAD knows: its manifest may be yet to come."""
        if self._pulls_are_counted():
            return await self.resolve(asker, repository, tag, ())
        try:
            return await self.fetch(asker, repository, f"manifests/{tag}", None)
        except QuotaSpent:
            return await self.resolve(asker, repository, tag, ())
        except Unknown as missing:
            said = await self._known_to_head(asker, repository, tag, missing)
            if said is None:
                raise
            return said

    async def get(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        key = repository.name, digest
        if key in self._handover and (fetched := self._handover.pop(key, None)) is not None:
            return fetched
        return await self.fetch(asker, repository, f"manifests/{digest}", digest)

    async def _known_to_head(
        self, asker: Asker, repository: Repository, tag: str, missing: Unknown
    ) -> Descriptor | None:
        """What a HEAD says, sent once, of a tag that a GET did not find."""
        asked = manifest_request("HEAD", repository, f"manifests/{tag}", _is_of_heads)
        try:
            async with asyncio.timeout(self._endpoint.limits.waits.head_silent):
                response = await self._requests.once(asker, asked, missing)
        except (RegistryError, TimeoutError):
            return None
        await self._transport.discard(response)
        return self._said(response)

    async def _instead(
        self,
        asker: Asker,
        repository: Repository,
        tag: str,
        passed_over: Collection[Digest],
        refused: RegistryError,
    ) -> Descriptor:
        """By GET, once, after HEAD was refused for good."""
        request = manifest_request("GET", repository, f"manifests/{tag}", _is_200)
        response = await self._requests.once(asker, request, refused)
        content = await self.read(asker, response, None)
        return self._handed_over(repository, tag, content, passed_over)

    def _said(self, response: aiohttp.ClientResponse) -> Descriptor | None:
        """What a HEAD says; None where it lacks a digest, type or size that can be used."""
        digest = answers.claimed_digest(response.headers)
        media_type = answers.media_type(response.headers)
        size = response.content_length
        if (
            response.status == 200
            and digest is not None
            and media_type in MANIFEST_TYPES
            and size is not None
            and 0 < size <= self._endpoint.limits.manifest
            and not answers.encoding(response.headers)
        ):
            return Descriptor(media_type, digest, size)
        return None

    async def _by_get(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest]
    ) -> Descriptor:
        content = await self.fetch(asker, repository, f"manifests/{tag}", None)
        return self._handed_over(repository, tag, content, passed_over)

    def _handed_over(
        self,
        repository: Repository,
        tag: str,
        content: BytesContent,
        passed_over: Collection[Digest],
    ) -> Descriptor:
        found = content.descriptor
        if found.digest in passed_over:  # no fault of the endpoint's: anybody may push such a tag
            raise self._of_no_use(repository, tag, found.digest)
        self._handover[repository.name, found.digest] = content
        return found

    def _of_no_use(self, repository: Repository, tag: str, digest: Digest) -> Unfit:
        image = f"{repository.name}:{tag}"
        return Unfit(f"{self._endpoint.name} says that {image} is {digest}, which cannot be had")

    def _tell_silent(self, method: str, took: float) -> None:
        registry, name = self._endpoint.registry, self._endpoint.name
        self._events.emit(UpstreamAsked(registry, name, method, FailureKind.TIMEOUT, took))

    async def fetch(
        self, asker: Asker, repository: Repository, path: str, digest: Digest | None
    ) -> BytesContent:
        """The manifest, by GET."""
        request = manifest_request("GET", repository, path, _is_200)
        return await self.read(asker, await self._requests.send(asker, request), digest)

    async def read(
        self, asker: Asker, response: aiohttp.ClientResponse, digest: Digest | None
    ) -> BytesContent:
        """The manifest that this answer has. Its bytes are proven by `digest` where one was asked
        for, else by the one that the endpoint claims. Ends the response."""
        data = await self.body(asker, response, self._endpoint.limits.manifest)
        claimed = answers.claimed_digest(response.headers)
        proof = digest or claimed or Digest.of(data)
        if not proof.matches(data):
            self._events.emit(UpstreamRejected(self._endpoint.registry, self._endpoint.name))
            raise Untrustworthy(f"{self._endpoint.name} sent other bytes than those of {proof}")
        try:
            content_type = response.headers.get("Content-Type")
            manifest = await read_aside(read_manifest, data, content_type)
        except Untrustworthy as error:
            at = origin(response.url)
            elsewhere = f", at {at}" if self._requests.is_elsewhere(response) else ""
            message = f"{self._endpoint.name}{elsewhere}: {error.message}"
            if digest or claimed or answers.is_of_a_registry(response.headers):
                raise Unfit(message) from error
            self._events.emit(UpstreamRejected(self._endpoint.registry, self._endpoint.name))
            raise Untrustworthy(message) from error
        descriptor = Descriptor(manifest.media_type, proof, len(data))
        is_the_registry = self._endpoint.trust is Trust.TAGS
        return BytesContent(
            descriptor, data, Outcome.FILLED, is_the_registry, source=self._endpoint.name
        )

    async def body(self, asker: Asker, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """The body, decoded, of at most `limit` bytes. Ends the response. Raises Unfit for more."""
        name = self._endpoint.name
        async with in_time(asker, name):
            data = await self._transport.read(response, limit)
        if data is None:
            raise Unfit(f"{name} sent more than {limit} bytes; no more are taken")
        if not answers.encoding(response.headers):
            return data
        return await aside(answers.decoded, data, response.headers, limit, name)

    async def discard(self, response: aiohttp.ClientResponse) -> None:
        await self._transport.discard(response)


def manifest_request(method: str, repository: Repository, path: str, usable: Usable) -> Request:
    return Request(method, repository, path, _ACCEPT, usable, ManifestUnknown)


def _is_200(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200


def _is_of_heads(response: aiohttp.ClientResponse) -> bool:
    """Also where the endpoint knows no HEAD: that is said once."""
    return response.status in (200, 405, 501)
