"""What a pool knows of one endpoint by now: its health, its speed, and how it may be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum

import structlog
from cachetools import LRUCache

from ..interfaces import Clock, Meter, Upstream
from ..oci.errors import Denied, RateLimited, RegistryError, Unavailable, Unknown, Untrustworthy
from ..oci.reference import Repository
from .breaker import PAUSES, Breaker, State, Trouble
from .endpoint import CONNECTIONS, Trust
from .failures import Unfit
from .health import Latency, Speed
from .quota import QuotaSpent
from .slots import Slots

_log = structlog.get_logger()

_STEP_BACK = 15.0  # seconds for which an endpoint is asked after the others, once it has failed
_LONGEST_STEP_BACK = 3600.0
_REPOSITORIES = 1024  # whose content was missing somewhere

# When an answer is late, in seconds: so many times what is usual for the endpoint, within bounds.
_LATE_FACTOR = 3.0
_LATE_LEAST = 0.5
_LATE_MOST = 10.0
_LATE_UNKNOWN = 2.0


class Asked(Enum):
    """What is asked for. Each kind has its own latency, and its own limit by 429."""

    WORD = "word"  # what a tag points to, and all else that proves itself by nothing
    MANIFEST = "manifest"
    BLOB = "blob"


class Turn(IntEnum):
    """When an endpoint is asked, in order."""

    TRIAL = 0  # first: others can still answer when it cannot
    USUAL = 1
    SPARED = 2  # little is left of what it gives
    LAST = 3  # when nobody else has answered
    NEVER = 4


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of a pool; `name` is for messages. `scarce` as in Budgeted. `slots` are those of
    its host, where other endpoints are there too."""

    name: str
    upstream: Upstream
    trust: Trust
    connections: int = CONNECTIONS
    scarce: Callable[[], bool] = _never
    slots: Slots | None = None


