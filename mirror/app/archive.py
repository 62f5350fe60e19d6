"""A tar as it comes: entry by entry, each with its bytes, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..oci.tar import BLOCK, END, Header, Notes, TarInvalid

_SLICE = 1 << 20
_MOST_ENTRIES = 200_000


class Archive:
    """Raises TarInvalid. What is not read of an entry is passed over."""

    def __init__(self, chunks: AsyncIterator[bytes], most: int = _MOST_ENTRIES) -> None:
        """`most`: entries that it may have."""
        self._most = most
        self._chunks = chunks
        self._ahead = b""
        self._left = 0  # bytes of the entry, and of its padding
        self._padding = 0
        self.has_ended = False

    async def entries(self) -> AsyncIterator[Header]:
        notes, count = Notes(), 0
        while True:
            await self._pass()
            block = await self._exactly(BLOCK)
            if not block.strip(b"\0"):
                break
            header = notes.header(block)
            self._left, self._padding = header.size, header.padding
            if header.kind == "note":
                notes.take(header, await self.read(header.size))
                continue
            count += 1
            if count > self._most:
                raise TarInvalid(f"it has more than {self._most} entries")
            yield header
        await self._finish()

    async def read(self, most: int) -> bytes:
        """All bytes of this entry; refused where these are more than so many."""
        if self._left > most:
            raise TarInvalid(f"an entry has {self._left} bytes, where {most} are the most")
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of this entry."""
        while self._left:
            piece = await self._some(min(self._left, _SLICE))
            self._left -= len(piece)
            yield piece

    async def _pass(self) -> None:
        async for _ in self.pieces():
            pass
        await self._exactly(self._padding)
        self._padding = 0

    async def _finish(self) -> None:
        """What follows on the end are zeros."""
        rest = self._ahead
        while rest or (rest := await anext(self._chunks, b"")):
            if rest.strip(b"\0"):
                raise TarInvalid("something stands behind its end")
            rest = b""
        self.has_ended = True

    async def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            found += await self._some(count - len(found))
        return found

    async def _some(self, most: int) -> bytes:
        while not self._ahead:
            try:
                self._ahead = await anext(self._chunks)
            except StopAsyncIteration:
                raise TarInvalid("it ends early: it is not whole") from None
        found, self._ahead = self._ahead[:most], self._ahead[most:]
        return found


__all__ = ["END", "Archive"]
