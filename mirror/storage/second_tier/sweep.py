"""What the object store keeps no longer: content that nobody has used for long, what is more than
there may be, and wrong bytes that were set aside long ago.

Last use is as good as an object store can tell: when the object was written, or renewed. Memory
does not grow with the number of objects: their ages are counted by the hour, which finds the age
beyond which content has to go. A sweep that is broken off has removed some of it, and the next goes
on; one that runs beside another removes the same.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import field, replace
from enum import StrEnum

from ...clock import Clock
from ...contracts.second_tier import FarContent, FarObject
from ...frozen import dataclass

ASIDE = "wrong/"
"""Before the names of what was set aside."""

_PAGE = 1000  # objects that S3 lists, and removes, at a time
_HOUR = 3600.0
_OLDEST = 10 * 365 * 24  # hours: what is older counts as so old


@dataclass(frozen=True, slots=True)
class SweepPolicy:
    """`max_size`: bytes of content that there may be. In seconds: `keep`: for how long content
    stays that nobody uses; `young`: for which nothing goes, whatever there is; `aside`: for which
    wrong bytes that were set aside are kept. None: no bound."""

    max_size: int | None = None
    keep: float | None = None
    young: float = 86400.0
    aside: float = 30 * 86400.0

    @property
    def bounds_content(self) -> bool:
        return self.max_size is not None or self.keep is not None


class Why(StrEnum):
    OLD = "old"
    ROOM = "room"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Gone:
    """Objects that were removed, or would be."""

    objects: int = 0
    bytes: int = 0

    def with_one(self, size: int) -> Gone:
        return Gone(self.objects + 1, self.bytes + size)


@dataclass(frozen=True, slots=True)
class Swept:
    """`there`: content that was found; `aside`: what had been set aside. `oldest`: the age of the
    oldest content that stays, in seconds, to the hour; None: there is none."""

    there: Gone
    aside: Gone
    gone: dict[Why, Gone]
    oldest: float | None


@dataclass(slots=True)
class _Ages:
    """Content that was found, by its age in hours; the last is for all that are older."""

    by_hour: dict[int, Gone] = field(default_factory=dict)
    aside: Gone = Gone()
    aside_old: Gone = Gone()

    @property
    def there(self) -> Gone:
        found = self.by_hour.values()
        return Gone(sum(each.objects for each in found), sum(each.bytes for each in found))


MayGoOn = Callable[[], Awaitable[bool]]


async def _always() -> bool:
    return True


class Sweep:
    """Of one object store."""

    def __init__(self, far: FarContent, policy: SweepPolicy, clock: Clock) -> None:
        self._far = far
        self._policy = policy
        self._clock = clock

    async def forecast(self) -> Swept:
        """What would go now. Raises FarFault."""
        return _forecast(await self._looked(_always), self._policy)

    async def run(self, may_go_on: MayGoOn) -> Swept:
        """Removes it, as long as it `may_go_on`, which is asked at each page. Raises FarFault."""
        ages = await self._looked(may_go_on)
        expected = _forecast(ages, self._policy)
        if not any(each.objects for each in expected.gone.values()):
            return expected
        cut = _Cut.of(ages, self._policy)
        gone = dict.fromkeys(Why, Gone())
        async for page in self._pages(may_go_on):
            going: dict[Why, list[FarObject]] = {why: [] for why in Why}
            for each in page:
                if (why := self._why(each, cut)) is not None:
                    going[why].append(each)
            for why, objects in going.items():
                if objects:
                    await self._far.remove([each.name for each in objects])
                for each in objects:
                    gone[why] = gone[why].with_one(each.size)
        return replace(expected, gone=gone)

    async def _looked(self, may_go_on: MayGoOn) -> _Ages:
        ages, policy = _Ages(), self._policy
        async for page in self._pages(may_go_on):
            for each in page:
                age = self._age(each)
                if _is_aside(each):
                    ages.aside = ages.aside.with_one(each.size)
                    if age > policy.aside:
                        ages.aside_old = ages.aside_old.with_one(each.size)
                elif each.digest is not None:
                    hour = _hour(age)
                    ages.by_hour[hour] = ages.by_hour.get(hour, Gone()).with_one(each.size)
        return ages

    async def _pages(self, may_go_on: MayGoOn) -> AsyncIterator[tuple[FarObject, ...]]:
        # Where content has no bounds, only what was set aside is looked at.
        after: str | None = "" if self._policy.bounds_content else None
        while after is not None and await may_go_on():
            page = await self._far.page(after, _PAGE)
            yield tuple(each for each in page.objects if not _is_aside(each))
            after = page.following
        after = ASIDE
        while after is not None and await may_go_on():
            page = await self._far.page(after, _PAGE)
            yield tuple(each for each in page.objects if _is_aside(each))
            after = page.following

    def _why(self, each: FarObject, cut: _Cut) -> Why | None:
        """Why it goes; None: it stays."""
        age = self._age(each)
        if _is_aside(each):
            return Why.WRONG if age > self._policy.aside else None
        if each.digest is None:
            return None
        hour = _hour(age)
        if _is_old(hour, self._policy):
            return Why.OLD
        return Why.ROOM if cut.takes(hour, each.size) else None

    def _age(self, each: FarObject) -> float:
        return self._clock.wall() - each.at


@dataclass(slots=True)
class _Cut:
    """What has to go for the others: all that is older than this hour, and so many bytes of it."""

    hour: int
    left: int

    @classmethod
    def of(cls, ages: _Ages, policy: SweepPolicy) -> _Cut:
        stays = {h: each for h, each in ages.by_hour.items() if not _is_old(h, policy)}
        cut = cls(_OLDEST + 1, 0)
        if policy.max_size is None:
            return cut
        lacking = sum(each.bytes for each in stays.values()) - policy.max_size
        for hour in sorted((h for h in stays if _may_go(h, policy)), reverse=True):
            if lacking <= 0:
                break
            cut = cls(hour, lacking)
            lacking -= stays[hour].bytes
        return cut

    def takes(self, hour: int, size: int) -> bool:
        if hour != self.hour:
            return hour > self.hour
        takes = self.left > 0
        self.left -= size
        return takes


def _forecast(ages: _Ages, policy: SweepPolicy) -> Swept:
    cut, oldest = _Cut.of(ages, policy), None
    gone = {Why.OLD: Gone(), Why.ROOM: Gone(), Why.WRONG: ages.aside_old}
    for hour, found in sorted(ages.by_hour.items(), reverse=True):
        if _is_old(hour, policy):
            gone[Why.OLD] = _both(gone[Why.OLD], found)
        elif hour > cut.hour or (hour == cut.hour and cut.left >= found.bytes):
            gone[Why.ROOM] = _both(gone[Why.ROOM], found)
        else:
            if hour == cut.hour:  # as if all were of one size
                share = cut.left / found.bytes
                part = Gone(math.ceil(found.objects * share), cut.left)
                gone[Why.ROOM] = _both(gone[Why.ROOM], part)
            oldest = max(oldest or 0.0, hour * _HOUR)
    return Swept(ages.there, ages.aside, gone, oldest)


def _may_go(hour: int, policy: SweepPolicy) -> bool:
    return hour > _hour(policy.young)


def _is_old(hour: int, policy: SweepPolicy) -> bool:
    return policy.keep is not None and hour > _hour(policy.keep) and _may_go(hour, policy)


def _both(one: Gone, other: Gone) -> Gone:
    return Gone(one.objects + other.objects, one.bytes + other.bytes)


def _hour(age: float) -> int:
    return max(0, min(int(age // _HOUR), _OLDEST))


def _is_aside(each: FarObject) -> bool:
    return each.name.startswith(ASIDE)
