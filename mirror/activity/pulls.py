"""Requests made into pulls: what one address asks of one repository within a short time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..clock import Clock
from ..contracts.activity import Pull, PullRequest
from ..contracts.registry import Outcome
from .news import Asked
from .shares import Shares
from .watching import is_upstream
from .words import image_name, summary

QUIET = 3.0
"""Seconds without a request after which a pull is over. Clients ask for layers by several at once;
between two of them they unpack nothing."""

_MOST = 1000  # pulls kept
_REQUESTS = 40  # of one pull
_ALL_REQUESTS = 16_000
_OPEN_OF_KEY = 16  # pulls of one repository by one address, that go on
_DIGESTS = 16  # by which one pull's manifests are known
_PIECES = 64  # whose number is counted

_BESIDE = 0.05  # seconds by which two processes may tell of two requests in the wrong order

_OF_PULLS = ("blob", "manifest", "tag")

_Key = tuple[str, str, str]  # address, registry, repository


@dataclass(eq=False, slots=True)
class _Pull:
    id: str
    key: _Key
    owner: str
    reference: str
    began_at: float
    ended_at: float
    heard: float
    is_open: bool = True
    agent: str = ""
    requests: list[PullRequest] = field(default_factory=list)
    more: int = 0
    bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    digests: set[str] = field(default_factory=set)
    pieces: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked_at: dict[str, float] = field(default_factory=dict)  # the tag, by method
    running: list[PullRequest] = field(default_factory=list)

    @property
    def pulls(self) -> int:
        """How many at once: as often as one whole piece was asked for."""
        return max(self.pieces.values(), default=1)

    def may_be(self, asked: Asked) -> bool:
        """Whether this tag is what it began with: another process has told of it later."""
        if self.reference and ":" not in self.reference:
            return False
        if asked.digest and (asked.digest in self.digests or not self.reference):
            return True
        return asked.request.at <= self.began_at + _BESIDE

    @property
    def weight(self) -> int:
        return len(self.requests) + 4  # what it takes without any


class Pulls:
    """The last pulls, and those that go on. `owner_of` says whose share an address' pulls are of;
    `ended` is called with each that is over, once."""

    def __init__(
        self,
        clock: Clock | None = None,
        owner_of: Callable[[str], str] = lambda address: address,
        ended: Callable[[Pull], object] = lambda _: None,
    ) -> None:
        self._now = (clock or Clock()).monotonic
        self._owner_of = owner_of
        self._ended = ended
        self.default_registry = ""
        self._kept: Shares[str, _Pull] = Shares(
            _MOST, _ALL_REQUESTS, lambda pull: pull.weight, self._dropped
        )
        self._open: dict[_Key, list[_Pull]] = {}
        self._last: dict[_Key, _Pull] = {}  # by which a late request is known
        self._count = 0
        self.number = 0
        """Grows when anything here has changed."""

    def hear(self, asked: Asked) -> None:
        """A request is over."""
        request = asked.request
        key = request.client, asked.registry, asked.repository
        if request.kind not in _OF_PULLS:
            found = next(iter(self._open.get(key, ())), None)  # beside a pull, or of no account
        else:
            found = self._of(key, asked) or self._begin(key, asked)
        if found is not None:
            self._add(found, asked)
            self.number += 1

    def running(self, asked: Iterable[Asked]) -> None:
        """These requests go on, and no others: they keep their pulls open."""
        for pulls in self._open.values():
            for pull in pulls:
                pull.running = []
        for one in asked:
            request = one.request
            if request.kind not in _OF_PULLS:
                continue
            key = request.client, one.registry, one.repository
            pull = self._of(key, one) or self._begin(key, one)
            pull.heard = self._now()
            pull.agent = pull.agent or request.agent
            if len(pull.running) < _REQUESTS:
                pull.running.append(request)
            self.number += 1

    def end_quiet(self) -> None:
        """Ends those of which nothing was heard for so long."""
        before = self._now() - QUIET
        for pulls in list(self._open.values()):
            for pull in [pull for pull in pulls if pull.heard <= before and not pull.running]:
                self._end(pull)

    def end_all(self) -> None:
        """The mirror stops."""
        for pulls in list(self._open.values()):
            for pull in list(pulls):
                self._end(pull)

    def newest(self, limit: int, like: str = "") -> Sequence[Pull]:
        """Those whose image, address or outcomes contain these words."""
        wanted = like.lower()
        found = []
        for pull in sorted(self._kept, key=lambda pull: pull.began_at, reverse=True):
            told = self._told(pull)
            texts = told.image, told.client, told.summary, told.registry
            if not wanted or any(wanted in text.lower() for text in texts):
                found.append(told)
                if len(found) >= limit:
                    break
        return found

    def with_request(self, request_id: str) -> Sequence[Pull]:
        return [
            self._told(pull)
            for pull in self._kept
            if any(one.request_id == request_id for one in (*pull.requests, *pull.running))
        ]

    def of_image(self, registry: str, repository: str, reference: str) -> Sequence[Pull]:
        """The newest first; with a digest, also of tags that pointed there."""
        found = [
            pull
            for pull in self._kept
            if pull.key[1:] == (registry, repository)
            and (reference == pull.reference or reference in pull.digests)
        ]
        return [self._told(pull) for pull in sorted(found, key=lambda one: -one.began_at)]

    def image_of(self, registry: str, repository: str) -> str:
        """What is pulled of this repository now; the repository, where that is not one image."""
        references = {
            pull.reference
            for key, pulls in self._open.items()
            if key[1:] == (registry, repository)
            for pull in pulls
        }
        reference = references.pop() if len(references) == 1 else ""
        return image_name(registry, repository, reference, self.default_registry)

    def _of(self, key: _Key, asked: Asked) -> _Pull | None:
        """The pull that goes on which this request is of."""
        request, pulls = asked.request, self._open.get(key, [])
        if request.kind == "tag":
            for pull in pulls:
                if pull.reference == request.reference:
                    before = pull.asked_at.get(request.method, request.at)
                    return pull if request.at - before <= QUIET or pull.running else None
            return next((pull for pull in pulls if pull.may_be(asked)), None)
        for pull in pulls:
            if request.reference in pull.digests:
                return pull
        return pulls[-1] if pulls else None

    def _begin(self, key: _Key, asked: Asked) -> _Pull:
        request, last = asked.request, self._last.get(key)
        reference = request.reference if request.kind != "blob" else ""
        if request.kind == "blob" and last is not None:
            reference = last.reference
        self._count += 1
        owner = self._owner_of(request.client)
        pull = _Pull(str(self._count), key, owner, reference, request.at, request.at, self._now())
        going_on = self._open.setdefault(key, [])
        going_on.append(pull)
        self._last[key] = pull
        self._kept.put(owner, pull.id, pull)
        while len(going_on) > _OPEN_OF_KEY:
            self._end(going_on[0])
        return pull

    def _add(self, pull: _Pull, asked: Asked) -> None:
        request = asked.request
        pull.heard = self._now()
        pull.began_at = min(pull.began_at, request.at)
        pull.ended_at = max(pull.ended_at, request.at + request.last_byte)
        pull.agent = pull.agent or request.agent
        pull.bytes += request.sent
        pull.outcomes[request.outcome] += request.count
        pull.failure = pull.failure or request.error
        if request.kind == "tag":
            pull.reference = request.reference
            pull.asked_at[request.method] = request.at
        if request.kind != "blob" and len(pull.digests) < _DIGESTS:
            pull.digests |= {asked.digest or request.reference}
        piece = request.kind, request.reference
        is_whole = request.status == 200 and request.method == "GET" and request.kind != "blob"
        if is_whole and (piece in pull.pieces or len(pull.pieces) < _PIECES):
            pull.pieces[piece] += request.count
        if len(pull.requests) < _REQUESTS:
            pull.requests.append(request)
            self._kept.grew(pull.owner, 1)
        else:
            pull.more += request.count

    def _end(self, pull: _Pull) -> None:
        self._close(pull)
        self.number += 1
        self._ended(self._told(pull))

    def _close(self, pull: _Pull) -> None:
        pull.is_open, pull.running = False, []
        going_on = self._open.get(pull.key, [])
        if pull in going_on:
            going_on.remove(pull)
        if not going_on:
            self._open.pop(pull.key, None)

    def _dropped(self, pull: _Pull) -> None:
        if pull.is_open:
            self._end(pull)
        if self._last.get(pull.key) is pull:
            del self._last[pull.key]

    def _told(self, pull: _Pull) -> Pull:
        client, registry, repository = pull.key
        requests = sorted((*pull.requests, *pull.running), key=lambda request: request.at)
        return Pull(
            pull.id,
            client,
            pull.agent,
            image_name(registry, repository, pull.reference, self.default_registry),
            registry,
            repository,
            pull.reference,
            pull.pulls,
            pull.began_at,
            None if pull.is_open else pull.ended_at,
            pull.ended_at - pull.began_at,
            pull.bytes,
            dict(pull.outcomes),
            summary(pull.outcomes) if pull.outcomes else "…",
            pull.failure,
            requests,
            pull.more,
        )


def is_without_upstream(pull: Pull) -> bool:
    """Whether all of it was answered, and no upstream asked for any."""
    return not any(is_upstream(outcome) for outcome in pull.outcomes)


def has_missed(pull: Pull) -> bool:
    """Whether a request of it was no hit."""
    return any(
        outcome not in (Outcome.HIT, Outcome.PREFETCHED, Outcome.REVALIDATED)
        for outcome in pull.outcomes
    )
