"""Reading along with another process that brings the same blob."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...clock import Clock
from ...contracts.content import ContentStore, Followed, Partial, WriterState
from ...oci.errors import Unavailable
from ...tasks import ended
from .fill import Fill
from .states import FillState

# How often another process' file is looked at, in seconds; and every how many looks the lock is
# tried, in case that process has died.
_LOOK = 0.01
_TRY_LOCK = 10


class WriterGone(Exception):
    """The other process has removed its file: it was wrong, or found no room."""


async def follow(
    fill: Fill,
    store: ContentStore,
    clock: Clock,
    stalled: float,
    serve_ranges: Callable[[], Awaitable[None]],
) -> Partial | None:
    """Reads along with the process that writes this; None when all of it is proven, and in the
    store or will not be; the partial when that process has died and the writing is ours. What
    readers of ranges lack of what it has brought, `serve_ranges` brings meanwhile.

    Raises WriterGone, and Unavailable when it has brought nothing for `stalled` seconds.
    """
    fill.enter(FillState.FOLLOWING)
    followed: Followed | None = None
    ranges: asyncio.Future[None] | None = None
    look, written, grew_at = 0, 0, clock.monotonic()
    try:
        while True:
            followed = followed or await store.follow(fill.digest, fill.repository.registry)
            if followed is not None:
                state = _look(fill, followed)
                if state is WriterState.KEPT or (fill.is_proven and state is WriterState.GONE):
                    return None
                if state is WriterState.GONE:
                    raise WriterGone
            look += 1
            if look % _TRY_LOCK == 0 or followed is None:
                partial = await store.partial(fill.digest, fill.repository.registry)
                if partial is not None and not fill.is_proven and _is_followed(followed):
                    return partial
                if partial is not None:  # of a new file, since our look: see what became of it
                    await partial.suspend()
                    if fill.is_proven:  # its writer has died: who asks next gives it its place
                        return None
                    continue
            if fill.written > written:
                written, grew_at = fill.written, clock.monotonic()
            elif (
                clock.monotonic() - grew_at > stalled
                and _is_waited_for(fill)
                and not fill.is_proven
            ):
                raise Unavailable(f"the other process that writes {fill.digest} stands still")
            if ranges is None and followed is not None and _reads_ranges(fill):
                ranges = asyncio.ensure_future(serve_ranges())
            if ranges is not None and ranges.done():
                ranges.result()
            await asyncio.sleep(_LOOK)
    finally:
        if followed is not None:
            followed.close()
        if ranges is not None:
            ranges.cancel()
            await ended([ranges])


def _look(fill: Fill, followed: Followed) -> WriterState:
    """Tells the readers of what has come; what has become of its writer."""
    state = followed.state()  # before what is there: of what is proven, that is all
    if state is WriterState.GONE or fill.is_proven:
        return state
    if _reads_ranges(fill):
        fill.gives(followed.vouched_ahead())
    written = followed.written()
    if not fill.has_file:
        fill.writes_to(followed.open())
    if state in (WriterState.PROVEN, WriterState.KEPT):
        fill.prove(written)
        return state
    if fill.size is None:
        fill.size = followed.size
    if fill.size is None or written <= fill.size:
        fill.progress(written)
    return state


def _reads_ranges(fill: Fill) -> bool:
    return any(not reader.needs_whole for reader in fill.readers)


def _is_waited_for(fill: Fill) -> bool:
    """Whether it matters that the other process brings nothing: not to who reads ranges alone."""
    return not fill.readers or any(reader.needs_whole for reader in fill.readers)


def _is_followed(followed: Followed | None) -> bool:
    """Whether who has the lock on what is being written has it on the file that is followed, whose
    bytes were given out already. Its writer may have removed that one, and another begun anew."""
    return followed is None or followed.state() in (WriterState.WRITING, WriterState.PROVEN)
