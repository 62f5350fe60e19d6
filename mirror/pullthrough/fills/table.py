"""Fills: one download a digest, however many ask, read by everybody while it grows.

A fill belongs to the mirror, not to the request that began it: it goes on when its clients leave.
Where others want its place it is put off then, and goes on when there is one to spare.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence

import structlog

from ...clock import Clock
from ...contracts.content import ContentStore, Followed, Partial, WriterState
from ...contracts.context import Asker
from ...contracts.events import ContentCommitted, FillEnded, FillQueued, FillStarted
from ...contracts.files import Hasher, hash_span
from ...contracts.registry import Outcome
from ...contracts.upstream import Upstream
from ...events import Events
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable, Untrustworthy
from ...oci.reference import Repository
from ...threads import aside
from ..publishing import publish
from .download import Download, DownloadPatience
from .fill import Fill
from .parallel import ALONE, ParallelPolicy
from .provenance import Doubts
from .queue import QUANTUM, FillLimits, FillQueue
from .range_stream import RangeStreams
from .spill import SpillBuffer

log = structlog.get_logger()

# How often another process' file is looked at, in seconds; and every how many looks the lock is
# tried, in case that process has died.
_LOOK = 0.01
_TRY_LOCK = 10

_MOST_PUT_OFF = 512  # about; clients have equal parts of it
_MOST_CLIENTS = 64  # of one fill, that are told apart
_LATER = 0.25  # seconds between two looks at whether one that was put off may go on


class PutOff(Unavailable):
    """Nobody reads this fill, and its place is wanted, or it is not wanted itself."""


class Fills:
    """The one table of the fills of this process."""

    def __init__(
        self,
        store: ContentStore,
        events: Events,
        clock: Clock | None = None,
        patience: DownloadPatience | None = None,
        limits: FillLimits | None = None,
        parting: ParallelPolicy | None = None,
        quantum: float = QUANTUM,
    ) -> None:
        self._store = store
        self.events = events
        self._clock = clock or Clock()
        self._patience = patience or DownloadPatience()
        self._parting = parting or ParallelPolicy()
        self._doubts = Doubts(self._clock)
        self.detours = RangeStreams()
        self._gate = FillQueue(limits or FillLimits(), quantum)
        self._fills: dict[tuple[str, Digest], Fill] = {}
        self._waits: Counter[str] = Counter()  # for how many fills each client does
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._put_off: dict[tuple[str, Digest], tuple[Fill, Upstream]] = {}
        self._going_on: asyncio.Task[None] | None = None

    def limit(
        self, patience: DownloadPatience, limits: FillLimits, parting: ParallelPolicy
    ) -> None:
        """From now on these hold. A download that runs goes on as it has begun."""
        self._patience, self._parting = patience, parting
        self._gate.limit(limits)

    def running(self, registry: str, digest: Digest) -> Fill | None:
        """The fill of this digest from this registry, if there is one that can be joined."""
        return self._fills.get((registry, digest))

    def join(
        self,
        asker: Asker,
        digest: Digest,
        upstream: Upstream,
        repository: Repository,
        first_byte: float,
    ) -> tuple[Fill, Outcome]:
        """The running fill of this digest, or a new one from this upstream, which is given up when
        it makes no progress within `first_byte` seconds. It takes the share of that of its clients
        which waits for the fewest.

        Registries do not share fills: until its end one may be of any bytes, or of none.
        Repositories of one do, and whoever joins has to know that its own has this content, too;
        that another's has it not says nothing."""
        key = (repository.registry, digest)
        fill = self._fills.get(key)
        if fill is not None:
            fill.first_byte = max(fill.first_byte, first_byte)  # of all who wait for it
            self._asks(asker, fill)
            return fill, Outcome.JOINED
        self._put_off.pop(key, None)
        fill = self._fills[key] = Fill(digest, repository, first_byte, next(self._numbers))
        self._asks(asker, fill)
        task = asyncio.create_task(self._run(fill, upstream, repository), name=f"fill {digest}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return fill, Outcome.FILLED

    def _asks(self, asker: Asker, fill: Fill) -> None:
        """The asker's client waits for it, too. A fill is that client's which waits for the fewest:
        nobody waits in the turn of one that has asked for much, and it is nobody's loss when such a
        one comes to wait for the same."""
        if not fill.is_read:
            self._forget_clients(fill)
        client = asker.client
        if client not in fill.clients and len(fill.clients) < _MOST_CLIENTS:
            fill.clients.add(client)
            self._waits[client] += 1
        self._give_to_fewest([fill])
        # It waits for one more: only what was its own by that may be another's now.
        self._give_to_fewest([one for one in self._shared() if one.client == client])

    def _forget_clients(self, fill: Fill) -> None:
        if fill.clients:
            self._waits -= Counter(fill.clients)
            fill.clients.clear()
            self._give_to_fewest(self._shared())

    def _shared(self) -> Sequence[Fill]:
        return [fill for fill in self._fills.values() if len(fill.clients) > 1]

    def _give_to_fewest(self, fills: Sequence[Fill]) -> None:
        for fill in fills:
            fill.client = min(fill.clients, key=lambda one: (self._waits[one], one))

    async def spare(self, registry: str) -> None:
        """Returns when a fill from this registry would keep nobody from theirs."""
        await self._gate.spare(registry)

    def is_idle(self, registry: str) -> bool:
        """Whether no fill from this registry runs, or waits for its turn."""
        return self._gate.is_idle(registry)

    def put_off(self, fill: Fill) -> None:
        """Ends a fill that was only fetched ahead: what has come of it stays."""
        if not fill.is_read:
            self._gate.break_off(fill)

    async def close(self) -> None:
        """Stops all fills; what they have written stays, to be resumed."""
        tasks = [*self._tasks, *([self._going_on] if self._going_on else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, fill: Fill, upstream: Upstream, repository: Repository) -> None:
        result = "failed"
        try:
            result = await self._fill(fill, upstream, repository)
            await self._settle(fill)
        except PutOff as error:
            result = "suspended"
            fill.fail(error)
        except Untrustworthy as error:
            result = "rejected"
            fill.fail(error)
        except RegistryError as error:
            fill.fail(error)
        except asyncio.CancelledError:
            result = "suspended"
            fill.fail(Unavailable("the mirror is stopping", retry_after=5))
            raise
        except Exception as error:
            log.exception("fill_failed", digest=str(fill.digest))
            fill.fail(Unavailable(f"the mirror failed: {type(error).__name__}", retry_after=30))
        finally:
            self._leave_table(fill)
            self._forget_clients(fill)
            self.events.emit(
                FillEnded(fill.number, fill.repository, fill.digest, result, fill.written)
            )
            fill.end()

    async def _fill(self, fill: Fill, upstream: Upstream, repository: Repository) -> str:
        """Brings the fill to its end; how it ended, for whoever counts."""
        partial = await self._begin(fill)
        if partial is None:
            return "followed"
        if partial.offset or partial.ahead:
            fill.size = partial.size  # as an earlier writer was told
        download = Download(
            fill,
            partial,
            upstream,
            repository,
            self._clock,
            self._patience,
            self._spill,
            ALONE if fill.digest in self._doubts else self._parting,
        )
        try:
            within = self._patience.first_byte
            while not await self._in_turn(fill, download, within):
                if not fill.is_read:
                    self._go_on_later(fill, upstream)
                    raise PutOff("others came first", retry_after=1)
                within = self._patience.stalled
            committed = ContentCommitted(
                fill.digest,
                download.partial.offset,
                repository,
                sorted(download.sources.rejects),
                media_type="",
                refers_to=(),
            )
            kept = await publish(download.commit(), committed, self.events)
        except Untrustworthy as error:
            file = None if fill.window else fill.segment(0)[0].file
            await self._doubts.wrong(fill.digest, download.sources, file, error.message)
            await download.partial.discard()
            raise
        finally:
            await download.partial.suspend()
        fill.finish(download.partial.offset)
        log.info(
            "filled",
            digest=str(fill.digest),
            size=fill.size,
            sources=sorted(download.sources.rejects),
        )
        return "committed" if kept else "uncached"

    async def _in_turn(self, fill: Fill, download: Download, within: float) -> bool:
        """As FillQueue.run."""

        async def run() -> None:
            self.events.emit(FillStarted(fill.number, fill.repository, fill.digest))
            await download.run()

        self.events.emit(FillQueued(fill.number, fill.repository, fill.digest))
        return await self._gate.run(fill, run, within)

    async def _begin(self, fill: Fill) -> Partial | None:
        """What the fill is written to, with a file for its readers, or a window where the store
        cannot be written or descriptors have run out. None when another process has brought it."""
        partial = None
        try:
            partial = await self._partial(fill) or await self._follow(fill)
            if partial is None or await self._came_meanwhile(fill, partial):
                return None
            if fill.window is None and not fill.has_file:
                fill.writes_to(partial.open())
            return partial
        except OSError as error:
            log.error("store_cannot_be_written", digest=str(fill.digest), reason=str(error))
            if partial is not None:
                await partial.suspend()
            return self._spill(fill, 0, fill.digest.hasher())

    def _go_on_later(self, fill: Fill, upstream: Upstream) -> None:
        """Leaves the table, and comes back when there is a place to spare; or not, where it was
        only fetched ahead, or too much of its client's has been put off: what has come of it stays
        for whoever asks next."""
        self._leave_table(fill)
        owners = [other.client for other, _ in self._put_off.values()]
        most = _MOST_PUT_OFF // (len(set(owners) - {fill.client}) + 1)
        if not fill.is_asked_for or fill.window or owners.count(fill.client) >= most:
            return
        self._put_off[fill.repository.registry, fill.digest] = fill, upstream
        if self._going_on is None:
            self._going_on = asyncio.create_task(self._go_on(), name="fills put off")

    async def _go_on(self) -> None:
        while self._put_off:
            await asyncio.sleep(_LATER)
            for fill, upstream in self._put_off.values():
                if self._gate.has_spare(fill.repository.registry):
                    self.join(fill, fill.digest, upstream, fill.repository, fill.first_byte)
                    break
        self._going_on = None

    async def _partial(self, fill: Fill) -> Partial | None:
        return await self._store.partial(fill.digest, fill.repository.registry)

    async def _settle(self, fill: Fill) -> None:
        """It is proven: whoever lied of it is found."""
        if fill.digest not in self._doubts or fill.window is not None:
            return
        segment, _ = fill.segment(0)
        try:
            await self._doubts.proven(fill.digest, segment.file, fill.written)
        except OSError as error:
            log.error("content_cannot_be_read", digest=str(fill.digest), reason=str(error))

    async def _came_meanwhile(self, fill: Fill, partial: Partial) -> bool:
        """Whether another process has brought it to its end, between our look and our lock. What
        was followed is not looked for: its readers go on in the file that they have begun."""
        if fill.has_file:
            return False
        content = await self._store.open(fill.digest)
        if content is None:
            return False
        try:
            await partial.discard()
            fill.writes_to(content.again())
            fill.finish(await content.readable(0))
        finally:
            content.close()
        return True

    async def _follow(self, fill: Fill) -> Partial | None:
        """Reads along with the process that writes this; None when it has brought it to its end,
        the partial when it has died and the writing is ours."""
        followed: Followed | None = None
        look, written, grew_at = 0, 0, self._clock.monotonic()
        try:
            while True:
                followed = followed or await self._store.follow(
                    fill.digest, fill.repository.registry
                )
                if followed is not None:
                    state = self._look(fill, followed)
                    if state is WriterState.PROVEN:
                        return None
                    if state is WriterState.GONE:
                        return await self._go_on_alone(fill)
                look += 1
                if look % _TRY_LOCK == 0 or followed is None:
                    partial = await self._partial(fill)
                    if partial is not None and _is_followed(followed):
                        return partial
                    if partial is not None:  # of a new file, since our look: see what became of it
                        await partial.suspend()
                        continue
                if fill.written > written:
                    written, grew_at = fill.written, self._clock.monotonic()
                elif self._clock.monotonic() - grew_at > self._patience.stalled:
                    raise Unavailable(f"the other process that writes {fill.digest} stands still")
                await asyncio.sleep(_LOOK)
        finally:
            if followed is not None:
                followed.close()

    async def _go_on_alone(self, fill: Fill) -> SpillBuffer:
        """The other process has removed its file: it was wrong, or found no room. Those who have
        read of it here get the rest, unless the whole turns out wrong."""
        if fill.written == 0:
            raise Untrustworthy(f"the other process that wrote {fill.digest} gave it up")
        segment, _ = fill.segment(0)
        hasher = fill.digest.hasher()
        offset = await aside(hash_span, hasher, segment.file, 0, fill.written)
        return self._spill(fill, offset, hasher)

    def _look(self, fill: Fill, followed: Followed) -> WriterState:
        """Tells the readers of what has come; what has become of its writer."""
        state = followed.state()
        if state is WriterState.GONE:
            return state
        written = followed.written()
        if not fill.has_file:
            fill.writes_to(followed.open())
        if state is WriterState.PROVEN:
            fill.finish(written)
            return state
        if fill.size is None:
            fill.size = followed.size
        if fill.size is None or written <= fill.size:
            fill.progress(written)
        return state

    def _spill(self, fill: Fill, offset: int, hasher: Hasher) -> SpillBuffer:
        """The disk takes no more: from here on, those who read already are served from memory."""
        self._leave_table(fill)  # who comes now could not read what has passed
        return fill.spill(offset, hasher)

    def _leave_table(self, fill: Fill) -> None:
        key = (fill.repository.registry, fill.digest)
        if self._fills.get(key) is fill:
            del self._fills[key]


def _is_followed(followed: Followed | None) -> bool:
    """Whether who has the lock on what is being written has it on the file that is followed, whose
    bytes were given out already. Its writer may have removed that one, and another begun anew."""
    return followed is None or followed.state() is WriterState.WRITING
