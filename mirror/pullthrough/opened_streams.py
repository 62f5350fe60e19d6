"""Streams by which the second tier has said that it has a content, kept for who reads it."""

from __future__ import annotations

import asyncio

from ..contracts.second_tier import TierStream
from ..oci.digest import Digest
from ..times import STORES

_MOST = 16


class OpenedStreams:
    """Between two asks of one request there is the registry's word: to ask the tier for the content
    at first saves the request that only looks, and its first bytes come meanwhile. A stream that
    nobody takes within so many seconds is closed."""

    def __init__(self, within: float = STORES.tier_opened) -> None:
        self._within = within
        self._kept: dict[Digest, tuple[TierStream, asyncio.Task[None]]] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._kept

    @property
    def have_room(self) -> bool:
        return len(self._kept) < _MOST

    async def keep(self, digest: Digest, stream: TierStream) -> None:
        """Takes the stream of the whole content, from its first byte on."""
        if digest in self._kept or not self.have_room:  # another asker was quicker
            await stream.close()
        else:
            self._kept[digest] = stream, asyncio.create_task(self._close_later(digest))

    def take(self, digest: Digest) -> TierStream | None:
        """The stream is the caller's from now on."""
        if digest not in self._kept:
            return None
        stream, closing = self._kept.pop(digest)
        closing.cancel()
        return stream

    async def close(self) -> None:
        for digest in list(self._kept):
            if (stream := self.take(digest)) is not None:
                await stream.close()

    async def _close_later(self, digest: Digest) -> None:
        await asyncio.sleep(self._within)
        stream, _ = self._kept.pop(digest)
        await stream.close()
