"""One question put to the endpoints of a pool, until one of them answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from ...asking.retry_policy import NEVER, RetryPolicy, retrying
from ...clock import Clock
from ...contracts.context import Asker
from ...contracts.events import UpstreamHedged
from ...events import Events
from ...frozen import dataclass
from ...oci.errors import Denied, RateLimited, RegistryError, Unknown
from ...times import TROUBLE
from .connections import Slot
from .endpoint_state import EndpointState, Priority
from .hedge import NobodyAnswered, Race
from .order import Order, to_try_early
from .question import Asked, Question
from .source import Source
from .verdict import verdict

T = TypeVar("T")

# A 429 that may be over soon is waited out. A blob's download has a policy of its own.
_LIMITED = RetryPolicy(pause=1.0, longest_pause=1.0, within=TROUBLE.limited)


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """`ask` puts the question to one endpoint, for the asker's sake; `endpoints` are those whose
    answer counts."""

    asker: Asker
    question: Question
    ask: Callable[[EndpointState], Awaitable[T]]
    endpoints: Sequence[EndpointState]


class _Asks(Generic[T]):
    """What has become of the asks of one query: `errors` of those that failed, and the asks that
    are `under_way`, each with its endpoint and when it began: in the end those whose answer was
    not waited for."""

    def __init__(self) -> None:
        self.errors: list[tuple[EndpointState, RegistryError]] = []
        self.under_way: dict[Slot, tuple[EndpointState, float]] = {}


class Dispatcher:
    """Puts queries to endpoints, the best first, the next when one is late or has failed, each
    within the connections that its host bears, and tells each endpoint's state how it went.
    `sleep` is a parameter for the sake of tests."""

    def __init__(
        self, clock: Clock, events: Events, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._clock = clock
        self._events = events
        self._sleep = sleep
        self._order = Order(clock)

    async def answer(self, query: Query[T]) -> T:
        """The first answer. A limit (429) that may soon be over is waited out."""
        policy = NEVER if query.question.asked is Asked.BLOB else _LIMITED
        return await retrying(query.asker, lambda: self._first_answer(query), {RateLimited: policy})

    async def instead(
        self, query: Query[T], late: EndpointState, answer: Awaitable[T], within: float
    ) -> tuple[EndpointState, T]:
        """The first answer, and the endpoint that gave it, of `answer`, for which the endpoint
        `late` is waited for already, and of the other endpoints, which are asked beside it; then
        of that endpoint, asked once more. Raises TimeoutError when there is none `within` so many
        seconds, and the verdict on all errors when all have failed."""

        async def waited_for() -> tuple[EndpointState, T]:
            return late, await answer

        others = [one for one in query.endpoints if one is not late]
        candidates, _ = self._order.of(query.question, others)
        race, asks = self._race(query)
        try:
            async with asyncio.timeout(within):
                won, hedges = await race.run(candidates, (late, waited_for()))
        except NobodyAnswered:
            raise verdict(asks.errors) from None
        self._count(query.asker, hedges)
        return won

    async def _first_answer(self, query: Query[T]) -> T:
        question = query.question
        candidates, refused = self._order.of(question, query.endpoints)
        race, asks = self._race(query)
        try:
            (_, answer), hedges = await race.run(candidates)
        except NobodyAnswered:
            early = to_try_early(question, refused, asks.errors)
            race = replace(race, spare=lambda endpoint: endpoint.slots.free(question.asked))
            try:
                (_, answer), hedges = await race.run(early)
            except NobodyAnswered:
                not_asked = [(one, one.refusal(question)) for one in refused if one not in early]
                raise verdict([*asks.errors, *not_asked]) from None
        self._count(query.asker, hedges)
        for endpoint, began in asks.under_way.values():
            endpoint.not_waited_for(question, self._clock.monotonic() - began)
        if question.asked.is_content:
            for endpoint, error in asks.errors:
                if isinstance(error, Unknown | Denied):
                    endpoint.lacks(question, error)
        return answer

    def _race(
        self, query: Query[T]
    ) -> tuple[Race[EndpointState, tuple[EndpointState, T]], _Asks[T]]:
        asker, question = query.asker, query.question
        asks: _Asks[T] = _Asks()
        race: Race[EndpointState, tuple[EndpointState, T]] = Race(
            ask=lambda endpoint: self._ask(query, endpoint, asks),
            late=lambda endpoint: endpoint.late(question.asked),
            spare=lambda endpoint: _is_spare(asker, endpoint, question),
            hedged=lambda endpoint: endpoint.hedges(asker).take(),
            failed=lambda endpoint, error: asks.errors.append((endpoint, error)),
            discard=lambda answer: _close(answer[1]),
            sleep=self._sleep,
        )
        return race, asks

    def _count(self, asker: Asker, hedges: Sequence[tuple[EndpointState, bool]]) -> None:
        for endpoint, won in hedges:
            member = endpoint.member
            self._events.emit(UpstreamHedged(member.registry, member.name, won))
            if won:
                endpoint.hedges(asker).give_back()

    async def _ask(
        self, query: Query[T], endpoint: EndpointState, asks: _Asks[T]
    ) -> tuple[EndpointState, T]:
        """One endpoint's answer, over one of its connections. Where the answer comes late, and the
        connection is another client's turn, the endpoint is asked again when it is this one's."""
        vain_turns = 0
        while True:
            slot = await endpoint.slots.take(query.asker, query.question.asked, vain_turns)
            try:
                async with slot.turn() as turn:
                    return endpoint, await self._ask_over(slot, query, endpoint, asks)
            except TimeoutError:
                if not turn.expired():
                    raise
            asks.under_way.pop(slot, None)
            vain_turns += 1

    async def _ask_over(
        self, slot: Slot, query: Query[T], endpoint: EndpointState, asks: _Asks[T]
    ) -> T:
        """As `_ask`, over this connection, which is given back unless a stream keeps it."""
        question, keeps = query.question, False
        try:
            await endpoint.probe()
            endpoint.begins(question)
            began = self._clock.monotonic()
            asks.under_way[slot] = endpoint, began
            try:
                answer = await query.ask(endpoint)
            except RegistryError as error:
                del asks.under_way[slot]
                endpoint.failed(question, error)
                raise
            except asyncio.CancelledError:
                endpoint.gives_up(question)
                raise
            del asks.under_way[slot]
            endpoint.answered(question, self._clock.monotonic() - began)
            if isinstance(answer, Source):
                answer.holds(slot)
                keeps = True  # until the stream is closed
            return answer
        finally:
            if not keeps:
                endpoint.slots.give(slot)


def _is_spare(asker: Asker, endpoint: EndpointState, question: Question) -> bool:
    """Whether an endpoint may be asked besides one that is late: one that has a connection free,
    is not short of pulls nor to be asked last, and was not asked so by this client for nothing
    often."""
    is_free = endpoint.slots.free(question.asked) and endpoint.hedges(asker).has_left()
    return is_free and endpoint.priority(question) in (Priority.TRIAL, Priority.USUAL)


async def _close(answer: object) -> None:
    """Closes an answer that came too late: a blob's holds a connection."""
    if isinstance(answer, Source):
        await answer.close()
