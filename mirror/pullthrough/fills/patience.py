"""How long a download tries, and what it has of that."""

from __future__ import annotations

from ...asking.retry_policy import RetryPolicy
from ...clock import Clock
from ...frozen import dataclass
from ...oci.errors import RateLimited, RegistryError
from ...times import DOWNLOADS, TROUBLE

PROGRESS = 64 << 10
"""Bytes that count as progress: who sends less and breaks, again and again, is given up in the end.
"""


@dataclass(frozen=True, slots=True)
class DownloadPatience:
    """How long a fill tries, in seconds, and how much it takes.

    `first_byte` bounds the time to the first progress (35 s of waiting for a blob's first byte was
    borne by every client measured): no try is begun beyond it, and one that is under way ends by
    itself. `stalled` bounds the time since the last progress after it, in which an ask has to be
    answered, too: two tries, of which each is silent for as long as a body may be. For `doubt`,
    bytes that nobody vouches for are given out only once they are proven: who has read wrong ones
    can often not be helped any more (containerd, podman); who waits can, by another endpoint.
    """

    first_byte: float = DOWNLOADS.first_byte
    doubt: float = DOWNLOADS.doubt
    stalled: float = DOWNLOADS.stalled
    pause: float = DOWNLOADS.pause
    longest_pause: float = DOWNLOADS.longest_pause
    largest: int = 1 << 40  # bytes: a larger blob is refused

    def retries(self, within: float) -> RetryPolicy:
        return RetryPolicy(pause=self.pause, longest_pause=self.longest_pause, within=within)


class Patience:
    """How long one download may go without progress, counted over all its turns."""

    def __init__(self, policy: DownloadPatience, clock: Clock) -> None:
        self.policy = policy
        self.has_progressed = False
        self._clock = clock
        self._came = 0  # bytes since the last progress
        self._progress_at: float | None = None  # since the first turn
        self._fault_at: float | None = None  # the last progress before the last fault
        self._faults = self._missed = 0  # in a row; and how often it was said to be missing
        self._missed_at = 0.0  # first

    def begin(self) -> None:
        """A turn begins."""
        self._faults = self._missed = 0
        if self._progress_at is None:
            self._progress_at = self._clock.monotonic()

    @property
    def is_over(self) -> bool:
        return self.quiet_for() > self.policy.stalled

    def quiet_for(self) -> float:
        """Seconds since the last progress, or the beginning."""
        now = self._clock.monotonic()
        return now - (now if self._progress_at is None else self._progress_at)

    def came(self, count: int) -> None:
        """So many bytes more were written."""
        self._came += count
        if self._came >= PROGRESS:
            self._came = 0
            self._progress_at, self.has_progressed = self._clock.monotonic(), True

    def pause_after(self, reason: RegistryError, first_byte: float) -> float | None:
        """The seconds after which the upstream is asked again; None: nothing has come for too long,
        of which `first_byte` is the bound before the first progress. They double from fault to
        fault, as long as nothing comes in between."""
        if self._fault_at is not None and self._progress_at != self._fault_at:
            self._faults = 0
        self._fault_at = self._progress_at
        asked = reason.retry_after or 0
        if not isinstance(reason, RateLimited):  # trouble is often over sooner than it says
            asked = min(asked, self.policy.longest_pause)
        self._faults += 1
        within = self.policy.stalled if self.has_progressed else first_byte
        return self.policy.retries(within).pause_after(self._faults, self.quiet_for(), asked)

    def may_lag(self) -> bool:
        """Whether a replica that lacks what has just been coming is asked once more."""
        now = self._clock.monotonic()
        self._missed += 1
        self._missed_at = now if self._missed == 1 else self._missed_at
        retries = self.policy.retries(TROUBLE.lagging)
        return retries.pause_after(self._missed, now - self._missed_at) is not None
