"""One connection that brings a blob, or a part of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from ...clock import Clock
from ...contracts.upstream import StreamContent
from ...oci.descriptor import Descriptor
from ...oci.errors import Unavailable, Untrustworthy
from ..endpoint import KIB
from .connections import Slot
from .endpoint_state import EndpointState
from .question import Question
from .speed import LEAST_BYTES, LONG

LEAD = 64 * KIB
"""Bytes that a connection which is asked beside a slow one has to bring before that one does."""

# A connection is measured over windows of LONG waiting, and left when another endpoint is known to
# be so many times as fast: a blob of 12 MiB that began at 256 KiB/s came so in 6 s, and not in 48.
_MUCH_FASTER = 4.0


class Source:
    """One connection that brings a blob, or a part of it; its first piece has come.

    The endpoint's state hears when the connection breaks, when it brings wrong bytes, and how fast
    it is. It has a place among the endpoint's connections until it is closed, or until another
    client should have that: then it breaks off, to be resumed in turn, if it `goes_on_by_range`.

    `fastest`: the best speed of the other endpoints, in bytes a second, 0 where it is not known. A
    connection that is much slower breaks off, to be resumed there.
    """

    def __init__(
        self,
        stream: StreamContent,
        first: bytes,
        endpoint: EndpointState,
        question: Question,
        clock: Clock,
        fastest: Callable[[], float],
        *,
        goes_on_by_range: bool,
    ) -> None:
        self.endpoint = endpoint
        self._question = question
        self._goes_on_by_range = goes_on_by_range
        self._slot: Slot | None = None
        self._closing: asyncio.Future[None] | None = None  # since it was asked to give way
        self._stream = stream
        self._next: bytes | None = first  # has come, and was not read yet
        self._clock = clock
        self._fastest = fastest
        self._since: float | None = None  # when the waiting for the next piece began
        self._waited = 0.0
        self._came = 0
        self._total = 0
        self._closed = False

    @classmethod
    async def open(
        cls,
        stream: StreamContent,
        endpoint: EndpointState,
        question: Question,
        clock: Clock,
        fastest: Callable[[], float],
        within: float,
        *,
        goes_on_by_range: bool,
    ) -> Self:
        """Returns when the first piece has come. Raises Unavailable when there is none within so
        many seconds."""
        try:
            async with asyncio.timeout(within):
                first = await stream.read()
            if not first and stream.descriptor.size not in (None, stream.start):
                raise Unavailable(f"{stream.source} sent nothing of a blob")
        except TimeoutError:
            await stream.close()
            message = f"{stream.source} sent nothing of a blob for {within:g} s"
            raise Unavailable(message) from None
        except BaseException:
            await stream.close()
            raise
        return cls(
            stream, first, endpoint, question, clock, fastest, goes_on_by_range=goes_on_by_range
        )

    @property
    def descriptor(self) -> Descriptor:
        return self._stream.descriptor

    @property
    def start(self) -> int:
        return self._stream.start

    @property
    def name(self) -> str:
        return self._stream.source

    @property
    def vouched(self) -> bool:
        return self._stream.vouched

    @property
    def doubted(self) -> bool:
        return self._stream.doubted

    @property
    def has_come(self) -> bool:
        """Whether the next piece is here, so that `read` waits for nothing."""
        return self._next is not None

    async def speaks(self) -> Self:
        """Returns when the next piece is here, or the end. Cancelled, it may be called again: the
        connection stays, and what comes meanwhile is not lost."""
        if self._next is None:
            if self._since is None:
                self._since = self._clock.monotonic()
            try:
                if self._closing is not None:
                    raise self._gave_way()
                self._next = await self._stream.read()
            except Unavailable as error:
                if self._closing is not None:
                    raise self._gave_way() from error
                self.endpoint.failed(self._question, error)
                raise
            self._waited += self._clock.monotonic() - self._since
            self._came += len(self._next)
            self._since = None
        return self

    async def read(self) -> bytes:
        if self._next is None:
            self._leave_if_slow()
            await self.speaks()
        piece, self._next = self._next or b"", None
        self._comes(piece)
        return piece

    async def instead_of(self, silent: Source, position: int) -> Self:
        """Returns when it has brought the byte at `position`, as the silent one would have. Raises
        Unavailable, and is closed, where it brings something else: which of the two is right, only
        the digest of the whole tells."""
        try:
            sizes = {silent.descriptor.size, self.descriptor.size} - {None}
            if len(sizes) > 1:
                raise Unavailable(f"{self.name} has a blob of another size than {silent.name}")
            if self.start > position:
                raise Unavailable(f"{self.name} sends another part than it was asked for")
            await self._skip(position - self.start)  # where the range was ignored
        except BaseException:
            await self._stream.close()
            raise
        return self

    async def in_front_of(self, slow: Source, position: int) -> Self:
        """As `instead_of`, but returns when LEAD bytes have come, or the end: so many that `slow`
        is left for it."""
        await self.instead_of(slow, position)
        came = bytearray()
        try:
            while len(came) < LEAD:
                await self.speaks()
                piece, self._next = self._next, None
                if not piece:
                    break
                came += piece
        except BaseException:
            await self._stream.close()
            raise
        self._next = bytes(came)
        return self

    def goes_on_after(self, count: int) -> bool:
        """Whether it has brought more than the `count` bytes that have come of another meanwhile;
        they are passed over."""
        waiting = self._next or b""
        self._next = waiting[count:]
        return len(waiting) > count

    async def _skip(self, count: int) -> None:
        while count:
            await self.speaks()
            if not self._next:
                raise Unavailable(f"{self.name} sent less than it announced")
            passed = min(count, len(self._next))
            count -= passed
            self._next = self._next[passed:] or None
        await self.speaks()

    def breaks(self, error: Unavailable) -> None:
        """Tells the endpoint's state that this connection is given up for this error."""
        self.endpoint.failed(self._question, error)

    def reject(self, reason: str) -> None:
        self.endpoint.failed(self._question, Untrustworthy(reason))
        self._stream.reject(reason)

    async def close(self) -> None:
        self._next = None  # its memory is not to wait until an error that knows this one is gone
        await self._end()

    async def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._measured()
        if self._slot is not None:
            self.endpoint.slots.give(self._slot)
        await self._stream.close()

    def holds(self, slot: Slot) -> None:
        """`slot` is this connection's place: it is given back when the connection is closed."""
        self._slot = slot
        slot.streams(self._give_way)

    def _give_way(self) -> bool:
        """Closes the connection for another client, also while its reader, who may be slow, has it.
        Whether it does."""
        if self._closed or not self._goes_on_by_range:
            return False
        self._closing = asyncio.ensure_future(self._end())
        return True

    def _gave_way(self) -> Unavailable:
        return Unavailable(f"the connection to {self.name} was given to another client")

    def _comes(self, piece: bytes) -> None:
        """Only a body's end, or LEAST_BYTES of it, tell that the endpoint is well: a beginning does
        not."""
        before, self._total = self._total, self._total + len(piece)
        size = self.descriptor.size
        if (
            not piece
            or before < LEAST_BYTES <= self._total
            or (size is not None and self.start + self._total == size)
        ):
            self.endpoint.delivers(self._question)

    def _leave_if_slow(self) -> None:
        """To be called between two pieces, when what has come was handed on. Raises Unavailable."""
        if self._waited < LONG:
            return
        speed, other = self._came / self._waited, self._fastest()
        self._measured()
        if speed * _MUCH_FASTER < other:
            error = Unavailable(
                f"{self.name} sends a blob at {speed:.0f} bytes/s, and another endpoint sent at "
                f"{other:.0f}"
            )
            self.endpoint.is_slow(self._question, error)
            raise error

    def _measured(self) -> None:
        """Tells the endpoint's speed what came in the window that is over, and begins another."""
        self.endpoint.speed.took(self._came, self._waited)
        self._waited, self._came = 0.0, 0
