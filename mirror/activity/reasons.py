"""Why a request was no hit, and what it waited for: found in what happened while it ran."""

from __future__ import annotations

from cachetools import LRUCache

from ..clock import Clock
from ..contracts.events import (
    EndpointAnswered,
    FillEnded,
    FillQueued,
    FillStarted,
    RequestAnswered,
    TagChecked,
)
from ..contracts.registry import FETCHED, Outcome
from ..events import Events
from ..frozen import dataclass
from ..oci.reference import Repository
from ..quantities import lasted
from .words import printable

_MOST = 4096  # of each kind; what is needed is what happened a moment ago
_FRESH = 1.0  # seconds for which what was said just before a request began is its reason, too

_UPSTREAM = (*FETCHED, Outcome.REVALIDATED, Outcome.PASSED)


@dataclass(frozen=True, slots=True)
class Reason:
    """Of one request: see PullRequest."""

    why: str = ""
    endpoint: str = ""
    queued: float | None = None
    upstream: float | None = None
    speed: float | None = None


@dataclass(slots=True)
class FillTimes:
    """Of one fill; monotonic seconds. `waited`: in the queue, all in all."""

    began: float
    waiting_since: float | None
    waited: float = 0.0
    running_since: float | None = None
    ended: float | None = None
    ran: float = 0.0
    size: int = 0
    result: str = ""

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    def queued(self, now: float) -> float:
        since = self.waiting_since
        return self.waited + (0.0 if since is None else now - since)


_HIT = Reason()


class Reasons:
    """Listens for what requests may have waited for."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._now = clock.monotonic
        self._checks: LRUCache[tuple[str, str, str], tuple[float, TagChecked]] = LRUCache(_MOST)
        self._answers: LRUCache[tuple[str, str, str], tuple[float, str, float]] = LRUCache(_MOST)
        self._fills: LRUCache[tuple[str, str], FillTimes] = LRUCache(_MOST)
        events.listen(TagChecked, self._checked)
        events.listen(EndpointAnswered, self._answered)
        events.listen(FillQueued, self._queued)
        events.listen(FillStarted, self._started)
        events.listen(FillEnded, self._ended)

    def _checked(self, event: TagChecked) -> None:
        repository = event.repository
        self._checks[repository.registry, repository.name, event.tag] = self._now(), event

    def _answered(self, event: EndpointAnswered) -> None:
        what = event.what.removeprefix("part of ")
        key = event.registry, event.repository.name, what
        # A tag's HEAD and the GET of its manifest: what took longest is what was waited for.
        self._answers[key] = self._now(), event.endpoint, event.seconds

    def _queued(self, event: FillQueued) -> None:
        times, now = self._times(event.repository, str(event.digest)), self._now()
        if times.running_since is not None:
            times.ran += now - times.running_since
        times.waiting_since, times.running_since = now, None

    def _started(self, event: FillStarted) -> None:
        times, now = self._times(event.repository, str(event.digest)), self._now()
        times.waited, times.waiting_since = times.queued(now), None
        times.running_since = now

    def _ended(self, event: FillEnded) -> None:
        times, now = self._times(event.repository, str(event.digest)), self._now()
        if times.running_since is not None:
            times.ran += now - times.running_since
        times.waited, times.waiting_since, times.running_since = times.queued(now), None, None
        times.ended, times.size, times.result = now, event.size, event.result

    def _times(self, repository: Repository, digest: str) -> FillTimes:
        key = repository.registry, digest
        times = self._fills.get(key)
        if times is None or times.is_over:
            times = self._fills[key] = FillTimes(self._now(), None)
        return times

    def of_fill(self, registry: str, digest: str) -> FillTimes | None:
        return self._fills.get((registry, digest))

    def endpoint_of(self, registry: str, repository: str, what: str) -> str:
        found = self._answers.get((registry, repository, what))
        return found[1] if found is not None else ""

    def of(self, event: RequestAnswered) -> Reason:
        """Why this request, which has ended just now, met with what it did."""
        if event.outcome == Outcome.HIT:
            return _HIT
        since = self._now() - event.last_byte - _FRESH
        words = {
            "tag": self._of_tag,
            "blob": self._of_blob,
        }.get(event.kind, self._of_others)(event, since)
        if event.outcome not in _UPSTREAM:
            return Reason(words)
        endpoint, upstream = self._endpoint(event, since)
        if event.kind != "blob":
            return Reason(words, endpoint, upstream=upstream)
        times = self._fills.get((event.registry, event.reference))
        if times is None or event.outcome not in FETCHED:
            return Reason(words, endpoint, upstream=upstream)
        speed = times.size / times.ran if times.ran > 0 and times.size else None
        return Reason(words, endpoint, times.waited, upstream, speed)

    def _endpoint(self, event: RequestAnswered, since: float) -> tuple[str, float | None]:
        for what in (event.reference, event.digest):
            found = self._answers.get((event.registry, event.repository, what))
            if what and found is not None and found[0] >= since:
                return found[1], found[2]
        return "", None

    def _of_tag(self, event: RequestAnswered, since: float) -> str:
        found = self._checks.get((event.registry, event.repository, event.reference))
        check = found[1] if found is not None and found[0] >= since else None
        if check is None:
            if event.outcome == Outcome.STALE:
                return "older than its ttl: the upstream is asked behind the answer"
            return "its manifest was fetched" if event.outcome in FETCHED else ""
        took = lasted(check.took)
        if check.result == "failed":
            asked = f"asked upstream: {printable(check.reason)} ({took})"
        else:
            words = {
                "unchanged": "unchanged",
                "moved": "it has moved",
                "found": "found",
                "gone": "it is gone",
            }
            asked = f"asked upstream: {words[check.result]}, {took}"
        if check.age is None:
            return f"not known here, {asked}"
        over = lasted(max(0.0, check.age - check.ttl))
        return f"ttl {lasted(check.ttl)} over by {over}, {asked}"

    def _of_blob(self, event: RequestAnswered, since: float) -> str:
        if event.outcome == Outcome.PREFETCHED:
            return "fetched ahead of this request"
        if event.outcome == Outcome.JOINED:
            return "it was being fetched already"
        if event.outcome == Outcome.FILLED:
            times = self._fills.get((event.registry, event.reference))
            if times is not None and times.result == "followed":
                return "another process of the mirror was fetching it"
        return self._of_others(event, since)

    def _of_others(self, event: RequestAnswered, since: float) -> str:
        if event.outcome == Outcome.STALE:
            return "older than its ttl, and the upstream could not say"
        if event.outcome == Outcome.JOINED:
            return "it was being fetched already"
        if event.outcome == Outcome.PASSED:
            return "never kept: the upstream is asked each time"
        if event.outcome == Outcome.REDIRECTED:
            return "the client was sent to the object store (storage.s3.redirect)"
        return ""
