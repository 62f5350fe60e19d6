"""What a pool knows of one endpoint by now: its health, its speed, and how it may be asked."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import structlog
from cachetools import LRUCache

from ...asking.budgets import Budget, Budgets
from ...asking.single_flight import NoTurn
from ...clock import Clock
from ...contracts.bulletins import Bulletin, Bulletins, Words
from ...contracts.context import Asker
from ...contracts.events import BreakerSwitched, EndpointAnswered
from ...contracts.upstream import Upstream
from ...events import Events
from ...frozen import dataclass
from ...oci.errors import Denied, RateLimited, RegistryError, Unavailable, Unknown, Untrustworthy
from ...oci.reference import Repository
from ...times import HEDGES
from ..endpoint import CONNECTIONS, Trust
from ..failures import Exhausted, NoToken, QuotaSpent, Unfit, Unreachable
from .breaker import PAUSES, Breaker, BreakerState, Trouble
from .connections import Slots
from .health import HealthCheck, Ping
from .question import Asked, Question
from .speed import Latency, Speed
from .told import Told
from .troubles import Troubles

_log = structlog.get_logger()

_STEP_BACK = 15.0  # seconds for which an endpoint is asked after the others, once it has failed
_LONGEST_STEP_BACK = 3600.0
_REPOSITORIES = 1024  # for each, until when the endpoint steps back
_QUESTIONS = 1024  # that failed, and are remembered
# Repositories that were refused, none answered in between: then the limit is on all that we ask.
_AGREE_ON_LIMITS = 2
_AGREE_ON_LIES = 3  # repositories of which the endpoint has sent something else

# A client's asks beside late ones that were of no use: so many at once, and more a second. Where an
# endpoint gives all that it has, more connections only share that, and cost requests.
_HEDGES = 8.0
_HEDGES_REFILL = 0.1

_REASON = 300  # characters that other nodes are told
_LONGEST_BAN = 86400.0  # seconds, of those that others tell


class Priority(IntEnum):
    """When an endpoint is asked, beside others: the least first."""

    TRIAL = 0  # a breaker is half open: the other endpoints can still answer when this one cannot
    USUAL = 1
    SPARED = 2  # little is left of the manifests that it grants
    LAST = 3  # when no other endpoint has answered
    NEVER = 4


@dataclass(frozen=True, slots=True)
class _Ban:
    until: float  # seconds since the epoch
    reason: str


async def _no_ping() -> None:
    """Of an endpoint that cannot be asked whether it is there: it is taken to be."""


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of a pool. `name` and `registry`, whose content it has, are for messages and
    metrics. `slots` are those of its host, where other endpoints are there too. `ping` asks whether
    it is there."""

    name: str
    upstream: Upstream
    trust: Trust
    connections: int = CONNECTIONS
    slots: Slots | None = None
    ping: Ping = _no_ping
    registry: str = ""


