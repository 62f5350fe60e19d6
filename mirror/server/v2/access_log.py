"""One line a request, and one count: what was asked, what became of it, how long it took."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ...clock import Clock
from ...contracts.context import RequestContext
from ...contracts.events import HitsAnswered, RequestAnswered
from ...contracts.registry import Outcome
from ...contracts.tracing import Span
from ...events import Events
from .target import TargetKind

_EVERY = 0.01  # seconds between two flushes, which cost as much as 20 hits
_AT_ONCE = 0.0002  # seconds: hits that took no longer are told together, at the next flush
_IN_ONE = 0.001  # seconds: those of one turn that took no longer, at once

_quoted = json.encoder.encode_basestring_ascii  # as json.dumps does, at a tenth of what that costs

_EVENT = ', "event": "request", "level": "info", "timestamp": "'

_HITS = (Outcome.HIT, Outcome.PREFETCHED, Outcome.REVALIDATED)

_PRODUCT = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~/-]{1,64}", re.ASCII)


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer, as they are told afterwards.

    Words of the request come in here only once they were found to be of the protocol's grammar, so
    that nothing hostile and no secret is ever written down. Times are monotonic, in seconds.
    """

    context: RequestContext
    method: str
    client: str
    agent: str
    arrived: float
    kind: TargetKind = TargetKind.OTHER
    registry: str = ""
    repository: str = ""
    reference: str = ""
    outcome: Outcome = Outcome.FAILED
    status: int | None = None
    """None: the client left before it was answered."""
    first_byte: float | None = None
    due: int | None = None
    """Bytes of the body; None: not known."""
    sent: int = 0
    sending: Callable[[], int] | None = None
    """How many bytes more have left by now, while a part of it is sent."""
    digest: str = ""
    """What the tag points to that was asked for."""
    age: float | None = None
    """Seconds for which nobody has confirmed that."""
    error: str = ""
    """Why it failed, for the log; the client was told what suits it."""
    left: bool = False
    """The client hung up before the end: no failure of anybody's."""
    span: Span | None = None
    """None: it is not traced."""

    @property
    def sent_by_now(self) -> int:
        return self.sent + (0 if self.sending is None else self.sending())

    @property
    def is_whole(self) -> bool:
        """Whether the client was sent all of it: that it closes then is its right."""
        return self.status is not None and self.sent == self.due


def product(agent: str) -> str:
    """The first product of a User-Agent, which is all that is of use: the rest can be anything.

    >>> product("docker/28.5.0 go/go1.24 os/linux UpstreamClient(Docker-Client/28.5.0)")
    'docker/28.5.0'
    """
    match = _PRODUCT.match(agent)
    return match.group() if match else ""


def written(**words: object) -> str:
    """These words as members of a JSON object, those that say nothing left out.

    >>> written(registry="docker.io", repository="", left=False)
    ', "registry": "docker.io"'
    """
    return "".join(
        f', "{name}": {_quoted(word) if isinstance(word, str) else json.dumps(word)}'
        for name, word in words.items()
        if word
    )


class Hit:
    """What is the same each time that this is hit, and what its line has of it: before, between and
    after what is not. `sent`: bytes of the body. And what was hit since the log's last flush: how
    long that `took` together, and by which client each time."""

    __slots__ = (
        "after",
        "before",
        "between",
        "clients",
        "kind",
        "kind_of_event",
        "method",
        "reference",
        "registry",
        "repository",
        "sent",
        "status",
        "took",
    )

    def __init__(
        self,
        method: str,
        kind: str,
        registry: str,
        repository: str,
        reference: str,
        status: int,
        sent: int,
    ) -> None:
        self.method, self.kind = method, kind
        self.registry, self.repository, self.reference = registry, repository, reference
        self.status, self.sent = status, sent
        words = written(registry=registry, repository=repository, reference=reference)
        self.before = f'{{"method": "{method}", "kind": "{kind}", "client": "'
        self.between = f'", "bytes": {sent}, "first_byte": '
        self.after = f', "status": {status}, "outcome": "hit"{words}'
        self.kind_of_event = kind, registry, status
        self.took, self.clients = 0.0, list[str]()


class _Together:
    """What is told as one event."""

    __slots__ = ("by", "count", "named", "sent", "took")

    def __init__(self) -> None:
        self.count, self.took, self.sent = 0, 0.0, 0
        self.named: list[tuple[str, str, int]] = []
        self.by: list[tuple[str, Sequence[str]]] = []

    def add(self, hit: Hit, clients: Sequence[str], took: float) -> None:
        count = len(clients)
        self.count += count
        self.took += took
        self.sent += hit.sent * count
        if hit.reference:
            self.named.append((hit.repository, hit.reference, count))
            self.by.append((hit.method, clients))


