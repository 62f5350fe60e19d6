"""The connections that bring one blob: the first, and others beside one that is silent or slow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from ...clock import Clock
from ...contracts.context import Asker
from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.errors import RangeInvalid, RegistryError, Unavailable
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from .body import Watch
from .dispatcher import Dispatcher, Query
from .endpoint_state import EndpointState
from .question import Asked, Question
from .source import Source

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A blob, or a range of one, and the endpoints that it may come from."""

    asker: Asker
    repository: Repository
    digest: Digest
    range: ByteRange | None
    endpoints: Sequence[EndpointState]

    @property
    def question(self) -> Question:
        # Where a range begins is the client's choice: a part that fails is not the whole.
        what = f"{'part of ' if self.range else ''}{self.digest}"
        return Question(Asked.BLOB, self.repository, what)


class BlobSources:
    """Opens connections for one blob: see Others. `all_endpoints` are the pool's."""

    def __init__(
        self,
        wanted: Wanted,
        all_endpoints: Sequence[EndpointState],
        dispatcher: Dispatcher,
        clock: Clock,
        watch: Watch,
    ) -> None:
        self._wanted = wanted
        self._question = wanted.question
        self._all = all_endpoints
        self._dispatcher = dispatcher
        self._clock = clock
        self._watch = watch

    async def first(self) -> Source:
        return await self._dispatcher.answer(
            Query(
                self._wanted.asker,
                self._question,
                lambda endpoint: self._open(endpoint, self._wanted.range),
                self._wanted.endpoints,
            )
        )

    async def beside(self, silent: Source, rest: ByteRange) -> Source:
        async def ask(endpoint: EndpointState) -> Source:
            source = await self._open_beside(endpoint, rest)
            return await source.instead_of(silent, rest.start)

        late = silent.endpoint
        is_free = any(one.slots.free(Asked.BLOB) for one in self._wanted.endpoints)
        longest = self._watch.longest if is_free else self._watch.alone
        query = Query(self._wanted.asker, self._question, ask, self._wanted.endpoints)
        within = longest - self._watch.silent
        try:
            winner, source = await self._dispatcher.instead(query, late, silent.speaks(), within)
        except TimeoutError:
            error = Unavailable(
                f"{silent.name} sent nothing for {longest:g} s in the middle of a blob, nor did "
                "any that was asked for the rest beside it"
            )
            late.failed(self._question, error)
            raise error from None
        except Unavailable:
            raise
        except RegistryError as error:
            raise Unavailable(error.message) from None  # the blob was there, a moment ago
        if source is not silent:
            _log.info(
                "silent_blob_goes_on_elsewhere",
                digest=str(self._wanted.digest),
                silent=silent.name,
                source=source.name,
            )
            if winner is not late:
                late.is_slow(self._question, Unavailable(f"{silent.name} fell silent"))
            await silent.close()
        return source

    async def rival(self, slow: Source, rest: ByteRange) -> Source:
        async def ask(endpoint: EndpointState) -> Source:
            source = await self._open_beside(endpoint, rest)
            return await source.in_front_of(slow, rest.start)

        never: asyncio.Future[Source] = asyncio.Future()  # the slow one is read meanwhile
        query = Query(self._wanted.asker, self._question, ask, self._wanted.endpoints)
        within = self._watch.slow_window
        try:
            winner, source = await self._dispatcher.instead(query, slow.endpoint, never, within)
        except TimeoutError:
            raise Unavailable(f"no endpoint brings a blob sooner than {slow.name}") from None
        _log.info(
            "slow_blob_goes_on_elsewhere",
            digest=str(self._wanted.digest),
            slow=slow.name,
            source=source.name,
        )
        if winner is not slow.endpoint:
            slow.endpoint.is_slow(self._question, Unavailable(f"{slow.name} only drips"))
        return source

    def usual_speed(self) -> float:
        return max((one.speed.mean or 0.0 for one in self._all), default=0.0)

    async def _open(self, endpoint: EndpointState, range: ByteRange | None) -> Source:
        wanted = self._wanted
        stream = await endpoint.member.upstream.blob(
            wanted.asker, wanted.repository, wanted.digest, range
        )
        return await Source.open(
            stream,
            endpoint,
            self._question,
            self._clock,
            lambda: self._fastest_but(endpoint),
            self._watch.longest,
            goes_on_by_range=range is None or stream.start == range.start,
        )

    async def _open_beside(self, endpoint: EndpointState, rest: ByteRange) -> Source:
        try:
            return await self._open(endpoint, rest)
        except RangeInvalid as error:
            raise Unavailable(f"{endpoint.member.name}: {error.message}") from None

    def _fastest_but(self, endpoint: EndpointState) -> float:
        """The best speed, in bytes a second, of the other endpoints that may be asked for a blob
        now."""
        return max(
            (
                one.speed.mean or 0.0
                for one in self._all
                if one is not endpoint
                and one.slots.free(Asked.BLOB)
                and one.is_well(self._question)
            ),
            default=0.0,
        )