class Standing:
    """One member of a pool, and all that was learnt about it."""

    def __init__(self, member: Member, clock: Clock, meter: Meter) -> None:
        self.member = member
        self.slots = member.slots or Slots(member.name, member.connections)
        self.speed = Speed()
        self.latency = {asked: Latency() for asked in Asked}
        self._clock = clock
        self._meter = meter
        self._fault = Breaker(PAUSES[Trouble.FAULT])
        self._wrong = Breaker(PAUSES[Trouble.WRONG])
        self._limited = {asked: Breaker(PAUSES[Trouble.LIMITED]) for asked in Asked}
        self._missing: LRUCache[Repository, Breaker] = LRUCache(_REPOSITORIES)
        self._steps_back_until = 0.0

    def turn(self, asked: Asked, repository: Repository) -> Turn:
        """When to ask it. One that has lied is still better than nobody: its bytes are proven."""
        now = self._clock.monotonic()
        fault, limited = self._fault.state(now), self._limited[asked].state(now)
        if State.OPEN in (fault, limited):
            return Turn.NEVER
        wrong = self._wrong.state(now)
        # A lie in a manifest is found before anybody is given it; in a blob, when it is too late.
        if wrong is State.OPEN or (wrong is State.DUE and asked is not Asked.MANIFEST):
            return Turn.LAST
        missing = self._missing_state(asked, repository, now)
        if missing is State.OPEN:
            return Turn.LAST
        if asked is Asked.MANIFEST and self.member.scarce():
            return Turn.SPARED
        return Turn.TRIAL if State.DUE in (fault, limited, wrong, missing) else Turn.USUAL

    def steps_back(self) -> float:
        """The later, the longer it is asked after others that are as good."""
        until = self._steps_back_until
        return until if until > self._clock.monotonic() else 0.0

    def is_well(self, asked: Asked) -> bool:
        """Whether nothing speaks against it, whatever the repository."""
        now = self._clock.monotonic()
        breakers = (self._fault, self._limited[asked], self._wrong)
        return not self.steps_back() and all(
            breaker.state(now) is State.CLOSED for breaker in breakers
        )

    def is_away(self) -> bool:
        """Whether it failed lately, and has not answered since."""
        return self._fault.state(self._clock.monotonic()) is not State.CLOSED

    def late(self, asked: Asked) -> float:
        """Seconds after which its answer is late, by its own measure."""
        usual = self.latency[asked].usual
        if usual is None:
            return _LATE_UNKNOWN
        return min(max(_LATE_FACTOR * usual, _LATE_LEAST), _LATE_MOST)

    def may_try_early(self, asked: Asked) -> bool:
        """Whether one ask may try it before its time, since nobody else is left."""
        now = self._clock.monotonic()
        fault, limited = self._fault, self._limited[asked]
        return (fault.state(now) is not State.OPEN or fault.may_try_early(now)) and (
            limited.state(now) is not State.OPEN or limited.has_waited(now)
        )

    def refusal(self, asked: Asked) -> RegistryError:
        """Why it is not asked now."""
        now = self._clock.monotonic()
        shut = max(self._fault, self._limited[asked], key=lambda breaker: breaker.left(now))
        reason, left = shut.reason, shut.left(now)
        words = reason.message if reason else f"{self.member.name} is not well"
        kind = RateLimited if isinstance(reason, RateLimited) else Unavailable
        return kind(f"{words}; it is asked again in {left:.0f} s", retry_after=left)

    # What happens to it

    def begins(self, asked: Asked, repository: Repository) -> None:
        now = self._clock.monotonic()
        for breaker in (self._fault, self._limited[asked]):
            if breaker.state(now) is not State.CLOSED:  # before its time, perhaps
                breaker.begin_trial(now)
        on_trial = []
        if asked is Asked.MANIFEST:
            on_trial.append(self._wrong)
        if asked is not Asked.WORD and repository in self._missing:
            on_trial.append(self._missing[repository])
        for breaker in on_trial:
            if breaker.state(now) is State.DUE:
                breaker.begin_trial(now)

    def answered(self, asked: Asked, repository: Repository, seconds: float) -> None:
        self.latency[asked].took(seconds, self._clock.monotonic())
        if asked is not Asked.BLOB:  # of which only the beginning has come
            self.delivers()
        self._close(self._limited[asked], Trouble.LIMITED)
        if asked is not Asked.WORD:
            self._missing.pop(repository, None)
        if asked is Asked.MANIFEST and self._wrong.trying:
            self._close(self._wrong, Trouble.WRONG)

    def delivers(self) -> None:
        """It brought what it promised, or a good part of it: no fault is left."""
        self._close(self._fault, Trouble.FAULT)

    def not_waited_for(self, asked: Asked, seconds: float) -> None:
        """Another was faster, or nobody wants the answer any more."""
        if asked is Asked.WORD and seconds >= self.late(asked):  # no latency orders those
            self.is_slow(Unavailable(f"{self.member.name} was silent for {seconds:.1f} s"))
        self.latency[asked].took_longer(seconds, self._clock.monotonic())

    def lacks(self, repository: Repository, error: RegistryError) -> None:
        """It does not have what another has just given."""
        breaker = self._missing.setdefault(repository, Breaker(PAUSES[Trouble.MISSING]))
        if breaker.failed(self._clock.monotonic(), error):
            _log.info("endpoint_lacks", endpoint=self.member.name, repository=str(repository))

    def failed(self, asked: Asked, error: RegistryError) -> None:
        """Unknown and Denied are words, not failures: what they mean depends on the others'."""
        now = self._clock.monotonic()
        match error:
            case QuotaSpent() | Unfit() | Unknown() | Denied():
                if isinstance(error, Unknown | Denied):
                    self.delivers()
            case Untrustworthy():
                self._lied(now, error)
            case RateLimited():
                least = error.retry_after or 0.0
                self._fail(self._limited[asked], Trouble.LIMITED, error, least)
                self._step_back(now, least, error)
            case Unavailable():
                self._fail(self._fault, Trouble.FAULT, error, error.retry_after or 0.0)
                self._step_back(now, _STEP_BACK, error)
        for breaker in (self._fault, self._limited[asked]):
            breaker.undecided(now)

    def is_slow(self, error: RegistryError) -> None:
        """It was left for a faster endpoint: no fault, but others go first for a while."""
        self._step_back(self._clock.monotonic(), _STEP_BACK, error)

    def _lied(self, now: float, error: RegistryError) -> None:
        opened = self._wrong.failed(now, error)
        # Of several liars the one whose lie is oldest goes first.
        self._steps_back_until = max(self._steps_back_until, now + _STEP_BACK)
        self._meter.upstream_breaker(self.member.name, Trouble.WRONG, True)
        if opened:
            _log.error(
                "endpoint_banned",
                endpoint=self.member.name,
                reason=error.message,
                seconds=round(self._wrong.left(now)),
                hint="it sent what was not asked for; it is asked only when nobody else answers",
            )

    def _step_back(self, now: float, seconds: float, error: RegistryError) -> None:
        if self._steps_back_until <= now:  # said once, not by each request while it lasts
            _log.warning("endpoint_steps_back", endpoint=self.member.name, reason=error.message)
        until = now + min(seconds, _LONGEST_STEP_BACK)
        self._steps_back_until = max(self._steps_back_until, until)

    def _fail(self, breaker: Breaker, trouble: Trouble, error: RegistryError, least: float) -> None:
        if breaker.failed(self._clock.monotonic(), error, least):
            self._meter.upstream_breaker(self.member.name, trouble, True)

    def _close(self, breaker: Breaker, trouble: Trouble) -> None:
        if breaker.succeeded():
            self._meter.upstream_breaker(self.member.name, trouble, False)
            _log.info("endpoint_is_back", endpoint=self.member.name, trouble=str(trouble))

    def _missing_state(self, asked: Asked, repository: Repository, now: float) -> State:
        breaker = None if asked is Asked.WORD else self._missing.get(repository)
        return breaker.state(now) if breaker else State.CLOSED