class AccessLog:
    """Writes requests, each once, when it is over, and emits them as events.

    The lines have the shape of all other lines of the log. They are made here rather than by its
    processors (35 µs a line there, 3 here), and leave together, at the end of the loop's present
    round, or 10 ms after those before them: `write` is given one or several, without the last one's
    end of line. Who stops flushes the rest.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        events: Events,
        clock: Clock | None = None,
    ) -> None:
        self._write = write
        self._events = events
        self._clock = clock or Clock()
        self._running: set[Exchange] = set()
        self._writes_hits = self._writes_misses = True
        self._is_due = False  # a flush is
        self._lines: list[str] = []
        self._hits: list[Hit] = []  # that have clients
        self._next_second, self._stamp = 0, ""
        self._next_flush = 0.0  # on the loop's clock

    def tell(self, *, hits: bool, misses: bool) -> None:
        """From now on lines are written of these; events are emitted of all."""
        self._writes_hits, self._writes_misses = hits, misses

    @property
    def running(self) -> Collection[Exchange]:
        """Requests that are not over."""
        return self._running

    def begin(self, exchange: Exchange) -> None:
        self._running.add(exchange)

    def note(self, exchange: Exchange) -> None:
        self._running.discard(exchange)
        ended = self._clock.monotonic()
        last = ended - exchange.arrived
        first = last if exchange.first_byte is None else exchange.first_byte - exchange.arrived
        agent = product(exchange.agent)
        kind, status, outcome = exchange.kind.value, exchange.status, exchange.outcome.value
        words = written(
            request_id=exchange.context.request_id,
            trace_id=exchange.span.trace_id if exchange.span else "",
            status=status,
            outcome=outcome if status is not None else "",
            registry=exchange.registry,
            repository=exchange.repository,
            reference=exchange.reference,
            agent=agent,
            error=exchange.error,
            left=exchange.left,
        )
        now = self._clock.wall()
        if not self._next_second - 1 <= now < self._next_second:
            self._new_second(now)
        is_hit = exchange.outcome in _HITS
        if self._writes_hits if is_hit else self._writes_misses:
            self._write_line(exchange, first, last, words, now)
        self._events.emit(
            RequestAnswered(
                kind,
                exchange.registry,
                exchange.repository,
                exchange.reference,
                outcome,
                status,
                exchange.client,
                exchange.sent,
                first,
                last,
                exchange.method,
                exchange.context.request_id,
                agent,
                exchange.digest,
                exchange.age,
                exchange.error,
                exchange.left,
            )
        )

    def _write_line(
        self, exchange: Exchange, first: float, last: float, words: str, now: float
    ) -> None:
        self._flush_soon()
        self._lines.append(
            f'{{"method": "{exchange.method}", "kind": "{exchange.kind.value}", '
            f'"client": "{exchange.client}", "bytes": {exchange.sent}, '
            f'"first_byte": {first:.6f}, "last_byte": {last:.6f}{words}'
            f'{_EVENT}{self._stamp}{int(now * 1e6) % 1_000_000:06d}Z"}}'
        )

    def _flush_soon(self) -> None:
        if self._is_due:
            return
        self._is_due = True
        loop = asyncio.get_running_loop()
        loop.call_at(max(loop.time(), self._next_flush), self.flush)

    def note_hits(
        self, hit: Hit, clients: Sequence[str], took: float, words: str, now: float
    ) -> None:
        """Hits of these clients, each answered `now`, within `took` seconds, in one piece. `words`
        are about the clients (see `written`)."""
        if not self._next_second - 1 <= now < self._next_second:
            self._new_second(now)
        self._flush_soon()
        if self._writes_hits:
            seconds = f"{took:.6f}"
            after = (
                f'{hit.between}{seconds}, "last_byte": {seconds}{hit.after}{words}'
                f'{_EVENT}{self._stamp}{int(now * 1e6) % 1_000_000:06d}Z"}}'
            )
            self._lines.append(hit.before + f"{after}\n{hit.before}".join(clients) + after)
        if took > _IN_ONE:
            for client in clients:
                self._events.emit(
                    RequestAnswered(
                        hit.kind,
                        hit.registry,
                        hit.repository,
                        hit.reference,
                        Outcome.HIT.value,
                        hit.status,
                        client,
                        hit.sent,
                        took,
                        took,
                        hit.method,
                    )
                )
            return
        if took > _AT_ONCE:
            together = _Together()
            together.add(hit, clients, took * len(clients))
            self._emit_together(hit.kind_of_event, together, _IN_ONE)
            return
        # What can be is left to the flush.
        if not hit.clients:
            self._hits.append(hit)
        hit.clients += clients
        hit.took += took * len(clients)

    def _new_second(self, now: float) -> None:
        self._stamp = time.strftime("%FT%T.", time.gmtime(now))
        self._next_second = int(now) + 1

    def flush(self) -> None:
        """Counts and writes what has gathered. Raises what `write` does; those lines are lost."""
        self._is_due = False
        self._next_flush = asyncio.get_running_loop().time() + _EVERY
        lines, self._lines = self._lines, []
        if self._hits:
            self._tell_hits()
        if lines:
            self._write("\n".join(lines))

    def _tell_hits(self) -> None:
        hits, self._hits = self._hits, []
        events: dict[tuple[str, str, int], _Together] = {}
        for hit in hits:
            event = events.get(hit.kind_of_event)
            if event is None:
                event = events[hit.kind_of_event] = _Together()
            clients, hit.clients = hit.clients, []
            event.add(hit, clients, hit.took)
            hit.took = 0.0
        for kind_of_event, event in events.items():
            self._emit_together(kind_of_event, event, _AT_ONCE)

    def _emit_together(
        self, kind_of_event: tuple[str, str, int], event: _Together, within: float
    ) -> None:
        kind, registry, status = kind_of_event
        self._events.emit(
            HitsAnswered(
                kind,
                registry,
                status,
                event.count,
                event.took,
                event.sent,
                event.named,
                event.by,
                within,
            )
        )
