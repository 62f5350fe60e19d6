"""Small blobs: brought whole, in memory, proven there, and kept as manifests are.

A blob of a few KiB, as configs are, is whole before a fill has its partial, its connections and its
readers in place. So what a served manifest says is small is asked for here first, once: whatever
then goes another way than the usual one is left to a fill, which knows them all.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from ..asking.single_flight import SingleFlight
from ..contracts.content import SMALL, ContentInMemory, StoreFull
from ..contracts.context import RequestContext
from ..contracts.events import ContentCommitted, FillEnded, FillStarted
from ..contracts.registry import FileContent, Outcome, Provenance
from ..contracts.tracing import span
from ..contracts.upstream import StreamContent, Upstream
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.errors import Unavailable, Untrustworthy
from ..oci.reference import Repository
from ..times import ANSWERS
from .publishing import publish
from .shared import Shared

log = structlog.get_logger()


class _Taken(Unavailable):
    """Nothing was asked: it is asked for just now, by another process or in another's name."""


class SmallBlobs:
    """Those of one registry."""

    def __init__(self, upstream: Upstream, shared: Shared) -> None:
        self._upstream = upstream
        self._served, self._store, self._fills = shared.served, shared.store, shared.fills
        self._events, self._claims = shared.events, shared.fills.claims
        self._asks: SingleFlight[tuple[Repository, Digest], ContentInMemory | None] = SingleFlight()

    async def close(self) -> None:
        await self._asks.close()

    async def bring(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> FileContent | None:
        """The blob, which is not here; None: it is a fill's to bring. Raises Unknown, Denied."""
        if self._fills.running(repository.registry, digest) is not None:
            return None
        key = repository, digest
        if not self._asks.is_under_way(key):
            size = self._served.size(repository, digest)
            if size is None or size > SMALL or not context.is_wanted:
                return None
        asking = context.lasting(ANSWERS.ask)
        # By repository too, as manifests: what one may not see says nothing of the others.
        try:
            whole, joined = await self._asks.answer(
                asking, key, lambda: self._claimed(asking, repository, digest)
            )
        except _Taken:
            return None
        return replace(whole, outcome=Outcome.JOINED) if joined and whole is not None else whole

    async def _claimed(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> ContentInMemory | None:
        """As `bring`, for all processes of the node. Raises _Taken, by which an ask that is under
        way in another client's name goes on."""
        claims = self._claims
        if claims is None:
            return await self._fill(context, repository, digest)
        if not claims.take(digest):
            raise _Taken(f"{digest} is being brought")
        try:
            followed = await self._store.follow(digest, repository.registry)
            # A fill of another process, which one of this one goes along, or what it has brought.
            brought = followed or await self._store.open(digest)
            if brought is not None:
                brought.close()
                return None
            return await self._fill(context, repository, digest)
        finally:
            claims.give(digest)

    async def _fill(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> ContentInMemory | None:
        """As `bring`; told as a fill is."""
        number, result, size = self._fills.number(), "failed", 0
        self._events.emit(FillStarted(number, repository, digest, 0.0))
        try:
            with span("fill", {"registry_mirror.digest": str(digest)}) as step:
                found, result = await self._brought(context, repository, digest)
                size = 0 if found is None else len(found.data)
                if step is not None:
                    step.set({"registry_mirror.result": result, "registry_mirror.bytes": size})
        finally:
            self._events.emit(FillEnded(number, repository, digest, result, size))
        return found

    async def _brought(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> tuple[ContentInMemory | None, str]:
        """The blob, if all has gone well, and how it ended, in FillEnded's words."""
        try:
            stream = await self._upstream.blob(context, repository, digest)
            try:
                data, source = await _read(stream)
            finally:
                await stream.close()
        except (Unavailable, Untrustworthy):
            return None, "suspended"
        if data is None:
            return None, "suspended"
        if not digest.matches(data):
            if source is not None:  # else one of several: a fill finds out which
                stream.reject(f"its bytes are not those of {digest}")
            return None, "rejected"
        kept = await self._keep(repository, digest, data, stream.source)
        came = Provenance.HERE if stream.kept else Provenance.BROUGHT
        found = ContentInMemory(
            data,
            Descriptor(OCTET_STREAM, digest, len(data)),
            Outcome.FILLED,
            Provenance.VOUCHED if stream.vouched else came,
        )
        return found, "committed" if kept else "uncached"

    async def _keep(self, repository: Repository, digest: Digest, data: bytes, source: str) -> bool:
        """Whether it is on the disk by now, or another process just puts it there: a disk that is
        full is no reason to fail."""
        committed = ContentCommitted(digest, len(data), repository, [source], "", ())
        put = self._store.put(digest, data, (), repository.registry)
        try:
            await publish(put, committed, self._events)
        except (StoreFull, OSError) as error:
            log.error("blob_not_stored", digest=str(digest), reason=str(error), offset=len(data))
            return False
        log.info("filled", digest=str(digest), size=len(data), sources=[source])
        return True


async def _read(stream: StreamContent) -> tuple[bytes | None, str | None]:
    """All that it brings, None where that is too much, or in part; and which endpoint has brought
    it, None where several have. Raises Unavailable, Untrustworthy."""
    size, source = stream.descriptor.size, stream.source
    if stream.start or size is None or size > SMALL:
        return None, source
    data = b""
    while len(data) <= size and (piece := await stream.read()):
        data += piece
    return data if len(data) == size else None, source if stream.source == source else None
