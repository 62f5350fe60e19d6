"""An upstream that is asked for a blob while what the blob is written to is being made."""

from __future__ import annotations

import asyncio

from ...contracts.context import Asker
from ...contracts.upstream import StreamContent, Upstream
from ...oci.digest import Digest
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from ...tasks import ended
from ..forwarding import ForwardingUpstream


class AskedAhead(ForwardingUpstream):
    """The first who asks `inner` for a whole blob has the answer of the ask that is under way, if
    one was begun. Close it."""

    def __init__(self, inner: Upstream) -> None:
        super().__init__(inner)
        self._ask: asyncio.Future[StreamContent] | None = None

    def begin(self, asker: Asker, repository: Repository, digest: Digest) -> None:
        """Asks for this blob, the only one that this is asked for."""
        self._ask = asyncio.ensure_future(super().blob(asker, repository, digest))

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        if self._ask is None or range is not None or vouched:
            return await super().blob(asker, repository, digest, range, vouched)
        try:
            stream = await self._ask
        except asyncio.CancelledError:
            await self.close()  # the answer may have come in the same instant
            raise
        finally:
            self._ask = None
        return stream

    async def close(self) -> None:
        """Ends the ask, unless somebody has its answer."""
        ask, self._ask = self._ask, None
        if ask is None:
            return
        ask.cancel()
        try:
            await ended([ask])
        finally:
            if not ask.cancelled() and ask.exception() is None:
                await ask.result().close()
