"""What all processes of the mirror have seen, in one place."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from ..clock import Clock
from ..contracts.activity import (
    Client,
    Download,
    EndpointState,
    Happening,
    Pull,
    Rates,
    SlowAnswer,
    Top,
)
from ..quantities import lasted
from .counts import History
from .endpoints import Configured, together
from .news import Asked, News
from .pulls import Pulls, is_without_upstream
from .words import image_name

T = TypeVar("T")

_HAPPENINGS = 500
_OF_KIND = 100  # happenings of one kind
_SAME = 60.0  # seconds within which the same that happens again is one line
_EVICTED = 50_000  # pieces whose eviction is remembered
_SPANS = 10  # minutes that clients and slow answers are told of
_CLIENTS = 2000  # of one minute
_SLOW = 50  # of one minute
_SHOWN = 20
_DOWNLOADS = 200

_MISSES = ("filled", "joined")


class Board:
    """Hears what each process tells. `ended` is called with each pull that is over."""

    def __init__(
        self,
        clock: Clock | None = None,
        owner_of: Callable[[str], str] = lambda address: address,
        ended: Callable[[Pull], object] = lambda _: None,
    ) -> None:
        self._clock = clock = clock or Clock()
        self._told_end = ended
        self.history = History(clock)
        self.pulls = Pulls(clock, owner_of, self._pull_ended)
        self._news: dict[int, News] = {}
        self._happenings: deque[Happening] = deque()
        self._evicted: OrderedDict[str, float] = OrderedDict()
        self._clients: deque[tuple[float, dict[str, Counter[str]]]] = deque(maxlen=_SPANS)
        self._slow: deque[tuple[float, list[SlowAnswer]]] = deque(maxlen=_SPANS)
        self._happened = 0
        self._number = 0
        self._changed = asyncio.Event()

    @property
    def default_registry(self) -> str:
        return self.pulls.default_registry

    def follow(self, default_registry: str) -> None:
        """Images of this registry are written without its name."""
        self.pulls.default_registry = default_registry

    # What is heard.

    def hear(self, pid: int, news: News) -> None:
        """What this process has seen in the last second."""
        self._news[pid] = replace(news, requests=(), happenings=(), evicted=())
        self.history.add(news.counts)
        for gone in news.evicted:
            self._evicted[gone.digest] = gone.at
            self._evicted.move_to_end(gone.digest)
        while len(self._evicted) > _EVICTED:
            self._evicted.popitem(last=False)
        for asked in news.requests:
            known = self._with_why(asked)
            self.pulls.hear(known)
            self._count(known)
        self.pulls.running(one for each in self._news.values() for one in each.running)
        self.pulls.end_quiet()
        for happening in news.happenings:
            self._happen(happening)
        self._tell()

    def forget(self, pid: int) -> None:
        """This process has ended: nothing of it is under way."""
        if self._news.pop(pid, None) is not None:
            self.pulls.running(one for each in self._news.values() for one in each.running)
            self._tell()

    def end(self) -> None:
        """The mirror stops."""
        self.pulls.end_all()

    def _tell(self) -> None:
        self._number += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _with_why(self, asked: Asked) -> Asked:
        request = asked.request
        if request.outcome != "filled" or request.why:
            return asked
        return replace(asked, request=replace(request, why=self.why_missing(request.reference)))

    def why_missing(self, digest: str) -> str:
        at = self._evicted.get(digest)
        if at is None:
            return "not here before"
        return f"evicted {lasted(max(0.0, self._clock.wall() - at))} ago (room)"

    def _count(self, asked: Asked) -> None:
        request, minute = asked.request, self._clock.wall() // 60
        if not self._clients or self._clients[-1][0] != minute:
            self._clients.append((minute, {}))
            self._slow.append((minute, []))
        clients, slow = self._clients[-1][1], self._slow[-1][1]
        counted = clients.get(request.client)
        if counted is None and len(clients) < _CLIENTS:
            counted = clients[request.client] = Counter()
        if counted is not None:
            counted["requests"] += request.count
            counted["misses"] += request.count if request.outcome in _MISSES else 0
            counted["bytes"] += request.sent
        if request.status is not None:
            image = image_name(
                asked.registry, asked.repository, _reference(asked), self.default_registry
            )
            slow.append(SlowAnswer(image, request))
            if len(slow) > 2 * _SLOW:
                slow.sort(key=_slowness)
                del slow[_SLOW:]

    def _happen(self, happening: Happening) -> None:
        for number, before in enumerate(self._happenings):
            same = (before.kind, before.subject) == (happening.kind, happening.subject)
            if same and happening.at - before.at <= _SAME:
                del self._happenings[number]
                happening = replace(happening, count=before.count + happening.count)
                break
        self._happened += 1
        if happening.kind == "evicted":
            words = f"{happening.count} pieces of content made room"
            happening = replace(happening, words=words)
        self._happenings.appendleft(replace(happening, number=self._happened))
        of_kind = [one for one in self._happenings if one.kind == happening.kind]
        if len(of_kind) > _OF_KIND:
            self._happenings.remove(of_kind[-1])
        while len(self._happenings) > _HAPPENINGS:
            self._happenings.pop()

    def _pull_ended(self, pull: Pull) -> None:
        self.history.pull(pull.pulls, without_upstream=is_without_upstream(pull))
        self._told_end(pull)

    # What is told.

    def happenings(self, limit: int) -> Sequence[Happening]:
        return list(self._happenings)[:limit]

    def endpoints(self, configured: Iterable[Configured]) -> Sequence[EndpointState]:
        return together(configured, [news.endpoints for news in self._news.values()])

    def downloads(self) -> Sequence[Download]:
        """One of each content: where two processes have the same, the other follows."""
        found: dict[tuple[str, str], Download] = {}
        for pid, news in self._news.items():
            for one in news.downloads:
                image = self.pulls.image_of(one.registry, one.repository)
                told = replace(one, id=f"{pid}-{one.id}", image=image)
                other = found.get((one.registry, one.digest))
                if other is not None:
                    readers = other.readers + one.readers
                    told = replace(max(other, told, key=lambda each: each.speed), readers=readers)
                found[one.registry, one.digest] = told
        order = sorted(found.values(), key=lambda one: (one.state == "queued", one.started_at))
        return order[:_DOWNLOADS]

    def rates(self) -> Rates:
        news = self._news.values()
        return Rates(
            *self.history.rates(),
            sum(one.requests_running for one in news),
            sum(one.downloads_running for one in news),
            sum(one.downloads_queued for one in news),
        )

    def busiest(self) -> Sequence[Client]:
        together: dict[str, Counter[str]] = {}
        for _, clients in self._late(self._clients):
            for client, counted in clients.items():
                together.setdefault(client, Counter()).update(counted)
        found = [
            Client(client, counted["requests"], counted["misses"], counted["bytes"])
            for client, counted in together.items()
        ]
        return sorted(found, key=lambda one: (one.bytes, one.requests), reverse=True)[:_SHOWN]

    def slowest(self) -> Sequence[SlowAnswer]:
        found = [answer for _, slow in self._late(self._slow) for answer in slow]
        return sorted(found, key=_slowness)[:_SHOWN]

    def _late(self, spans: Iterable[tuple[float, T]]) -> list[tuple[float, T]]:
        first = self._clock.wall() // 60 - _SPANS
        return [span for span in spans if span[0] > first]

    def top(self) -> Top:
        return Top(
            self._clock.wall(),
            self.rates(),
            self.downloads(),
            self.slowest(),
            self.busiest(),
            self.pulls.newest(_SHOWN),
        )

    async def changed(self, than: int, within: float) -> int:
        if self._number == than:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._changed.wait()
        return self._number


def _slowness(answer: SlowAnswer) -> float:
    return -answer.request.first_byte


def _reference(asked: Asked) -> str:
    return asked.request.reference if asked.request.kind == "tag" else ""
