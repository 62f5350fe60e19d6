"""When an endpoint that failed is asked again: a circuit breaker for one kind of trouble."""

from __future__ import annotations

from enum import Enum, StrEnum

from ...frozen import dataclass


class Trouble(StrEnum):
    """What goes wrong with an endpoint: each kind has its own breaker."""

    FAULT = "fault"  # no connection, no answer in time, a cut body, 5xx
    LIMITED = "limited"  # 429
    MISSING = "missing"  # it does not have what another has
    WRONG = "wrong"  # it sent something else than was asked


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds, except `failures`: how many in a row open the breaker.

    A pause doubles from `first` to `longest` with each trial that fails, and begins anew when
    nothing failed for `forget`. `trial`: a trial without a verdict by then is followed by another.
    A pause that the endpoint asks for is kept up to `told`, or else up to `longest`.
    """

    first: float
    longest: float
    forget: float
    failures: int = 1
    trial: float = 10.0
    told: float | None = None


PAUSES = {
    Trouble.FAULT: Pauses(first=1.0, longest=30.0, forget=300.0, failures=2),
    Trouble.LIMITED: Pauses(first=1.0, longest=60.0, forget=600.0, told=3600.0),
    Trouble.MISSING: Pauses(first=60.0, longest=3600.0, forget=7200.0, failures=2),
    Trouble.WRONG: Pauses(first=600.0, longest=86400.0, forget=7 * 86400.0, trial=60.0),
}


class BreakerState(Enum):
    CLOSED = "closed"  # all is well, as far as is known
    OPEN = "open"  # not to be asked
    DUE = "due"  # half open: one ask may try


class Breaker:
    """Closed; after some failures in a row open for a pause; then one trial closes it, or opens it
    for longer. All times are monotonic seconds."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._row = 0
        self._level = 0
        self._open = False
        self._until = 0.0
        self._last = float("-inf")  # when it last failed, or was last tried
        self._told = float("-inf")  # until when the endpoint itself asked for a pause
        self.trying = False  # a trial is under way
        self.reason = ""  # of the last failure; the error itself would keep its frames alive

    def __repr__(self) -> str:
        if not self._open:
            return "<Breaker closed>"
        trial = ", on trial" if self.trying else ""
        return f"<Breaker open until {self._until:.0f}{trial}: {self.reason}>"

    def state(self, now: float) -> BreakerState:
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._until else BreakerState.DUE

    def left(self, now: float) -> float:
        """Seconds until a trial may begin."""
        return max(0.0, self._until - now) if self._open else 0.0

    def may_try_early(self, now: float) -> bool:
        """Whether a trial may begin before the pause's end, where no other endpoint is left to ask:
        not while another trial is under way, nor right after one that failed."""
        return self._is_free_for_trial(now) and now - self._last >= self._pauses.first

    def has_waited(self, now: float) -> bool:
        """Whether the pause that the endpoint asked for is over, however long it has grown since,
        or the grown one where it asked for none: as `may_try_early`, where asking before that would
        be worse than not to ask."""
        return self._is_free_for_trial(now) and now >= self._told

    def _is_free_for_trial(self, now: float) -> bool:
        return not self.trying or now >= self._until

    def begin_trial(self, now: float) -> None:
        """One ask tries: until it is decided, the breaker is open for all others."""
        self.trying, self._last = True, now
        self._until = now + self._pauses.trial

    def undecided(self, now: float) -> None:
        """The trial has ended, and says nothing of this trouble: the next ask may try."""
        if self.trying:
            self.trying, self._until = False, now

    def failed(self, now: float, reason: str, least: float = 0.0) -> bool:
        """Notes a failure; whether it opened the breaker. `least` is the shortest pause, in
        seconds, as the endpoint asked for it."""
        if now - self._last > self._pauses.forget:
            self._level = 0
        self._row += 1
        self._last, self.reason = now, reason
        self._told = now + min(least, self._pauses.told or self._pauses.longest)
        if self._open and not self.trying:  # one that was under way when it opened
            self._until = max(self._until, self._told)
            return False
        if not self._open and self._row < self._pauses.failures:
            return False
        pause = min(self._pauses.first * 2.0**self._level, self._pauses.longest)
        self._until = max(now + pause, self._told)
        if not least:
            self._told = self._until
        opened, self._open = not self._open, True
        self.trying = False
        self._level = min(self._level + 1, 30)
        return opened

    def hold(self, now: float, reason: str, seconds: float) -> bool:
        """Opens for so long, since others have met the trouble; whether that opened it. A trial
        that is under way decides for itself."""
        until = now + min(seconds, self._pauses.told or self._pauses.longest)
        if self.trying or until <= self._until:
            return False
        opened, self._open = not self._open, True
        self._until = self._told = until
        self._last, self.reason = now, reason
        return opened

    def succeeded(self) -> bool:
        """Notes a success; whether it closed the breaker. How long the pauses have grown is
        forgotten by time alone."""
        closed, self._open = self._open, False
        self._row, self.trying = 0, False
        return closed