class EndpointState:
    """One member of a pool, and all that was learnt about it.

    Clients choose what is asked for. So what they can cause is held against the very question, or
    against its repository. Against the endpoint itself speaks that it cannot be reached, that it
    does not answer a question of the mirror's own (see HealthCheck), and what several repositories
    have met one after the other: limits, and lies.
    """

    def __init__(self, member: Member, clock: Clock, events: Events) -> None:
        self.member = member
        self.slots = member.slots or Slots(member.name, member.connections)
        self.speed = Speed()
        self.latency = {asked: Latency() for asked in Asked}
        self._hedges = Budgets(_HEDGES, _HEDGES_REFILL, clock)
        self._clock = clock
        self._events = events
        self._health = HealthCheck(member.ping, clock, self._health_changed)
        self._faults: Troubles[Question] = Troubles(PAUSES[Trouble.FAULT], most=_QUESTIONS)
        self._limited: dict[Asked, Troubles[Repository]] = {
            asked: Troubles(PAUSES[Trouble.LIMITED], agree=_AGREE_ON_LIMITS) for asked in Asked
        }
        self._wrong: Troubles[Repository] = Troubles(PAUSES[Trouble.WRONG], agree=_AGREE_ON_LIES)
        self._missing: Troubles[Repository] = Troubles(PAUSES[Trouble.MISSING])
        self._told = Told(member.registry, member.name, clock, events, self.__repr__)
        self._back: LRUCache[Repository, float] = LRUCache(_REPOSITORIES)
        self._back_with_all = 0.0
        self._elsewhere: Bulletin | None = None
        self._bans: dict[str, _Ban] = {}  # that all nodes have

    def share(self, elsewhere: Bulletins, subject: str) -> None:
        """From now on other nodes are told what this endpoint has said of itself for all that we
        ask, and tell it: lies, and limits for which it named a time. What only this node may meet,
        as that it cannot be reached, is not for others."""
        self._elsewhere = elsewhere.join(subject, self._hear)

    def __repr__(self) -> str:
        """In one line, for logs: what is open of the breakers that count for all questions, speed
        and connections."""
        now, name = self._clock.monotonic(), self.member.name
        breakers = {Trouble.FAULT: self._health.breaker, Trouble.WRONG: self._wrong.whole}
        of_all = {str(trouble): breaker for trouble, breaker in breakers.items()}
        of_all |= {
            f"{Trouble.LIMITED} ({asked.value})": troubles.whole
            for asked, troubles in self._limited.items()
        }
        said = [
            f"{trouble} {breaker.state(now).value}, {breaker.left(now):.0f} s left"
            for trouble, breaker in of_all.items()
            if breaker.state(now) is not BreakerState.CLOSED
        ]
        speed = "unknown speed" if self.speed.mean is None else f"{self.speed.mean:.0f} bytes/s"
        blobs = f"{self.slots.blobs_held} blobs over {self.slots.limit} connections"
        return f"<EndpointState {name}: {'; '.join([*(said or ['well']), speed, blobs])}>"

    async def close(self) -> None:
        """Ends the endpoint's health check."""
        if self._elsewhere is not None:
            self._elsewhere.leave()
        await self._health.close()

    def priority(self, question: Question) -> Priority:
        """When to ask the endpoint this. One that has lied is still better than none: its bytes are
        proven."""
        now, repository = self._clock.monotonic(), question.repository
        refusing = _worst(self._refusing(question), now)
        if refusing is BreakerState.OPEN:
            return Priority.NEVER
        wrong = _worst(self._wrong.of(repository), now)
        # A lie in a manifest is found before a client is given it; in a blob, when it is too late.
        is_proof = question.asked is Asked.MANIFEST
        if wrong is BreakerState.OPEN or (wrong is BreakerState.DUE and not is_proof):
            return Priority.LAST
        missing = BreakerState.CLOSED
        if question.asked.is_content:
            missing = _worst(self._missing.of(repository), now)
        if missing is BreakerState.OPEN:
            return Priority.LAST
        if question.asked is Asked.MANIFEST and self.member.upstream.is_scarce():
            return Priority.SPARED
        return Priority.TRIAL if BreakerState.DUE in (refusing, wrong, missing) else Priority.USUAL

    def steps_back(self, repository: Repository) -> float:
        """Until when, in monotonic seconds, the endpoint is asked for this repository after others
        that are as good; 0: it is not."""
        until = max(self._back_with_all, self._back.get(repository, 0.0))
        return until if until > self._clock.monotonic() else 0.0

    def is_well(self, question: Question) -> bool:
        """Whether no breaker that has a say in this question is open or half open, and the endpoint
        does not step back."""
        now = self._clock.monotonic()
        breakers = [*self._refusing(question), *self._wrong.of(question.repository)]
        return (
            not self.steps_back(question.repository)
            and _worst(breakers, now) is BreakerState.CLOSED
        )

    def is_down(self, question: Question) -> bool:
        """Whether the endpoint, or its answer to this question, failed lately, and has not worked
        since."""
        breakers = [self._health.breaker, *self._faults.of(question)]
        return _worst(breakers, self._clock.monotonic()) is not BreakerState.CLOSED

    def late(self, asked: Asked) -> float:
        """Seconds after which an answer of this endpoint is late, by its own measure; while it is
        down, or on trial, as for an endpoint that was never measured."""
        usual = self.latency[asked].usual
        state = self._health.breaker.state(self._clock.monotonic())
        if usual is None or state is not BreakerState.CLOSED:
            return HEDGES.unmeasured
        return min(max(HEDGES.factor * usual, HEDGES.least), HEDGES.most)

    def hedges(self, asker: Asker) -> Budget:
        """The budget of this asker's client for asks beside late ones at this endpoint."""
        return self._hedges.of(asker.client)

    def may_try_early(self, question: Question) -> bool:
        """Whether one ask may probe the endpoint although its breaker is open, where no other
        endpoint is left."""
        now = self._clock.monotonic()
        faults = [self._health.breaker, *self._faults.of(question)]
        limits = self._limited[question.asked].of(question.repository)
        return all(
            fault.state(now) is not BreakerState.OPEN or fault.may_try_early(now)
            for fault in faults
        ) and all(
            limit.state(now) is not BreakerState.OPEN or limit.has_waited(now) for limit in limits
        )

    def refusal(self, question: Question) -> RegistryError:
        """Why the endpoint is not asked this now: the error to raise instead."""
        now = self._clock.monotonic()
        shut = max(self._refusing(question), key=lambda breaker: breaker.left(now))
        words, left = shut.reason or f"{self.member.name} is not well", shut.left(now)
        is_limit = shut in self._limited[question.asked].of(question.repository)
        kind = RateLimited if is_limit else Unavailable
        return kind(f"{words}; it is asked again in {left:.0f} s", retry_after=left)

    # What happens to the endpoint

    async def probe(self) -> None:
        """To be awaited before the endpoint is asked: see HealthCheck.trial."""
        await self._health.trial()

    def begins(self, question: Question) -> None:
        """The endpoint is about to be asked: breakers that are half open go on trial."""
        now = self._clock.monotonic()
        for breaker in self._own(question):
            if breaker.state(now) is not BreakerState.CLOSED:  # before its time, perhaps
                breaker.begin_trial(now)
        on_trial = []
        if question.asked is Asked.MANIFEST:
            on_trial += self._wrong.of(question.repository)
        if question.asked.is_content:
            on_trial += self._missing.of(question.repository)
        for breaker in on_trial:
            if breaker.state(now) is BreakerState.DUE:
                breaker.begin_trial(now)

    def answered(self, question: Question, seconds: float) -> None:
        """What was asked for came after so many seconds; of a blob, its first piece."""
        asked, repository, member = question.asked, question.repository, self.member
        self.latency[asked].took(seconds, self._clock.monotonic())
        self._events.emit(
            EndpointAnswered(
                member.registry, member.name, repository, asked.value, question.what, seconds
            )
        )
        if asked is not Asked.BLOB:  # of which only the beginning has come
            self.delivers(question)
        if self._limited[asked].succeeded(repository):
            self._closed(Trouble.LIMITED)
        if asked.is_content:
            self._missing.succeeded(repository)
        is_on_trial = any(breaker.trying for breaker in self._wrong.of(repository))
        if asked is Asked.MANIFEST and is_on_trial and self._wrong.succeeded(repository):
            self._closed(Trouble.WRONG)
        self._told.well(str(repository))

    def delivers(self, question: Question) -> None:
        """The endpoint brought what it promised, or a good part of it: no fault is left."""
        self._faults.succeeded(question)
        self._health.answered()

    def gives_up(self, question: Question) -> None:
        """The ask was cancelled: that says nothing of the endpoint's troubles."""
        self._undecided(question)

    def not_waited_for(self, question: Question, seconds: float) -> None:
        """Another endpoint answered, while this one was silent for so many seconds."""
        if seconds >= self.late(question.asked):
            if not question.asked.is_content:  # for which endpoints are not ordered by latency
                words = f"{self.member.name} was silent for {seconds:.1f} s"
                self.is_slow(question, Unavailable(words))
            self._health.doubted()
        self.latency[question.asked].took_longer(seconds, self._clock.monotonic())

    def lacks(self, question: Question, error: RegistryError) -> None:
        """The endpoint does not have what another has just given."""
        repository = question.repository
        if self._missing.failed(repository, self._clock.monotonic(), error.message):
            _log.info("endpoint_lacks", endpoint=self.member.name, repository=str(repository))

    def failed(self, question: Question, error: RegistryError) -> None:
        """The endpoint answered with this error. Unknown and Denied are answers, not failures: what
        they mean depends on those of the other endpoints."""
        match error:
            case Unknown() | Denied():
                self.delivers(question)
            case QuotaSpent() | Unfit() | Exhausted() | NoTurn():
                pass
            case NoToken():
                self._faults.failed(question, self._clock.monotonic(), error.message)
                self._told.trouble(str(question.repository), error.message)
            case Untrustworthy():
                # Of what a list says, or how long a blob is, nothing is proven, nor a lie.
                if question.asked not in (Asked.LIST, Asked.STAT):
                    self._lied(question, error)
            case RateLimited():
                self._is_limited(question, error)
            case Unavailable():
                self._is_faulty(question, error)
        self._undecided(question)

    def is_slow(self, question: Question, error: RegistryError) -> None:
        """The endpoint was left for a faster one: that is no fault, but others go first for a
        while."""
        self._step_back(question.repository, _STEP_BACK, error)

    def _is_faulty(self, question: Question, error: Unavailable) -> None:
        now = self._clock.monotonic()
        if isinstance(error, Unreachable):
            self._step_back_with_all(_STEP_BACK, error.message)
        else:
            self._faults.failed(question, now, error.message, error.retry_after or 0.0)
            self._step_back(question.repository, _STEP_BACK, error)
        self._health.failed(error)

    def _is_limited(self, question: Question, error: RateLimited) -> None:
        limited, least = self._limited[question.asked], error.retry_after or 0.0
        now = self._clock.monotonic()
        limited.failed(question.repository, now, error.message, least)
        self._step_back(question.repository, least, error)
        if limited.whole.state(now) is BreakerState.OPEN:
            self._step_back_with_all(least, error.message)
            self._switched(Trouble.LIMITED, True)
            self._tell(f"{Trouble.LIMITED} {question.asked.value}", error.message, least)

    def _lied(self, question: Question, error: RegistryError) -> None:
        now, repository = self._clock.monotonic(), question.repository
        opened = self._wrong.failed(repository, now, error.message)
        # Of several endpoints that lied, the one whose lie is oldest is asked first.
        self._back[repository] = max(self._back.get(repository, 0.0), now + _STEP_BACK)
        is_banned = self._wrong.whole.state(now) is BreakerState.OPEN
        if is_banned:
            self._switched(Trouble.WRONG, True)
        if opened:
            seconds = max(one.left(now) for one in self._wrong.of(repository))
            self._told.banned("" if is_banned else str(repository), error.message, seconds)
        if is_banned:
            left = self._wrong.whole.left(now)
            self._tell(str(Trouble.WRONG), error.message, left)

    def _tell(self, what: str, reason: str, seconds: float) -> None:
        if self._elsewhere is None or not seconds > 0:
            return
        now = self._clock.wall()
        self._bans[what] = _Ban(now + seconds, reason[:_REASON])
        self._bans = {name: ban for name, ban in self._bans.items() if ban.until > now}
        longest = max(ban.until for ban in self._bans.values()) - now
        words = {name: [ban.until, ban.reason] for name, ban in self._bans.items()}
        self._elsewhere.tell({"bans": words}, longest)

    def _hear(self, words: Words) -> None:
        now, wall = self._clock.monotonic(), self._clock.wall()
        breakers = {str(Trouble.WRONG): self._wrong.whole}
        breakers |= {f"{Trouble.LIMITED} {a.value}": t.whole for a, t in self._limited.items()}
        for what, (until, reason) in dict(words["bans"]).items():
            ban = _Ban(min(float(until), wall + _LONGEST_BAN), str(reason)[:_REASON])
            if what not in breakers or not ban.until > wall:
                continue
            self._bans[what] = ban
            said = f"another node was told: {ban.reason}"
            opened = breakers[what].hold(now, said, ban.until - wall)
            left = breakers[what].left(now)
            if what != str(Trouble.WRONG):
                self._step_back_with_all(left, said)
                self._switched(Trouble.LIMITED, True)
            elif opened:
                self._switched(Trouble.WRONG, True)
                self._told.banned("", said, left)

    def _step_back(self, repository: Repository, seconds: float, error: RegistryError) -> None:
        self._told.trouble(str(repository), error.message)
        until = self._clock.monotonic() + min(seconds, _LONGEST_STEP_BACK)
        self._back[repository] = max(self._back.get(repository, 0.0), until)

    def _step_back_with_all(self, seconds: float, reason: str) -> None:
        now = self._clock.monotonic()
        self._told.trouble("", reason)
        until = now + min(seconds, _LONGEST_STEP_BACK)
        self._back_with_all = max(self._back_with_all, until)

    def _health_changed(self, is_down: bool) -> None:
        if not is_down:
            self._closed(Trouble.FAULT)
            return
        self._switched(Trouble.FAULT, True)
        self._step_back_with_all(_STEP_BACK, self._health.breaker.reason)

    def _closed(self, trouble: Trouble) -> None:
        self._switched(trouble, False)
        self._told.closed(str(trouble))

    def _switched(self, trouble: Trouble, is_open: bool) -> None:
        member = self.member
        self._events.emit(BreakerSwitched(member.registry, member.name, trouble, is_open))

    def _refusing(self, question: Question) -> list[Breaker]:
        """The breakers that keep the endpoint from being asked this while they are open."""
        return [self._health.breaker, *self._own(question)]

    def _own(self, question: Question) -> list[Breaker]:
        """The breakers of `_refusing` that the answer to this question may close."""
        limited = self._limited[question.asked]
        return [*self._faults.of(question), *limited.of(question.repository)]

    def _undecided(self, question: Question) -> None:
        now = self._clock.monotonic()
        for breaker in self._own(question):
            breaker.undecided(now)


def _worst(breakers: Iterable[Breaker], now: float) -> BreakerState:
    """Open if one of them is, else half open if one is."""
    worst = BreakerState.CLOSED
    for breaker in breakers:
        state = breaker.state(now)
        if state is BreakerState.OPEN:
            return state
        if state is BreakerState.DUE:
            worst = state
    return worst
