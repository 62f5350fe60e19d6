"""The fleet around a registry's endpoints: who fetches a content is asked before it is fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ...contracts.context import Asker
from ...contracts.events import FleetAsked, FleetWentOn
from ...contracts.fleet import Wanted
from ...contracts.registry import BytesContent
from ...contracts.second_tier import SecondTierFault
from ...contracts.upstream import StreamContent, Upstream
from ...frozen import dataclass
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import Unavailable
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from ...times import BODIES
from ..forwarding import ForwardingUpstream
from ..streams import FromOffset, proven_manifest
from .fetches import Fetch
from .following import Body, Following

log = structlog.get_logger()


class Together(ForwardingUpstream):
    """An Upstream: content by its digest comes from the node that fetches it; if that is this one,
    or nobody, from `inner`. What only the registry may say is asked of `inner`."""

    def __init__(self, inner: Upstream, following: Following) -> None:
        super().__init__(inner)
        self._following = following

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        wanted = Wanted(repository.registry, digest)
        fetches = self._following.fetches
        began = self._following.clock.monotonic()
        found = await self._following.find(wanted, None, self._following.times.small)
        if isinstance(found, Body):
            content = await self._small(found)
            self._tell("alone" if content is None else "follows", began)
            return content or await self._inner.manifest(asker, repository, digest)
        if found is None:
            self._tell("alone", began)
            return await self._inner.manifest(asker, repository, digest)
        self._tell("fetches", began)
        failed = True
        fetches.begin(found)
        try:
            content = await self._inner.manifest(asker, repository, digest)
            failed = False
        finally:
            fetches.end(found, failed)
        fetches.expect(found)
        return content

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        wanted = Wanted(repository.registry, digest)
        if self._following.following[wanted] and not vouched:
            # At the other node each would have to be brought from where it begins.
            raise Unavailable("what another node brings comes over one connection")

        def inner(range: ByteRange | None) -> Awaitable[StreamContent]:
            return self._inner.blob(asker, repository, digest, range, vouched)

        async def ask(range: ByteRange | None, since: float | None = None) -> Leg:
            found = await self._following.find(wanted, range, BODIES.longest, since)
            if isinstance(found, Body):
                return Leg(found, None)
            if found is None:
                return Leg(await inner(range), None)
            return await self._fetched(found, inner(range))

        began = self._following.clock.monotonic()
        first = await ask(range)
        self._tell(first.called, began)
        return FleetStream(first, range, ask, self._following)

    def _tell(self, result: str, began: float) -> None:
        waited = self._following.clock.monotonic() - began
        self._following.events.emit(FleetAsked(result, waited))

    async def _fetched(self, fetch: Fetch, asked: Awaitable[StreamContent]) -> Leg:
        fetches = self._following.fetches
        fetches.begin(fetch)
        try:
            return Leg(await asked, fetch)
        except BaseException:
            fetches.end(fetch, failed=True)
            raise

    async def _small(self, body: Body) -> BytesContent | None:
        """The manifest that another node gives, if that is one."""
        try:
            async with asyncio.timeout(self._following.times.small):
                return await proven_manifest(body)
        except (SecondTierFault, TimeoutError, Unavailable):
            return None


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of the way. `fetch`: as which it is fetched for all nodes."""

    stream: StreamContent
    fetch: Fetch | None

    @property
    def called(self) -> str:
        """As of FleetAsked."""
        if self.fetch is not None:
            return "fetches"
        return "follows" if isinstance(self.stream, Body) else "alone"


class FleetStream:
    """A StreamContent: from another node as far as that goes, and on from whoever brings the rest.

    `ask` finds who brings what of the range is left (see Following.find).
    """

    def __init__(
        self,
        first: Leg,
        range: ByteRange | None,
        ask: Callable[[ByteRange | None, float | None], Awaitable[Leg]],
        following: Following,
    ) -> None:
        self.start = self._position = first.stream.start
        self._leg = first
        self._stop = range.stop if range else None
        self._ask = ask
        self._following = following
        self._bytes = FromOffset(first.stream, self.start)
        self._has_failed = False
        self._broken: str | None = None  # why what has brought it so far brings no more
        self._came_at = following.clock.monotonic()  # its last bytes

    @property
    def descriptor(self) -> Descriptor:
        return self._leg.stream.descriptor

    @property
    def source(self) -> str:
        return self._leg.stream.source

    @property
    def doubted(self) -> bool:
        return self._leg.stream.doubted

    @property
    def vouched(self) -> bool:
        return self._leg.stream.vouched

    @property
    def kept(self) -> bool:
        return self._leg.stream.kept

    @property
    def reject(self) -> Callable[[str], None]:
        """Of whoever's bytes were read last: it may be called when others' have come."""
        return self._leg.stream.reject

    async def read(self) -> bytes:
        while True:
            if self._is_anothers:
                self._broken = "another node fetches it by now"
            if self._broken is not None:
                await self._go_on(self._broken)
            try:
                piece = await self._bytes.read()
            except SecondTierFault as error:
                self._broken = str(error)
                continue
            except Exception:
                self._has_failed = True
                raise
            self._position += len(piece)
            self._came_at = self._following.clock.monotonic()
            return piece

    @property
    def _is_anothers(self) -> bool:
        """Whether another node has the lease by now. Who has all of it has only to find its end:
        there is no rest to ask for."""
        fetch, size = self._leg.fetch, self.descriptor.size
        if fetch is None or not fetch.lease.is_lost or self._stop is not None:
            return False
        return size is None or self._position < size

    async def close(self) -> None:
        leg, fetch = self._leg, self._leg.fetch
        self._leg = Leg(leg.stream, None)
        if fetch is not None:
            self._following.fetches.end(fetch, self._has_failed)
        await leg.stream.close()

    async def _go_on(self, reason: str) -> None:
        """Cancelled, it is called again."""
        body = self._leg.stream
        since = body.away_since if isinstance(body, Body) else None
        await self.close()
        rest = None
        if self._position or self._stop is not None:
            rest = ByteRange(self._position, self._stop)
        leg = await self._ask(rest, since)
        silent = self._following.clock.monotonic() - self._came_at
        self._following.events.emit(FleetWentOn(leg.called, silent))
        log.info(
            "node_broke_off",
            source=self._leg.stream.source,
            digest=str(self.descriptor.digest),
            offset=self._position,
            reason=reason,
            goes_on_from=leg.stream.source,
            silent=round(silent, 2),
        )
        self._leg, self._broken = leg, None
        self._bytes = FromOffset(leg.stream, self._position)
