"""How many manifests an endpoint still gives to one login, in the endpoint's own words.

Docker Hub counts GETs of manifests, by login or by address: each answer to a manifest, HEAD too,
says `ratelimit-limit: 100;w=21600` (so many in so many seconds) and `ratelimit-remaining`, and
`docker-ratelimit-source` whom it counts. HEADs and blobs are free. A second limit, on any kind of
request, has no headers; its 429 may answer a HEAD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from cachetools import LRUCache

from ...clock import Clock
from ...contracts.bulletins import Bulletin, Bulletins, Words
from ...contracts.events import QuotaPaused, QuotaReported
from ...events import Events
from ...frozen import dataclass
from ...oci.errors import RateLimited, quoted
from ...quantities import lasted
from ..failures import QuotaSpent, retry_after

_NUMBER = re.compile(r"\s*([0-9]{1,9})\s*(?:;\s*w=([0-9]{1,8})\s*)?(?:[,;].*)?", re.ASCII)
_SOURCE = re.compile(r"[0-9A-Fa-f.:-]{3,64}", re.ASCII)  # an address, or an account's UUID
_LEAST_PAUSE = 1.0
_FIRST_GUESS = 1.0  # seconds, after a 429 that does not say; twice as many after each more in a row
_LONGEST_GUESS = 3600.0
_REPOSITORIES = 1024  # for which pauses are remembered
_LONGEST_HEARD = 86400.0  # seconds, of a pause that another node was told
_AGREE = 2  # repositories that are refused, none answered in between: the limit is the login's


@dataclass(frozen=True, slots=True)
class _Pause:
    """A pause for one repository. `guess`: seconds to wait after the next 429 that does not say."""

    until: float = 0.0  # monotonic
    guess: float = _FIRST_GUESS


class Quota:
    """What is left to one login at one endpoint. `login` is "" for anonymous asking. Of the limit,
    a share below `low` is little."""

    def __init__(
        self,
        endpoint: str,
        login: str,
        clock: Clock,
        events: Events,
        low: float,
        registry: str = "",
    ) -> None:
        self._registry = registry
        self._endpoint = endpoint
        self._login = login
        self._clock = clock
        self._events = events
        self._low = low
        self._limit: int | None = None
        self._remaining: int | None = None
        self._window: float | None = None
        self._source = ""
        self._read_at = 0.0
        self._began_at = 0.0  # monotonic: when pulls of this window were first seen to be taken
        self._pulls_at = 0.0  # monotonic: no manifest is pulled before
        self._counted = False  # whether it was the count that stopped the pulls
        self._asks_at = 0.0  # monotonic: no manifest is asked for at all before
        # Of single repositories, and whether it is for pulls alone.
        self._paused: LRUCache[tuple[str, bool], _Pause] = LRUCache(_REPOSITORIES)
        self._refused: set[str] = set()  # repositories, since the last that was answered
        self._elsewhere: Bulletin | None = None

    def share(self, elsewhere: Bulletins, subject: str) -> None:
        """From now on other nodes are told what is left, and until when nothing is asked, and tell
        it. Without a login they count together only where the endpoint says that it counts them as
        one."""
        self._elsewhere = elsewhere.join(subject, self._hear)

    def leave(self) -> None:
        if self._elsewhere is not None:
            self._elsewhere.leave()

    @property
    def left(self) -> float:
        """The share of the limit that is left, from 0 to 1; 1 where nothing is known."""
        if self._remaining is None or not self._limit or self._outdated():
            return 1.0
        return min(1.0, self._remaining / self._limit)

    @property
    def is_known(self) -> bool:
        """Whether the endpoint has said that it counts pulls."""
        return self._limit is not None

    def low(self) -> bool:
        """Whether pulls should be spared."""
        return self.left < self._low or self._clock.monotonic() < self._pulls_at

    def _note(self, headers: Mapping[str, str]) -> int | None:
        """Reads what an answer to a manifest tells: how many remain; None when it tells nothing."""
        before = self._remaining
        limit = _NUMBER.fullmatch(headers.get("ratelimit-limit", ""))
        remaining = _NUMBER.fullmatch(headers.get("ratelimit-remaining", ""))
        if limit is None or remaining is None:
            return None
        self._limit, self._remaining = int(limit[1]), int(remaining[1])
        window = limit[2] or remaining[2]
        self._window = float(window) if window else None
        source = headers.get("docker-ratelimit-source", "")
        self._source = source if _SOURCE.fullmatch(source) else ""
        if before is None or self._remaining > before or before == self._limit or self._outdated():
            self._began_at = self._clock.monotonic()
        self._read_at = self._clock.monotonic()
        self._report()
        self._resume_if_left()
        self._tell_others()
        return self._remaining

    def _resume_if_left(self) -> None:
        if self._remaining and self._counted and self._pulls_at:
            self._pulls_at = 0.0  # sooner than was thought; a HEAD told so
            self._tell_until()

    def _tell_others(self) -> None:
        if self._elsewhere is None or not (self._login or self._source):
            return
        now, wall = self._clock.monotonic(), self._clock.wall()
        until = {"pulls": self._pulls_at, "asks": self._asks_at}
        ahead = {name: wall + at - now for name, at in until.items() if at > now}
        words: dict[str, object] = {"until": ahead, "counted": self._counted}
        if self._limit is not None:
            words |= {
                "count": [self._limit, self._remaining, self._window],
                "read": wall + self._read_at - now,
                "began": wall + self._began_at - now,
            }
        kept = max((at - wall for at in ahead.values()), default=0.0)
        self._elsewhere.tell({**words, "source": self._source}, max(kept, self._window or 60.0))

    def _hear(self, words: Words) -> None:
        if not self._login and (not self._source or words["source"] != self._source):
            return  # who is counted by address may be counted apart
        now, wall = self._clock.monotonic(), self._clock.wall()
        read = now - max(0.0, wall - float(words.get("read", 0.0)))
        if "count" in words and read > self._read_at:
            limit, remaining, window = words["count"]
            if min(int(limit), int(remaining)) < 0:
                raise ValueError(words)
            began = now - max(0.0, wall - float(words["began"]))
            window = None if window is None else float(window)
            self._limit, self._remaining, self._window = int(limit), int(remaining), window
            self._read_at, self._began_at = read, began
            self._report()
            self._resume_if_left()
        until = {name: now + float(at) - wall for name, at in dict(words["until"]).items()}
        pulls = min(until.get("pulls", 0.0), now + _LONGEST_HEARD)
        asks = min(until.get("asks", 0.0), now + _LONGEST_HEARD)
        if pulls > max(now, self._pulls_at) or asks > max(now, self._asks_at):
            self._counted = bool(words["counted"])
            self._pulls_at = max(self._pulls_at, pulls)
            self._asks_at = max(self._asks_at, asks)
            self._tell_until()

    def refused(self, repository: str, pull: bool, headers: Mapping[str, str]) -> None:
        """A 429 came, to a GET (`pull`) or a HEAD of a manifest of this repository.

        The count, where it is used up, is the login's. Any other limit may be the repository's own,
        which some client has chosen: it is the login's when two repositories in a row meet it.
        """
        remaining = self._note(headers)
        is_counted = pull and remaining == 0
        told = retry_after(headers, self._clock)
        if told is None and is_counted:
            told = self._window
        on_pulls = pull and not remaining  # what the count does not explain is a limit on asking
        pause = self._paused.get((repository, on_pulls), _Pause())
        until = self._clock.monotonic() + max(pause.guess if told is None else told, _LEAST_PAUSE)
        guess = min(pause.guess * 2, _LONGEST_GUESS) if told is None else pause.guess
        self._paused[repository, on_pulls] = _Pause(0.0 if is_counted else until, guess)
        self._refused.add(repository)
        if is_counted or len(self._refused) >= _AGREE:
            self._refused.clear()
            self._pause_all(until, on_pulls, is_counted)

    def _pause_all(self, until: float, on_pulls: bool, is_counted: bool) -> None:
        self._counted = is_counted
        if on_pulls:
            self._pulls_at = max(self._pulls_at, until)
        else:
            self._asks_at = max(self._asks_at, until)
        self._tell_until()
        self._tell_others()

    def answered(self, repository: str, pull: bool, headers: Mapping[str, str]) -> None:
        """An answer to a GET (`pull`) or a HEAD of a manifest came that was no 429."""
        self._note(headers)
        self._refused.clear()
        if pull:
            self._paused.pop((repository, True), None)

    def refusal(self, repository: str, pull: bool) -> RateLimited | None:
        """What to raise instead of asking; None: ask."""
        now = self._clock.monotonic()
        asks_at = max(self._asks_at, self._paused.get((repository, False), _Pause()).until)
        pulls_at = max(self._pulls_at, self._paused.get((repository, True), _Pause()).until)
        if now < asks_at:
            until = asks_at - now
            of = "" if now < self._asks_at else f" of {repository}"
            return RateLimited(
                f"{self._endpoint} limits our requests (429), and not only pulls: {self._whom()} "
                f"asks for no manifest{of} before {self._time(until)}; {self._help()}",
                retry_after=until,
            )
        if pull and now < pulls_at:
            until = pulls_at - now
            of = "" if now < self._pulls_at else f" of {repository}"
            return QuotaSpent(
                f"{self._endpoint} limits our requests (429): {self._spent()}, and "
                f"{self._whom()} pulls none{of} before {self._time(until)}; {self._help()}",
                retry_after=until,
            )
        return None

    def _report(self) -> None:
        limit, remaining = self._limit or 0, self._remaining or 0
        self._events.emit(
            QuotaReported(
                self._registry, self._endpoint, self._login, limit, remaining, self._resets()
            )
        )

    def _resets(self) -> float:
        """See QuotaReported."""
        if self._window is None or self._remaining == self._limit:
            return 0.0
        return self._clock.wall() + self._began_at - self._clock.monotonic() + self._window

    def _outdated(self) -> bool:
        return self._window is not None and self._clock.monotonic() - self._read_at >= self._window

    def _spent(self) -> str:
        if not self._counted or self._limit is None:
            return "it gives no more manifests for now"
        window = f" in {lasted(self._window)}" if self._window else ""
        source = f" (counted as {quoted(self._source)})" if self._source else ""
        return f"its {self._limit} manifests{window}{source} are used up"

    def _whom(self) -> str:
        return (
            f"the login {quoted(self._login)}" if self._login else "this mirror, without a login,"
        )

    def _help(self) -> str:
        if self._login:
            return (
                "another login beside it (credentials may be a list) is used when this one is out"
            )
        return "a login (credentials) has a limit of its own, and a higher one"

    def _time(self, seconds: float) -> str:
        at = datetime.fromtimestamp(self._clock.wall() + seconds, UTC)
        return f"{at:%Y-%m-%d %H:%M:%S} UTC"

    def _tell_until(self) -> None:
        ahead = max(self._pulls_at, self._asks_at) - self._clock.monotonic()
        until = self._clock.wall() + ahead if ahead > 0 else 0.0
        self._events.emit(QuotaPaused(self._registry, self._endpoint, self._login, until))
