"""A blob's stream, seen by the pool it came from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..interfaces import Clock, StreamContent
from ..oci.descriptor import Descriptor
from ..oci.errors import Unavailable, Untrustworthy
from .health import LEAST_BYTES
from .slots import Slot
from .standing import Question, Standing

# A stream is measured over so many seconds of waiting, and left when another endpoint is known to
# be so many times as fast.
_WINDOW = 3.0
_MUCH_FASTER = 4.0

_STILL = 1.0  # seconds without a byte that say something, when nobody waited for more


class WatchedStream:
    """A StreamContent whose first piece has come. It tells the endpoint's standing when it breaks,
    brings wrong bytes, and how fast it is; it holds a connection until it is closed, or others
    should have it: then it breaks off, to be resumed in turn, if it `goes_on_by_range`.

    `fastest`: the best speed of the other endpoints, in bytes a second, 0 where it is not known. A
    stream that is much slower breaks off, to be resumed there.
    """

    def __init__(
        self,
        stream: StreamContent,
        first: bytes,
        standing: Standing,
        question: Question,
        clock: Clock,
        fastest: Callable[[], float],
        *,
        goes_on_by_range: bool,
    ) -> None:
        self._stream = stream
        self._first: bytes | None = first
        self._standing = standing
        self._question = question
        self._clock = clock
        self._fastest = fastest
        self._goes_on_by_range = goes_on_by_range
        self._slot: Slot | None = None
        self._closing: asyncio.Future[None] | None = None  # since it was asked to give way
        self._waited = 0.0
        self._came = 0
        self._total = 0
        self._closed = False

    @property
    def descriptor(self) -> Descriptor:
        return self._stream.descriptor

    @property
    def start(self) -> int:
        return self._stream.start

    @property
    def source(self) -> str:
        return self._stream.source

    @property
    def vouched(self) -> bool:
        return self._stream.vouched

    @property
    def validator(self) -> str | None:
        return getattr(self._stream, "validator", None)

    async def read(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            self._comes(first)
            return first
        self._leave_if_slow()
        began = self._clock.monotonic()
        try:
            if self._closing is not None:
                raise self._gave_way()
            piece = await self._stream.read()
        except Unavailable as error:
            if self._closing is not None:
                raise self._gave_way() from error
            self._standing.failed(self._question, error)
            raise
        except asyncio.CancelledError:
            self._not_waited_for(self._clock.monotonic() - began)
            raise
        self._waited += self._clock.monotonic() - began
        self._came += len(piece)
        self._comes(piece)
        return piece

    def reject(self, reason: str) -> None:
        self._standing.failed(self._question, Untrustworthy(reason))
        self._stream.reject(reason)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._measured()
        if self._slot is not None:
            self._standing.slots.give(self._slot)
        await self._stream.close()

    def holds(self, slot: Slot) -> None:
        """This is its connection's, and given back when it is closed."""
        self._slot = slot
        slot.is_of(self._give_way)

    def _give_way(self) -> bool:
        """Closes it also under its reader, who may be slow."""
        if self._closed or not self._goes_on_by_range:
            return False
        self._closing = asyncio.ensure_future(self.close())
        return True

    def _gave_way(self) -> Unavailable:
        return Unavailable(f"the connection to {self.source} was given to another client")

    def _comes(self, piece: bytes) -> None:
        """Only what is more than a beginning tells that the endpoint is well."""
        before, self._total = self._total, self._total + len(piece)
        size = self.descriptor.size
        if (
            not piece
            or before < LEAST_BYTES <= self._total
            or (size is not None and self.start + self._total == size)
        ):
            self._standing.delivers(self._question)

    def _not_waited_for(self, seconds: float) -> None:
        if seconds >= _STILL:
            words = f"{self.source} sent nothing of a blob for {seconds:.1f} s"
            self._standing.is_slow(self._question, Unavailable(words))

    def _leave_if_slow(self) -> None:
        """Between two pieces: what has come was handed on."""
        if self._waited < _WINDOW:
            return
        speed, other = self._came / self._waited, self._fastest()
        self._measured()
        if speed * _MUCH_FASTER < other:
            error = Unavailable(
                f"{self.source} sends a blob at {speed:.0f} bytes/s, and another endpoint sent at "
                f"{other:.0f}"
            )
            self._standing.is_slow(self._question, error)
            raise error

    def _measured(self) -> None:
        """One window is over. Of a short one only a long wait says something."""
        if self._came >= LEAST_BYTES or self._waited >= _WINDOW:
            self._standing.speed.took(self._came, self._waited)
        self._waited, self._came = 0.0, 0
