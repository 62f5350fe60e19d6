"""One process watches its own bus, and tells what it has seen since it was last asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..clock import Clock
from ..contracts.activity import Download, Happening, PullRequest
from ..contracts.events import (
    ConfigReloaded,
    ContentEvicted,
    ContentQuarantined,
    EndpointBanned,
    EndpointRecovered,
    EndpointTroubled,
    HitsAnswered,
    LoginJudged,
    QuotaPaused,
    RequestAnswered,
    TagMoved,
    UpstreamRead,
    WorkerReplaced,
)
from ..contracts.registry import Outcome
from ..events import Events
from ..quantities import binary_size, lasted
from .endpoints import EndpointBook
from .news import Asked, Counts, Evicted, News
from .reasons import Reasons
from .shares import Shares
from .steps import step_of
from .words import HITS, LEFT, printable

_REQUESTS = 1000  # that are told one by one, of one second; clients have equal shares
_HITS = 2000  # kinds of hits
_RUNNING = 512
_OF_OWNER = 32  # running requests of one client
_DOWNLOADS = 200
_HAPPENINGS = 50
_EVICTED = 1000

_TOLD = ("blob", "manifest", "tag", "referrers", "tags")


@dataclass(frozen=True, slots=True)
class Filling:
    """A download as the process that does it knows it. `here`: bytes that have come."""

    number: int
    registry: str
    repository: str
    digest: str
    is_queued: bool
    here: int
    size: int | None
    readers: int


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What is asked each second: requests that are not over, and downloads."""

    requests: Callable[[], Iterable[Asked]] = lambda: ()
    downloads: Callable[[], Iterable[Filling]] = lambda: ()


@dataclass(slots=True)
class _Hits:
    at: float
    count: int = 0
    took: float = 0.0
    sent: int = 0


_HitKey = tuple[str, str, str, str, str, int]


