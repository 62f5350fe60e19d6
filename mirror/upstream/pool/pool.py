"""Several endpoints of one registry as one `Upstream`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from ...clock import Clock
from ...contracts.context import Asker
from ...contracts.events import UpstreamHedged
from ...contracts.registry import BytesContent, TagPage
from ...contracts.upstream import StreamContent
from ...events import Events
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import Denied, RangeInvalid, RateLimited, RegistryError, Unavailable, Unknown
from ...oci.ranges import ByteRange
from ...oci.reference import Repository
from ..endpoint import Trust
from .body import Body, Watch
from .connections import Slot
from .endpoint_state import EndpointState, Member, Turn
from .hedge import NobodyAnswered, Race
from .line import Line
from .question import Asked, Question
from .source import Source

_log = structlog.get_logger()

T = TypeVar("T")
_Errors = list[tuple[EndpointState, RegistryError]]
_UnderWay = dict[Slot, tuple[EndpointState, float]]  # of each ask: who, and since when

# One ask for content in so many seconds goes first to an endpoint that was not measured for long.
_EXPLORE_EVERY = 30.0
_MEASURED_FOR = 300.0

# A 429 that may be over soon is waited out for so many seconds in all: a tag's client is held for
# 12, and a blob's fill has a patience of its own. One that does not say when is asked again after
# the least.
_PASSING = 8.0
_LEAST_PAUSE = 1.0


class Pool:
    """An Upstream that asks its members until one can answer.

    What a tag points to, and every other word that proves itself by nothing, comes only from
    members whose trust is `tags`, in their order. Content by digest may come from any, the best
    first: manifests by latency, blobs by the speed that one more may expect. When one is late by
    its own measure the next is asked too, or where there is no other the same one once more, and
    the first answer wins. So it goes on within a blob: see Body.

    Members that failed lately are asked last; those whose breaker is open are not asked, and when
    there are no others the error comes at once.
    """

    def __init__(
        self,
        members: Sequence[Member],
        clock: Clock,
        *,
        events: Events,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        watch: Watch | None = None,
        line: Line | None = None,
    ) -> None:
        self._clock = clock
        self._events = events
        self._sleep = sleep
        self._watch = watch or Watch()
        self._line = Line(clock, line)
        self._all = tuple(EndpointState(member, clock, self._events) for member in members)
        self._trusted = tuple(one for one in self._all if one.member.trust is Trust.TAGS)
        self._explore_at = clock.monotonic() + _EXPLORE_EVERY

    def is_scarce(self) -> bool:
        """Whether all endpoints that may say what a tag points to have little left."""
        return bool(self._trusted) and all(one.member.upstream.is_scarce() for one in self._trusted)

    def is_down(self, repository: Repository, tag: str) -> bool:
        question = Question(Asked.TAG, repository, tag)
        return bool(self._trusted) and all(one.is_away(question) for one in self._trusted)

    async def close(self) -> None:
        """Asks no more questions of its own."""
        for standing in self._all:
            await standing.close()

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        return await self._word(
            asker,
            Question(Asked.TAG, repository, tag),
            lambda standing: standing.member.upstream.resolve(asker, repository, tag, passed_over),
        )

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        return await self._answer(
            asker,
            Question(Asked.MANIFEST, repository, str(digest)),
            lambda standing: standing.member.upstream.manifest(asker, repository, digest),
            self._all,
        )

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        return await self._word(
            asker,
            Question(Asked.STAT, repository, str(digest)),
            lambda standing: standing.member.upstream.stat(asker, repository, digest),
        )

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        """Its first piece has come: so an endpoint that sends nothing is passed over too."""
        if vouched and not self._trusted:
            raise Denied("no endpoint of this registry is the registry itself")
        among = self._trusted if vouched else self._all

        # Where the range begins is the client's choice: a part that fails is not the whole.
        question = Question(Asked.BLOB, repository, f"{'part of ' if range else ''}{digest}")

        async def opened(standing: EndpointState, range: ByteRange | None) -> Source:
            stream = await standing.member.upstream.blob(asker, repository, digest, range)
            return await Source.open(
                stream,
                standing,
                question,
                self._clock,
                lambda: self._fastest_but(standing, question),
                self._watch.longest,
                goes_on_by_range=range is None or stream.start == range.start,
            )

        async def opened_beside(standing: EndpointState, rest: ByteRange) -> Source:
            try:
                return await opened(standing, rest)
            except RangeInvalid as error:
                raise Unavailable(f"{standing.member.name}: {error.message}") from None

        async def beside(silent: Source, rest: ByteRange) -> Source:
            async def ask(standing: EndpointState) -> Source:
                source = await opened_beside(standing, rest)
                return await source.instead_of(silent, rest.start)

            return await self._beside(asker, silent, question, ask, among)

        async def rival(slow: Source, rest: ByteRange) -> Source:
            async def ask(standing: EndpointState) -> Source:
                source = await opened_beside(standing, rest)
                return await source.in_front_of(slow, rest.start)

            return await self._rival(asker, slow, question, ask, among)

        source = await self._answer(
            asker, question, lambda standing: opened(standing, range), among
        )
        return Body(
            source,
            range.stop if range else None,
            beside,
            rival,
            self._usual_speed,
            self._line,
            self._clock,
            self._watch,
        )

    async def _beside(
        self,
        asker: Asker,
        silent: Source,
        question: Question,
        ask: Callable[[EndpointState], Awaitable[Source]],
        among: Sequence[EndpointState],
    ) -> Source:
        """See Beside. Other endpoints are asked first, then the same over a connection more."""

        async def wait() -> tuple[EndpointState, Source]:
            return silent.standing, await silent.speaks()

        others = [one for one in among if one is not silent.standing]
        candidates, _ = self._in_turn(question, others)
        race, errors, _ = self._race(asker, question, ask)
        has_room = any(one.slots.free(Asked.BLOB) for one in among)
        longest = self._watch.longest if has_room else self._watch.alone
        try:
            async with asyncio.timeout(longest - self._watch.silent):
                (winner, source), hedges = await race.run(candidates, (silent.standing, wait()))
        except NobodyAnswered:
            verdict = _verdict(errors)
            if isinstance(verdict, Unavailable):
                raise verdict from None
            raise Unavailable(verdict.message) from None  # it was there, a moment ago
        except TimeoutError:
            error = Unavailable(
                f"{silent.name} sent nothing for {longest:g} s in the middle of a blob, nor did "
                "any that was asked for the rest beside it"
            )
            silent.standing.failed(question, error)
            raise error from None
        self._count(asker, hedges)
        if source is not silent:
            _log.info(
                "silent_blob_goes_on_elsewhere",
                digest=str(silent.descriptor.digest),
                silent=silent.name,
                source=source.name,
            )
            if winner is not silent.standing:
                silent.standing.is_slow(question, Unavailable(f"{silent.name} fell silent"))
            await silent.close()
        return source

    async def _rival(
        self,
        asker: Asker,
        slow: Source,
        question: Question,
        ask: Callable[[EndpointState], Awaitable[Source]],
        among: Sequence[EndpointState],
    ) -> Source:
        """See Rival. Who is asked, as in `_beside`; the slow one is read meanwhile."""
        others = [one for one in among if one is not slow.standing]
        candidates, _ = self._in_turn(question, others)
        race, _, _ = self._race(asker, question, ask)
        never: asyncio.Future[tuple[EndpointState, Source]] = asyncio.Future()
        try:
            async with asyncio.timeout(self._watch.slow_window):
                (winner, source), hedges = await race.run(candidates, (slow.standing, never))
        except TimeoutError:
            raise Unavailable(f"nobody brings a blob sooner than {slow.name}") from None
        self._count(asker, hedges)
        _log.info(
            "slow_blob_goes_on_elsewhere",
            digest=str(slow.descriptor.digest),
            slow=slow.name,
            source=source.name,
        )
        if winner is not slow.standing:
            slow.standing.is_slow(question, Unavailable(f"{slow.name} only drips"))
        return source

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        return await self._word(
            asker,
            Question(Asked.LIST, repository, f"referrers of {digest}"),
            lambda standing: standing.member.upstream.referrers(asker, repository, digest),
        )

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        return await self._word(
            asker,
            Question(Asked.LIST, repository, f"tags, {count} after {last}"),
            lambda standing: standing.member.upstream.tags(asker, repository, count, last),
        )

    async def _word(
        self, asker: Asker, question: Question, ask: Callable[[EndpointState], Awaitable[T]]
    ) -> T:
        if not self._trusted:
            raise Denied(
                "no endpoint of this registry may say what a tag points to: "
                "give one of them `trust: tags`"
            )
        return await self._answer(asker, question, ask, self._trusted)

    async def _answer(
        self,
        asker: Asker,
        question: Question,
        ask: Callable[[EndpointState], Awaitable[T]],
        among: Sequence[EndpointState],
    ) -> T:
        """The answer of one of these. A limit that may soon be over is waited out."""
        waited = 0.0
        while True:
            try:
                return await self._first_answer(asker, question, ask, among)
            except RateLimited as error:
                pause = max(error.retry_after or 0.0, _LEAST_PAUSE)
                waited += pause
                if question.asked is Asked.BLOB or waited > _PASSING:
                    raise
            await self._sleep(pause)

    async def _first_answer(
        self,
        asker: Asker,
        question: Question,
        ask: Callable[[EndpointState], Awaitable[T]],
        among: Sequence[EndpointState],
    ) -> T:
        candidates, refused = self._in_turn(question, among)
        race, errors, under_way = self._race(asker, question, ask)
        try:
            (_, answer), hedges = await race.run(candidates)
        except NobodyAnswered:
            early = self._to_try_early(question, refused, errors)
            race = replace(race, spare=lambda standing: standing.slots.free(question.asked))
            try:
                (_, answer), hedges = await race.run(early)
            except NobodyAnswered:
                not_asked = (one for one in refused if one not in early)
                errors += [(one, one.refusal(question)) for one in not_asked]
                raise _verdict(errors) from None
        self._count(asker, hedges)
        for standing, began in under_way.values():
            standing.not_waited_for(question, self._clock.monotonic() - began)
        if question.asked.is_content:
            for standing, error in errors:
                if isinstance(error, Unknown | Denied):
                    standing.lacks(question, error)
        return answer

    def _race(
        self, asker: Asker, question: Question, ask: Callable[[EndpointState], Awaitable[T]]
    ) -> tuple[Race[EndpointState, tuple[EndpointState, T]], _Errors, _UnderWay]:
        """One for this question, with the errors that come of it and the asks that are under way:
        in the end those that nobody waited for."""
        errors: _Errors = []
        under_way: _UnderWay = {}
        race: Race[EndpointState, tuple[EndpointState, T]] = Race(
            ask=lambda standing: self._ask(asker, standing, question, ask, under_way),
            late=lambda standing: standing.late(question.asked),
            spare=lambda standing: self._spare(asker, standing, question),
            hedged=lambda standing: standing.hedges(asker).take(),
            failed=lambda standing, error: errors.append((standing, error)),
            discard=lambda answer: _close(answer[1]),
            sleep=self._sleep,
        )
        return race, errors, under_way

    def _count(self, asker: Asker, hedges: Sequence[tuple[EndpointState, bool]]) -> None:
        for standing, won in hedges:
            self._events.emit(UpstreamHedged(standing.member.name, won))
            if won:
                standing.hedges(asker).give_back()

    async def _ask(
        self,
        asker: Asker,
        standing: EndpointState,
        question: Question,
        ask: Callable[[EndpointState], Awaitable[T]],
        under_way: _UnderWay,
    ) -> tuple[EndpointState, T]:
        """One member's answer, within its connections. Where it comes late, and the connection is
        another client's turn, it is asked again later."""
        vain_turns = 0
        while True:
            slot = await standing.slots.take(asker, question.asked, vain_turns)
            try:
                async with slot.turn() as turn:
                    return await self._ask_over(slot, standing, question, ask, under_way)
            except TimeoutError:
                if not turn.expired():
                    raise
            under_way.pop(slot, None)
            vain_turns += 1

    async def _ask_over(
        self,
        slot: Slot,
        standing: EndpointState,
        question: Question,
        ask: Callable[[EndpointState], Awaitable[T]],
        under_way: _UnderWay,
    ) -> tuple[EndpointState, T]:
        """As `_ask`, over this connection, which is given back unless a stream keeps it; the
        standing is told how it went."""
        keeps = False
        try:
            await standing.admits()
            standing.begins(question)
            began = self._clock.monotonic()
            under_way[slot] = standing, began
            try:
                answer = await ask(standing)
            except RegistryError as error:
                del under_way[slot]
                standing.failed(question, error)
                raise
            except asyncio.CancelledError:
                standing.gives_up(question)
                raise
            del under_way[slot]
            standing.answered(question, self._clock.monotonic() - began)
            if isinstance(answer, Source):
                answer.holds(slot)
                keeps = True  # until the stream is closed
            return standing, answer
        finally:
            if not keeps:
                standing.slots.give(slot)

    # Whose turn it is

    def _in_turn(
        self, question: Question, among: Sequence[EndpointState]
    ) -> tuple[list[EndpointState], list[EndpointState]]:
        """Whom to ask, in order, and who is not asked."""
        asked, repository = question.asked, question.repository
        turns = {one: one.turn(question) for one in among}
        candidates = [one for one in among if turns[one] is not Turn.NEVER]
        refused = [one for one in among if turns[one] is Turn.NEVER]
        if asked.is_content:
            explored = self._to_explore(question, candidates, turns)
            if explored is not None:
                turns[explored] = Turn.TRIAL
        cost = self._cost(asked, candidates)
        candidates.sort(  # stable: equals stay in the configuration's order
            key=lambda one: (
                turns[one],
                one.steps_back(repository),
                not one.slots.free(asked),
                cost(one),
            )
        )
        return candidates, refused

    def _to_try_early(
        self,
        question: Question,
        refused: Sequence[EndpointState],
        errors: Sequence[tuple[EndpointState, RegistryError]],
    ) -> list[EndpointState]:
        """Who may be asked before their time, when those whose turn it was have failed: their
        pauses have grown for the others' sake, and one ask in a while finds out soon that they are
        back."""
        told = [(one, one.refusal(question)) for one in refused]
        if not told or isinstance(_verdict([*errors, *told]), Unknown | Denied):
            return []
        return [one for one in refused if one.may_try_early(question)]

    def _cost(
        self, asked: Asked, among: Sequence[EndpointState]
    ) -> Callable[[EndpointState], float]:
        """The lower, the sooner asked. Who was never measured counts as the best that was."""
        if not asked.is_content:
            return lambda standing: 0.0
        if asked is Asked.MANIFEST:
            known = [mean for one in among if (mean := one.latency[asked].mean) is not None]
            least = min(known, default=0.0)

            def latency(standing: EndpointState) -> float:
                mean = standing.latency[asked].mean
                return least if mean is None else mean

            return latency
        most = max((one.speed.mean or 0.0 for one in among), default=0.0) or 1.0

        def seconds_a_byte(standing: EndpointState) -> float:
            return (standing.slots.blobs_held + 1) / (standing.speed.mean or most)

        return seconds_a_byte

    def _to_explore(
        self,
        question: Question,
        candidates: Sequence[EndpointState],
        turns: dict[EndpointState, Turn],
    ) -> EndpointState | None:
        asked, now = question.asked, self._clock.monotonic()
        if now < self._explore_at or len(candidates) < 2:
            return None
        usual = [
            one
            for one in candidates
            if turns[one] is Turn.USUAL and not one.steps_back(question.repository)
        ]
        oldest = min(usual, key=lambda one: one.latency[asked].measured_at, default=None)
        if oldest is None or now - oldest.latency[asked].measured_at < _MEASURED_FOR:
            return None
        self._explore_at = now + _EXPLORE_EVERY
        return oldest

    def _spare(self, asker: Asker, standing: EndpointState, question: Question) -> bool:
        """Whether it may be asked besides one that is late: not where pulls are scarce, nor one
        that is to be asked last, nor one that was so for nothing often."""
        is_free = standing.slots.free(question.asked) and standing.hedges(asker).has_left()
        return is_free and standing.turn(question) in (Turn.TRIAL, Turn.USUAL)

    def _usual_speed(self) -> float:
        """Bytes a second that the fastest has shown; 0 where none was measured."""
        return max((one.speed.mean or 0.0 for one in self._all), default=0.0)

    def _fastest_but(self, standing: EndpointState, question: Question) -> float:
        """What the best of the others has shown, of those that may be asked for a blob now."""
        return max(
            (
                one.speed.mean or 0.0
                for one in self._all
                if one is not standing and one.slots.free(Asked.BLOB) and one.is_well(question)
            ),
            default=0.0,
        )


async def _close(answer: object) -> None:
    """An answer that came too late: a blob's holds a connection."""
    if isinstance(answer, Source):
        await answer.close()


def _verdict(errors: Sequence[tuple[EndpointState, RegistryError]]) -> RegistryError:
    """Which of the members' errors is the pool's.

    That something does not exist, or may not be read, is final only from whoever must know it:
    the members trusted with tags, or all where there are none. An accelerator that lacks something
    says nothing of the registry; a registry that was not reached may still have it.
    """
    trusted = [error for standing, error in errors if standing.member.trust is Trust.TAGS]
    words = trusted or [error for _, error in errors]
    open_ends = [error for error in words if not isinstance(error, Unknown | Denied)]
    if open_ends:
        # Who answered wrong will do so again; who did not answer may be back soon.
        missed = [error for error in open_ends if isinstance(error, Unavailable)]
        return min(missed or open_ends, key=_patience)
    return next((error for error in words if isinstance(error, Unknown)), words[0])


def _patience(error: RegistryError) -> float:
    """The first that may have an end."""
    return 0.0 if not isinstance(error, Unavailable) else (error.retry_after or 0.0)
