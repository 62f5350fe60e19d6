"""Several endpoints of one registry as one `Upstream`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from ...clock import Clock
from ...contracts.context import Asker
from ...contracts.registry import BytesContent, TagPage
from ...contracts.upstream import StreamContent, Upstream
from ...events import Events
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import Denied, Refused
from ...oci.page_markers import read_marker, short
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from ..endpoint import Trust
from .bandwidth import Bandwidth
from .blob_sources import BlobSources, Wanted
from .body import Body, Watch
from .dispatcher import Dispatcher, Query
from .endpoint_state import EndpointState
from .hedge import alarm
from .question import Asked, Question

T = TypeVar("T")


class Pool:
    """An Upstream that asks its members until one can answer.

    What a tag points to, and all else that no digest proves, comes only from members whose trust is
    `tags`, in their order. Content by digest may come from any, the best first: manifests by
    latency, blobs by the speed that one more may expect. When one is late by its own measure the
    next is asked too, or where there is no other the same one once more, and the first answer wins.
    So it goes on within a blob: see Body.

    Members that failed lately are asked last; those whose breaker is open are not asked, and when
    there are no others the error comes at once. What is known of a member is its own: it may be
    another pool's, too, and is closed by its maker.
    """

    def __init__(
        self,
        endpoints: Sequence[EndpointState],
        clock: Clock,
        *,
        events: Events,
        sleep: Callable[[float], Awaitable[None]] = alarm,
        watch: Watch | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        self._clock = clock
        self._watch = watch or Watch()
        self._bandwidth = Bandwidth(clock, bandwidth)
        self._all = tuple(endpoints)
        self._trusted = tuple(one for one in self._all if one.member.trust is Trust.TAGS)
        self._dispatcher = Dispatcher(clock, events, sleep)

    def __repr__(self) -> str:
        return f"<Pool {list(self._all)!r}>"

    def is_scarce(self) -> bool:
        """Whether all endpoints that may say what a tag points to have little left."""
        return bool(self._trusted) and all(one.member.upstream.is_scarce() for one in self._trusted)

    def is_down(self, repository: Repository, tag: str) -> bool:
        """Whether all endpoints that may say what this tag points to failed lately, and have not
        answered since."""
        question = Question(Asked.TAG, repository, tag)
        return bool(self._trusted) and all(one.is_down(question) for one in self._trusted)

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        return await self._word(
            asker,
            Question(Asked.TAG, repository, tag),
            lambda upstream: upstream.resolve(asker, repository, tag, passed_over),
        )

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        """Where other endpoints have manifests too, these may be nearer."""
        if len(self._trusted) < len(self._all):
            return await self.resolve(asker, repository, tag)
        return await self._word(
            asker,
            Question(Asked.TAG, repository, tag),
            lambda upstream: upstream.tagged(asker, repository, tag),
        )

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        return await self._dispatcher.answer(
            Query(
                asker,
                Question(Asked.MANIFEST, repository, str(digest)),
                lambda endpoint: endpoint.member.upstream.manifest(asker, repository, digest),
                self._all,
            )
        )

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        return await self._word(
            asker,
            Question(Asked.STAT, repository, str(digest)),
            lambda upstream: upstream.stat(asker, repository, digest),
        )

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        """Returns when the first piece has come: so an endpoint that sends nothing is passed over
        too."""
        if vouched and not self._trusted:
            raise Denied("no endpoint of this registry is the registry itself")
        endpoints = self._trusted if vouched else self._all
        wanted = Wanted(asker, repository, digest, range, endpoints)
        sources = BlobSources(wanted, self._all, self._dispatcher, self._clock, self._watch)
        first = await sources.first()
        stop = range.stop if range else None
        return Body(first, stop, sources, self._bandwidth, self._clock, self._watch)

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        return await self._word(
            asker,
            Question(Asked.LIST, repository, f"referrers of {digest}"),
            lambda upstream: upstream.referrers(asker, repository, digest),
        )

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        marker = read_marker(last)
        endpoints = [
            endpoint
            for endpoint in self._trusted
            if marker is None or marker.is_of(endpoint.member.name)
        ]
        if self._trusted and not endpoints:
            raise Refused("the list is of an endpoint that is gone: begin it anew, without `last`")
        return await self._word(
            asker,
            Question(Asked.LIST, repository, f"tags, {count} after {short(last or '')}"),
            lambda upstream: upstream.tags(asker, repository, count, last),
            endpoints,
        )

    async def _word(
        self,
        asker: Asker,
        question: Question,
        ask: Callable[[Upstream], Awaitable[T]],
        endpoints: Sequence[EndpointState] | None = None,
    ) -> T:
        """The answer to what only members trusted with tags may say: of these, or any of them.
        Raises Denied where there is none."""
        if not self._trusted:
            raise Denied(
                "no endpoint of this registry may say what a tag points to: "
                "give one of them `trust: tags`"
            )
        return await self._dispatcher.answer(
            Query(
                asker,
                question,
                lambda endpoint: ask(endpoint.member.upstream),
                self._trusted if endpoints is None else endpoints,
            )
        )
