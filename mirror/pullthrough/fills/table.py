"""Fills: one download a digest, however many ask, read by everybody while it grows.

A fill belongs to the mirror, not to the request that began it: it goes on when its clients leave.
Where others want its place it is put off then, and goes on when there is one to spare.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence

import structlog

from ...clock import Clock
from ...contracts.content import Claims, ContentStore, Partial
from ...contracts.context import Asker
from ...contracts.events import (
    ContentCommitted,
    FillEnded,
    FillQueued,
    FillSpilled,
    FillStarted,
)
from ...contracts.files import Hasher, hash_span
from ...contracts.registry import Outcome
from ...contracts.tracing import span, waits
from ...contracts.upstream import Upstream
from ...events import Events
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable, Untrustworthy
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from ...threads import aside
from ...times import ANSWERS, TROUBLE
from ..publishing import publish
from .ahead import AskedAhead
from .download import Download, DownloadPolicy
from .fill import Fill, FillReader
from .following import WriterGone, follow
from .parallel import ALONE, ParallelPolicy
from .patience import DownloadPatience, Patience
from .provenance import Doubts
from .queue import QUANTUM, FillLimits, FillQueue
from .ranges import RangeConnections
from .sink import Sink, TooLarge
from .spill import SpillBuffer
from .states import FillState

log = structlog.get_logger()

_MOST_PUT_OFF = 512  # about; clients have equal parts of it
_MOST_PROVEN = 64  # that wait for their place in the store: the next waits with its clients
_MOST_CLIENTS = 64  # of one fill, that are told apart
_ENDS = {
    "committed": FillState.KEPT,
    "uncached": FillState.UNCACHED,
    "followed": FillState.FOLLOWED,
}
_LATER = 0.25  # seconds between two looks at whether one that was put off may go on
_LOOK = 0.01  # seconds between two looks at whether a small blob was brought


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
        claims: Claims | None = None,
    ) -> None:
        """`claims` None: no other process has this store."""
        self.claims = claims
        self._store = store
        self.events = events
        self._clock = clock or Clock()
        self._patience = patience or DownloadPatience()
        self._parting = parting or ParallelPolicy()
        self._doubts = Doubts(self._clock)
        self._ranges = RangeConnections()
        self._gate = FillQueue(limits or FillLimits(), quantum)
        self._fills: dict[tuple[str, Digest], Fill] = {}
        self._keeping = asyncio.Semaphore(_MOST_PROVEN)
        self._ask_ahead: set[Fill] = set()  # that have no place yet
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

    @property
    def under_way(self) -> Collection[Fill]:
        """All that can be joined."""
        return self._fills.values()

    def running(self, registry: str, digest: Digest) -> Fill | None:
        """The fill of this digest from this registry, if there is one that can be joined."""
        return self._fills.get((registry, digest))

    def number(self) -> int:
        """Of one more download, which events tell from the others by it."""
        return next(self._numbers)

    def along(self, asker: Asker, fill: Fill, part: ByteRange | None) -> FillReader:
        """A reader of a running fill, for another node: who waits there is a client, too."""
        fill.first_byte = max(fill.first_byte, TROUBLE.other)
        fill.is_whole |= part is None
        if self.running(fill.repository.registry, fill.digest) is fill:
            self._asks(asker, fill)
        return fill.reader(Outcome.JOINED, fill.repository, part, asker.client)

    def join(
        self,
        asker: Asker,
        digest: Digest,
        upstream: Upstream,
        repository: Repository,
        first_byte: float,
        part: ByteRange | None = None,
    ) -> tuple[Fill, Outcome]:
        """The running fill of this digest, or a new one from this upstream, which is given up when
        it makes no progress within `first_byte` seconds. It is charged to that of its clients which
        waits for the fewest fills. `part`: what is wanted of it, None: the whole. What else there
        is of it follows on a part when there is a place to spare.

        Registries do not share fills: until its end one may be of any bytes, or of none.
        Repositories of one do, and whoever joins has to know that its own has this content, too;
        that another's has it not says nothing."""
        key = (repository.registry, digest)
        fill = self._fills.get(key)
        if fill is not None:
            fill.first_byte = max(fill.first_byte, first_byte)  # of all who wait for it
            fill.is_whole |= part is None
            self._asks(asker, fill)
            return fill, Outcome.JOINED
        self._put_off.pop(key, None)
        fill = self._fills[key] = Fill(digest, repository, first_byte, self.number())
        fill.is_whole = part is None
        fill.on_left = self._left
        self._asks(asker, fill)
        task = asyncio.create_task(self._run(fill, upstream), name=f"fill {digest}")
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

    def _left(self, fill: Fill) -> None:
        """What no client has asked for ends with those who had it fetched ahead."""
        if not fill.is_asked_for:
            self.put_off(fill)

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

    async def _run(self, fill: Fill, upstream: Upstream) -> None:
        result = "failed"
        with span("fill", {"registry_mirror.digest": str(fill.digest)}) as step:
            result = await self._run_traced(fill, upstream)
            if step is not None:
                step.set({"registry_mirror.result": result, "registry_mirror.bytes": fill.written})

    async def _run_traced(self, fill: Fill, upstream: Upstream) -> str:
        """How it ended."""
        result = "failed"
        try:
            result = await self._fill(fill, upstream)
            await self._settle(fill)
            fill.enter(_ENDS[result])
        except PutOff as error:
            result = "suspended"
            fill.fail(error, FillState.PUT_OFF)
        except Untrustworthy as error:
            result = "rejected"
            fill.fail(error)
        except RegistryError as error:
            fill.fail(error)
        except asyncio.CancelledError:
            result = "suspended"
            if not fill.is_over:
                fill.fail(Unavailable("the mirror is stopping", retry_after=5))
            raise
        except Exception as error:
            log.exception("fill_failed", digest=str(fill.digest))
            if not fill.is_over:
                reason = f"the mirror failed: {type(error).__name__}"
                fill.fail(Unavailable(reason, retry_after=30))
        finally:
            self._leave_table(fill)
            self._forget_clients(fill)
            self.events.emit(
                FillEnded(fill.number, fill.repository, fill.digest, result, fill.written)
            )
        return result

    async def _fill(self, fill: Fill, upstream: Upstream) -> str:
        """Brings all of it, proves it, and sees to its place in the store; which of `_ENDS`."""
        asked = AskedAhead(upstream)
        try:
            return await self._fill_by(fill, upstream, asked)
        finally:
            self._ask_ahead.discard(fill)
            await asked.close()

    async def _fill_by(self, fill: Fill, upstream: Upstream, asked: AskedAhead) -> str:
        partial = await self._begin(fill, asked)
        if partial is None:
            return "followed"
        if partial.offset or partial.ahead:
            await asked.close()
            fill.size = partial.size  # as an earlier writer was told
            fill.gives(partial.vouched_ahead)
        sink = Sink(fill, partial, upstream, self._patience_of_one(), self._spill)
        policy = self._policy(ALONE if fill.digest in self._doubts else self._parting)
        registry = fill.repository.registry
        self._ask_ahead.discard(fill)
        if not self._gate.has_place(registry):
            await asked.close()  # others were quicker, and this one has to wait for its turn
        download = Download(fill, sink, asked, policy, lambda: self._gate.has_spare(registry))
        try:
            await self._in_turn(fill, download, self._patience.first_byte)
            while not download.is_complete:
                if not fill.is_wanted:
                    self._go_on_later(fill, upstream)
                    raise PutOff("others came first", retry_after=1)
                await self._in_turn(fill, download, self._patience.stalled)
            fill.enter(FillState.PROVING)
            committed = ContentCommitted(
                fill.digest,
                sink.partial.offset,
                fill.repository,
                sorted(sink.sources.rejects),
                media_type="",
                refers_to=(),
            )
            async with contextlib.nullcontext() if sink.is_passing else self._keeping:
                await sink.prove()
                kept = await publish(sink.commit(), committed, self.events)
        except TooLarge:
            await sink.partial.discard()  # nobody will ever want to go on with it
            raise
        except Untrustworthy as error:
            file = None if sink.is_passing else fill.file
            await self._doubts.wrong(fill.digest, sink.sources, file, error.message)
            await sink.partial.discard()
            raise
        finally:
            await sink.partial.suspend()
        log.info(
            "filled",
            digest=str(fill.digest),
            size=fill.size,
            sources=sorted(sink.sources.rejects),
        )
        return "committed" if kept else "uncached"

    def _policy(self, parting: ParallelPolicy) -> DownloadPolicy:
        return DownloadPolicy(parting, self._ranges)

    def _patience_of_one(self) -> Patience:
        return Patience(self._patience, self._clock)

    async def _in_turn(self, fill: Fill, download: Download, within: float) -> None:
        """As FillQueue.run."""

        queued, waited_for = self._clock.monotonic(), waits("queue")

        async def run() -> None:
            waited_for()
            waited = self._clock.monotonic() - queued
            self.events.emit(FillStarted(fill.number, fill.repository, fill.digest, waited))
            await download.run()

        fill.enter(FillState.WAITING)
        self.events.emit(FillQueued(fill.number, fill.repository, fill.digest))
        try:
            await self._gate.run(fill, run, within)
        finally:
            waited_for()

    async def _begin(self, fill: Fill, asked: AskedAhead) -> Partial | None:
        """What the fill is written to, with a file for its readers, or memory where the store
        cannot be written or descriptors have run out. None when another process has brought it."""
        partial = None
        try:
            async with self._claimed(fill.digest) as is_alone:  # until it can be followed
                if is_alone and await self._may_ask_ahead(fill):
                    asked.begin(fill, fill.repository, fill.digest)
                partial = await self._store.partial(fill.digest, fill.repository.registry)
            if partial is None:
                self._ask_ahead.discard(fill)
                await asked.close()
                partial = await self._follow(fill, asked)
            if partial is None or await self._came_meanwhile(fill, partial):
                return None
            if fill.window is None and not fill.has_file:
                fill.writes_to(partial.open())
            return partial
        except OSError as error:
            if fill.is_proven:  # by another process; only what becomes of it was not to be seen
                return None
            log.error("store_cannot_be_written", digest=str(fill.digest), reason=str(error))
            if partial is not None:
                await partial.suspend()
            return self._spill(fill, 0, fill.digest.hasher())

    @contextlib.asynccontextmanager
    async def _claimed(self, digest: Digest) -> AsyncIterator[bool]:
        """No other process begins to bring this as a small blob. Who does already is waited for,
        unless it is silent. Whether none did."""
        claims, waited, is_ours = self.claims, 0.0, False
        while claims and not (is_ours := claims.take(digest)) and waited < ANSWERS.beside:
            await asyncio.sleep(_LOOK)
            waited += _LOOK
        try:
            yield not claims or (is_ours and not waited)
        finally:
            if is_ours and claims:
                claims.give(digest)

    async def _may_ask_ahead(self, fill: Fill) -> bool:
        """Whether it is known what to ask for before the partial is there: no other process writes
        the blob, nothing of it is here, and it is nobody else's turn."""
        registry, others = fill.repository.registry, len(self._ask_ahead)
        if not (fill.is_whole and fill.is_wanted and self._gate.has_spare(registry, others)):
            return False
        self._ask_ahead.add(fill)
        try:
            written = await self._store.follow(fill.digest, registry)
        except OSError:
            return False
        if written is not None:
            written.close()
        return written is None

    async def _follow(self, fill: Fill, upstream: Upstream) -> Partial | None:
        """As `follow`; where the other process has removed its file, those who have read of it here
        get the rest, unless the whole turns out wrong."""

        async def serve_ranges() -> None:
            # -1: no byte follows on that, so all of them are of ranges.
            passing = fill.buffer(-1, fill.digest.hasher())
            sink = Sink(fill, passing, upstream, self._patience_of_one(), self._spill)
            await Download(fill, sink, upstream, self._policy(self._parting)).serve_ranges()

        try:
            return await follow(
                fill, self._store, self._clock, self._patience.stalled, serve_ranges
            )
        except WriterGone:
            if fill.written == 0:
                message = f"the other process that wrote {fill.digest} gave it up"
                raise Untrustworthy(message) from None
            hasher = fill.digest.hasher()
            offset = await aside(hash_span, hasher, fill.file, 0, fill.written)
            return self._spill(fill, offset, hasher)

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

    async def _settle(self, fill: Fill) -> None:
        """It is proven: whoever lied of it is found."""
        if fill.digest not in self._doubts or fill.window is not None or not fill.has_file:
            return
        try:
            await self._doubts.proven(fill.digest, fill.file, fill.written)
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
            fill.prove(await content.readable(0))
        finally:
            content.close()
        return True

    def _spill(self, fill: Fill, offset: int, hasher: Hasher) -> SpillBuffer:
        """The disk takes no more: from here on, those who read already are served from memory."""
        self._leave_table(fill)  # who comes now could not read what has passed
        self.events.emit(FillSpilled(fill.number, fill.repository, fill.digest))
        return fill.spill(offset, hasher)

    def _leave_table(self, fill: Fill) -> None:
        key = (fill.repository.registry, fill.digest)
        if self._fills.get(key) is fill:
            del self._fills[key]
