"""Where the bytes of one download go: its partial, or memory where the disk takes no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from ...contracts.content import Partial, StoreFull
from ...contracts.files import Hasher
from ...contracts.registry import Provenance
from ...contracts.upstream import StreamContent, Upstream
from ...oci.errors import Denied, RegistryError, Untrustworthy
from ...times import DOWNLOADS
from .fill import Fill
from .patience import Patience
from .provenance import Sources
from .spill import SpillBuffer
from .states import FillState

log = structlog.get_logger()


class TooLarge(Denied):
    """The blob has more bytes than this mirror takes."""


class Sink:
    """Takes what the connections of one download bring, and tells the fill's readers of it.

    `moved` is called when the disk takes no more: what was placed ahead is gone then.
    """

    def __init__(
        self,
        fill: Fill,
        partial: Partial,
        upstream: Upstream,
        patience: Patience,
        spill: Callable[[Fill, int, Hasher], SpillBuffer],
    ) -> None:
        self.fill = fill
        self.partial = partial
        # What was here before is strangers' work: a power cut may have spoilt it, too.
        self.sources = Sources(strangers=partial.offset > 0 or bool(partial.ahead))
        self.moved: Callable[[], None] = lambda: None
        self.waited = 0  # bytes that had come before this mirror took them
        self._upstream = upstream
        self.patience = patience
        self._spill = spill
        self._all_comes_now = not self.sources.strangers  # and none of it was kept before
        self._vouched = False  # whether the registry itself has said how long it is
        self._moving = asyncio.Lock()
        self._writing = 0  # pieces that are on their way to the disk
        self._written = asyncio.Event()  # none is

    @property
    def is_passing(self) -> bool:
        """Whether the bytes go through memory."""
        return isinstance(self.partial, SpillBuffer)

    @property
    def has_vouched(self) -> bool:
        """Whether the registry itself has sent anything of it."""
        return self._vouched

    async def announced(self, stream: StreamContent, at: int) -> None:
        """The bytes of this stream from `at` on are going to be part of the whole, which is as long
        as it says. Raises Untrustworthy, TooLarge."""
        self.uses(stream, at)
        size, fill = stream.descriptor.size, self.fill
        if size is None:
            return
        self.refuse_larger(size)
        if fill.size not in (None, size):
            raise Untrustworthy(f"{stream.source} says {size} bytes, not {fill.size}")
        if self.partial.offset > size:
            raise Untrustworthy(f"{self.partial.offset} bytes are here, {stream.source} has {size}")
        fill.size = size
        while not self.is_passing and self.partial.size != size:
            try:
                await self.partial.announce(size)
            except (StoreFull, OSError) as error:
                await self._without_room(error, self.partial.trusted)

    def uses(self, stream: StreamContent, at: int) -> None:
        """The bytes of this stream from `at` on, as its source is now, are going to be part of the
        whole."""
        self.sources.add(stream)
        self._vouched = self._vouched or stream.vouched
        self.partial.trusted = self._vouched
        # Only the registry itself says by delivering it that the repository has it: of whatever is
        # asked for by its digest, any other endpoint can say that, and send anything.
        if stream.vouched:
            self.fill.provenance = Provenance.VOUCHED
            return
        if stream.doubted:
            self.fill.doubt(at, self.patience.policy.doubt)
        self._all_comes_now = self._all_comes_now and not stream.kept
        if self.fill.provenance is not Provenance.VOUCHED:
            self.fill.provenance = Provenance.BROUGHT if self._all_comes_now else Provenance.HERE

    def refuse_larger(self, size: int) -> None:
        """Raises TooLarge."""
        most = self.patience.policy.largest
        if size > most:
            raise TooLarge(
                f"the blob has more than {most} bytes, which is more than this mirror takes"
            )

    async def take(self, at: int, pieces: Sequence[bytes], source: str, doubted: bool) -> None:
        """Writes what a source has sent, from the offset `at` on, and tells the readers."""
        is_ahead = at > self.partial.offset
        while not self.is_passing:
            if self._moving.locked():
                async with self._moving:
                    continue
            trusted = self.partial.trusted
            self._writing += 1
            self._written.clear()
            try:
                await self.partial.place(at, pieces, not doubted)
            except (StoreFull, OSError) as error:
                fault = error
            else:
                self._tell(at, sum(map(len, pieces)), source, is_ahead and not doubted)
                return
            finally:
                self._writing -= 1
                if not self._writing:
                    self._written.set()
            await self._without_room(fault, trusted)
        for piece in pieces:  # one by one: the next may have to wait until this one was read
            await self.partial.place(at, [piece], not doubted)
            self._tell(at, len(piece), source, is_given=False)
            at += len(piece)

    def _tell(self, at: int, count: int, source: str, is_given: bool) -> None:
        fill = self.fill
        if fill.state is FillState.OPENING:
            fill.enter(FillState.SPILLING if self.is_passing else FillState.DOWNLOADING)
        self.sources.brought(source, at, at + count)
        fill.came += count
        self.patience.came(count)
        if is_given:
            fill.give(at, at + count)
        if self.partial.offset > fill.written:
            fill.progress(self.partial.offset)
        elif self.is_passing:
            fill.changed()

    async def prove(self) -> None:
        """Gives the readers all of it, which does not wait for the disk. Raises Untrustworthy."""
        await self.partial.prove()
        self.fill.prove(self.partial.offset)

    async def commit(self) -> bool:
        """Makes the proven content visible, durably; whether it is kept."""
        try:
            await self.partial.commit()
        except OSError as error:
            # Whoever reads it has it open; only its name finds no place.
            log.error("blob_not_stored", digest=str(self.fill.digest), reason=str(error))
            await self.partial.discard()
            return False
        return not self.is_passing

    async def _without_room(self, error: StoreFull | OSError, trusted: bool) -> None:
        """Goes on where the disk has taken no more: there is room for more where the registry says
        that the blob is so long; else what comes passes through. `trusted`: whether it was known to
        say so when the disk was asked."""
        async with self._moving:
            while self._writing:
                await self._written.wait()
            if self.is_passing or (self.partial.trusted and not trusted):
                return  # another piece has met the same
            if isinstance(error, StoreFull) and not self._vouched and await self._is_of_its_size():
                self.partial.trusted = self._vouched = True
            else:
                await self._pass_through(error)

    async def _is_of_its_size(self) -> bool:
        """Whether the registry itself says that the blob is as long as another endpoint says.
        Raises Untrustworthy where it says another size."""
        fill = self.fill
        try:
            async with asyncio.timeout(DOWNLOADS.size):
                found = await self._upstream.stat(fill, fill.repository, fill.digest)
        except (RegistryError, TimeoutError):
            return False
        if found.size is not None and fill.size not in (None, found.size):
            raise Untrustworthy(f"{fill.size} bytes, where the registry has {found.size}")
        return found.size == fill.size

    async def _pass_through(self, error: Exception) -> None:
        """The disk takes no more: what comes from now on goes to those who read, and is not kept.
        Nothing half-written stays."""
        log.error(
            "blob_not_stored",
            digest=str(self.fill.digest),
            reason=str(error),
            offset=self.partial.offset,
        )
        stored = self.partial
        self.partial = self._spill(self.fill, stored.offset, stored.hasher())
        self.fill.progress(stored.offset)
        if self.fill.state is FillState.DOWNLOADING:
            self.fill.enter(FillState.SPILLING)
        self.moved()
        await asyncio.shield(stored.discard())  # also when this fill has to give its turn