class Watch:
    """Listens; `news` is what there was since it was last called. `owner_of` says whose share an
    address' requests are of."""

    def __init__(
        self,
        events: Events,
        clock: Clock | None = None,
        owner_of: Callable[[str], str] = lambda address: address,
    ) -> None:
        self._clock = clock = clock or Clock()
        self._owner_of = owner_of
        self._reasons = Reasons(events, clock)
        self._endpoints = EndpointBook(events, clock)
        self._under_way = UnderWay()
        self._requests: Shares[int, Asked] = Shares(_REQUESTS, dropped=self._untell)
        self._number = 0
        self._hits: dict[_HitKey, dict[str, _Hits]] = {}  # and by client
        self._hits_kept = 0
        self._untold = 0
        self._first_bytes: Counter[int] = Counter()
        self._counted: Counter[str] = Counter()
        self._running_sent = 0
        self._happenings: dict[tuple[str, str], Happening] = {}
        self._evicted: list[Evicted] = []
        self._speeds: dict[int, tuple[float, int, float]] = {}
        events.listen(RequestAnswered, self._answered)
        events.listen(HitsAnswered, self._hit)
        events.listen(UpstreamRead, self._read)
        events.listen(ContentEvicted, self._evict)
        self._listen_for_happenings(events)

    def follow(self, under_way: UnderWay) -> None:
        """From now on this is asked for what is under way."""
        self._under_way = under_way

    # Requests.

    def _answered(self, event: RequestAnswered) -> None:
        self._first_bytes[step_of(event.first_byte)] += 1
        counted = self._counted
        counted["requests"] += 1
        counted["hits"] += event.outcome in HITS
        counted["sent"] += event.sent
        if event.kind not in _TOLD or not event.repository:
            return
        reason = self._reasons.of(event)
        is_left = event.status is None and event.left
        request = PullRequest(
            self._clock.wall() - event.last_byte,
            event.request_id,
            event.client,
            event.agent,
            event.method,
            event.kind,
            event.reference,
            LEFT if is_left else event.outcome,
            event.status,
            event.first_byte,
            event.last_byte,
            event.sent,
            1,
            reason.endpoint,
            reason.queued,
            reason.upstream,
            reason.speed,
            reason.why,
            printable(event.error),
            event.left,
        )
        self._number += 1
        self._requests.put(
            self._owner_of(event.client),
            self._number,
            Asked(event.registry, event.repository, request, event.digest),
        )

    def _hit(self, event: HitsAnswered) -> None:
        counted, count = self._counted, event.count
        counted["requests"] += count
        counted["hits"] += count
        counted["sent"] += event.sent
        self._first_bytes[step_of(event.took / count)] += count
        took, sent = event.took / count, event.sent // count
        for (repository, reference, _), (method, clients) in zip(
            event.named, event.by, strict=False
        ):
            key = event.registry, repository, event.kind, reference, method, event.status
            hits = self._hits.get(key)
            if hits is None:
                hits = self._hits[key] = {}
            for client, times in Counter(clients).items():
                found = hits.get(client)
                if found is None:
                    if self._hits_kept >= _HITS:
                        self._untold += times
                        continue
                    self._hits_kept += 1
                    found = hits[client] = _Hits(self._clock.wall())
                found.count += times
                found.took += took * times
                found.sent += sent * times

    def _told_hits(self) -> list[Asked]:
        hits, self._hits, self._hits_kept = self._hits, {}, 0
        return [
            Asked(
                registry,
                repository,
                PullRequest(
                    found.at,
                    "",
                    client,
                    "",
                    method,
                    kind,
                    reference,
                    Outcome.HIT.value,
                    status,
                    found.took / found.count,
                    found.took / found.count,
                    found.sent,
                    found.count,
                ),
            )
            for (registry, repository, kind, reference, method, status), clients in hits.items()
            for client, found in clients.items()
        ]

    def _untell(self, asked: Asked) -> None:
        self._untold += asked.request.count

    def _read(self, event: UpstreamRead) -> None:
        self._counted["fetched"] += event.count

    def _evict(self, event: ContentEvicted) -> None:
        self._counted["evicted"] += 1
        self._counted["evicted_bytes"] += event.size
        if len(self._evicted) < _EVICTED:
            self._evicted.append(Evicted(str(event.digest), self._clock.wall(), event.size))

    # Happenings.

    def _listen_for_happenings(self, events: Events) -> None:
        def tell(kind: str, level: str, subject: str, words: str) -> None:
            self.happened(kind, level, subject, words)

        def troubled(event: EndpointTroubled) -> None:
            of = f" for {event.repository}" if event.repository else ""
            words = f"{event.endpoint} is asked after others{of}: {event.reason}"
            tell("endpoint_stepped_back", "warning", event.endpoint, words)

        def recovered(event: EndpointRecovered) -> None:
            of = f" for {event.repository}" if event.repository else ""
            tell("endpoint_back", "info", event.endpoint, f"{event.endpoint} is well again{of}")

        def banned(event: EndpointBanned) -> None:
            of = event.repository or "all"
            words = f"{event.endpoint} sent what was not asked for ({of}): {event.reason}"
            tell("endpoint_banned", "error", event.endpoint, words)

        def judged(event: LoginJudged) -> None:
            login = f" {event.login}" if event.login else ""
            if event.refused:
                words = event.why or f"{event.endpoint} refuses the login{login}"
                tell("login_refused", "error", event.endpoint, words)
            elif (event.registry, event.endpoint, event.login) in self._refused:
                words = f"{event.endpoint} takes the login{login} again"
                tell("login_accepted", "info", event.endpoint, words)
            change = self._refused.add if event.refused else self._refused.discard
            change((event.registry, event.endpoint, event.login))

        def paused(event: QuotaPaused) -> None:
            if event.until > self._clock.wall():
                left = lasted(event.until - self._clock.wall())
                words = f"{event.endpoint} grants no more manifests; it is asked again in {left}"
                tell("quota_paused", "warning", event.endpoint, words)

        def moved(event: TagMoved) -> None:
            image = f"{event.repository}:{event.tag}"
            if event.before is not None:
                to = "is gone" if event.after is None else f"points to {event.after.hex[:12]} now"
                words = f"{image} {to}, and was {event.before.hex[:12]}"
                tell("tag_moved", "info", image, words)

        def reloaded(event: ConfigReloaded) -> None:
            level = "info" if event.result == "applied" else "error"
            words = f"the configuration was read again: {event.result}"
            mistakes = "; ".join(event.words)
            tell(f"config_{event.result}", level, "", f"{words}{': ' * bool(mistakes)}{mistakes}")

        def replaced(event: WorkerReplaced) -> None:
            tell("worker_replaced", "error", "", f"a worker {event.why}, and another takes over")

        def damaged(event: ContentQuarantined) -> None:
            words = f"{event.digest} was found damaged, and set aside: it is fetched anew"
            tell("content_damaged", "error", str(event.digest), words)

        self._refused: set[tuple[str, str, str]] = set()
        events.listen(EndpointTroubled, troubled)
        events.listen(EndpointRecovered, recovered)
        events.listen(EndpointBanned, banned)
        events.listen(LoginJudged, judged)
        events.listen(QuotaPaused, paused)
        events.listen(TagMoved, moved)
        events.listen(ConfigReloaded, reloaded)
        events.listen(WorkerReplaced, replaced)
        events.listen(ContentQuarantined, damaged)

    def happened(self, kind: str, level: str, subject: str, words: str) -> None:
        """Of the same, within one second, only the last is told, and how many there were."""
        key = kind, subject
        before = self._happenings.get(key)
        if before is None and len(self._happenings) >= _HAPPENINGS:
            return
        count = 1 if before is None else before.count + 1
        told = Happening(
            0, self._clock.wall(), kind, level, printable(subject), printable(words), count
        )
        self._happenings[key] = told

    # What is told.

    def news(self) -> News:
        running = list(self._under_way.requests())
        downloads = self._downloads()
        requests = self._requests.take() + self._told_hits()
        requests.sort(key=lambda asked: asked.request.at)
        happenings, self._happenings = self._happenings, {}
        evicted, self._evicted = self._evicted, []
        untold, self._untold = self._untold, 0
        if evicted or self._counted["evicted"]:
            count, size = self._counted["evicted"], self._counted["evicted_bytes"]
            told = Happening(
                0,
                self._clock.wall(),
                "evicted",
                "info",
                "",
                f"{count} pieces of content made room: {binary_size(size)}",
                count,
            )
            happenings["evicted", ""] = told
        return News(
            self._counts(sum(asked.request.sent for asked in running)),
            requests,
            self._some(running),
            len(running),
            downloads[:_DOWNLOADS],
            sum(one.state == "running" for one in downloads),
            sum(one.state == "queued" for one in downloads),
            list(happenings.values()),
            self._endpoints.states(),
            evicted,
            untold,
        )

    def _counts(self, running_sent: int) -> Counts:
        counted, self._counted = self._counted, Counter()
        steps, self._first_bytes = self._first_bytes, Counter()
        # What is sent of requests that go on was not counted yet, and what was is not again.
        served = counted["sent"] + running_sent - self._running_sent
        self._running_sent = running_sent
        return Counts(
            counted["requests"],
            counted["hits"],
            max(0, served),
            counted["fetched"],
            counted["evicted"],
            counted["evicted_bytes"],
            dict(steps),
        )

    def _some(self, running: Sequence[Asked]) -> Sequence[Asked]:
        of: Counter[str] = Counter()
        found: list[Asked] = []
        for asked in running:
            owner = self._owner_of(asked.request.client)
            of[owner] += 1
            if of[owner] <= _OF_OWNER and len(found) < _RUNNING and asked.repository:
                found.append(asked)
        return found

    def _downloads(self) -> Sequence[Download]:
        now, wall, before = self._clock.monotonic(), self._clock.wall(), self._speeds
        self._speeds = {}
        found = []
        for one in self._under_way.downloads():
            times = self._reasons.of_fill(one.registry, one.digest)
            since, here, speed = before.get(one.number, (now, one.here, 0.0))
            if now > since:
                speed += ((one.here - here) / (now - since) - speed) * (0.5 if speed else 1.0)
            self._speeds[one.number] = now, one.here, speed
            endpoint = self._reasons.endpoint_of(one.registry, one.repository, one.digest)
            found.append(
                Download(
                    str(one.number),
                    "",
                    one.registry,
                    one.repository,
                    one.digest,
                    "queued" if one.is_queued else "running",
                    one.here,
                    one.size,
                    max(0.0, speed),
                    one.readers,
                    wall if times is None else wall - (now - times.began),
                    0.0 if times is None else times.queued(now),
                    [endpoint] if endpoint else [],
                )
            )
        return found


def is_upstream(outcome: str) -> bool:
    """Whether an upstream was asked for it, or may have been, as of what failed."""
    return outcome not in (Outcome.HIT, Outcome.STALE, LEFT)
