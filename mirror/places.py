"""Places of which there are few, shared fairly between clients.

As long as nobody waits, one client may have them all. When somebody does, whoever has most gives:
places are asked back until no client has two more than one that waits, and of one client's no group
has two more than another of its groups that waits. Beyond that, who has had a place for long gives
it to who waits, and waits in turn: so nobody keeps a place for ever while others want it. The fewer
wait, the longer that is: to give a place and take it again costs something. Whoever has got nothing
done by then has the next one for twice as long, so that what begins slowly is begun. What nobody
wants any more gives first of all.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from .times import TURNS

_LOOK = 0.25  # seconds between two looks at who has had a place for long
_LONGEST = 5.0  # times the quantum: for which one has its place, however few wait
_MOST_DOUBLED = 5
_MOST_WAITING = 1024  # about; each client's groups have equal parts of it,
_LEAST_WAITING = 16  # and no less than this


def turn_of(places: int, waiting: int, quantum: float) -> float:
    """For how many seconds one has its place, where so many wait for so many places: long enough
    for the cost of giving it to be small beside it, and no longer than all who wait can bear."""
    return max(quantum, min(TURNS.round * places / waiting, _LONGEST * quantum))


class Claim(Protocol):
    """Who wants a place. Its client may change while it waits or has one."""

    @property
    def client(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for what it does. What nobody wants never waits for a place."""

    @property
    def vain_turns(self) -> int:
        """How often it has had a place, and gave it back before anything was done."""

    def give_back(self) -> bool:
        """Asks it for its place, which it is to leave within a moment. Whether it will."""


class Crowded(Exception):
    """Too many of this client's group wait already."""


class Unwanted(Exception):
    """There is no place, and nobody wants this any more."""


@dataclass(slots=True, eq=False)
class _Held:
    claim: Claim
    since: float
    asked_at: float = -inf


@dataclass(slots=True, eq=False)
class _Waiting:
    claim: Claim
    client: str
    group: str
    number: int  # in the order in which all have come
    admitted: asyncio.Future[None]


class Places:
    """`total` places in all, of which one group has at most as many as `of_group` says. Who has had
    one for `quantum` seconds, or some times that where few wait, gives it to another who waits."""

    def __init__(
        self,
        total: int,
        of_group: Callable[[str], int],
        *,
        quantum: float = inf,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self._total = total
        self._of_group = of_group
        self._quantum = quantum
        self._most_waiting = most_waiting
        self._held: dict[Claim, _Held] = {}
        self._of_groups: Counter[str] = Counter()  # of those that are held
        # By client and group, each in the order in which it is their turn.
        self._queues: OrderedDict[str, OrderedDict[str, deque[_Waiting]]] = OrderedDict()
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._change: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queues in self._queues.values() for queue in queues.values())

    def limit(self, total: int) -> None:
        """From now on there are so many. Places that are held beyond that are given back by and by.
        To be called, too, when `of_group` says something else."""
        self._total = total
        self._look()
        self._tell_of_change()

    def is_idle(self, group: str) -> bool:
        """Whether nobody of this group has a place or waits for one."""
        return group not in self._of_groups and all(
            group not in queues for queues in self._queues.values()
        )

    def has_place(self, group: str, leave: float = 0.0, beside: int = 0) -> bool:
        """Whether there is one more; `leave` is the share of the places that is to stay free,
        `beside` how many are about to be taken, of whichever group."""
        if len(self._held) + beside >= self._total * (1 - leave):
            return False
        return self._of_groups[group] + beside < self._of_group(group) * (1 - leave)

    async def take(self, claim: Claim, within: float) -> None:
        """Waits for a place, at most `within` seconds, and holds it until `give`.

        Raises TimeoutError, Crowded, Unwanted.
        """
        if self.has_spare(claim.group):
            self._enter(claim)
            return
        if not claim.is_wanted:
            raise Unwanted
        waiting = self._queue(claim)
        self._look()
        try:
            async with asyncio.timeout(within):
                await waiting.admitted
        except BaseException:
            self._forget(waiting)
            if claim in self._held:  # admitted in the same instant
                self.give(claim)
            raise

    def give(self, claim: Claim) -> None:
        """Leaves its place."""
        del self._held[claim]
        self._of_groups[claim.group] -= 1
        if not self._of_groups[claim.group]:
            del self._of_groups[claim.group]
        if self._queues:
            self._look()
        self._tell_of_change()

    def _tell_of_change(self) -> None:
        if self._change is not None:
            self._change.set_result(None)
            self._change = None

    async def spare(self, group: str, leave: float) -> None:
        """Returns when there is a place that nobody waits for, and some more for who comes next."""
        while not self.has_spare(group, leave):
            if self._change is None:
                self._change = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._change)

    def has_spare(self, group: str, leave: float = 0.0, beside: int = 0) -> bool:
        """See `spare` and `has_place`."""
        is_waited_for = any(group in queues for queues in self._queues.values())
        return not is_waited_for and self.has_place(group, leave, beside)

    def _enter(self, claim: Claim) -> None:
        self._of_groups[claim.group] += 1
        self._held[claim] = _Held(claim, asyncio.get_running_loop().time())

    # Who waits

    def _queue(self, claim: Claim) -> _Waiting:
        queues = self._queues.get(claim.client, OrderedDict())
        count = sum(map(len, self._queues.values()))
        most = max(_LEAST_WAITING, self._most_waiting // max(1, count))
        if len(queues.get(claim.group, ())) >= most:
            raise Crowded
        admitted = asyncio.get_running_loop().create_future()
        waiting = _Waiting(claim, claim.client, claim.group, next(self._numbers), admitted)
        self._append(waiting)
        return waiting

    def _append(self, waiting: _Waiting) -> None:
        queues = self._queues.setdefault(waiting.client, OrderedDict())
        queue = queues.setdefault(waiting.group, deque())
        later = 0  # it keeps its place also where it comes from another client's
        while later < len(queue) and queue[-1 - later].number > waiting.number:
            later += 1
        queue.insert(len(queue) - later, waiting)

    def _forget(self, waiting: _Waiting) -> None:
        queues = self._queues.get(waiting.client)
        queue = queues.get(waiting.group) if queues is not None else None
        if queues is None or queue is None or waiting not in queue:
            return
        queue.remove(waiting)
        if not queue:
            del queues[waiting.group]
        if not queues:
            del self._queues[waiting.client]

    def _look(self) -> None:
        """Gives the places that there are, and asks for those that others should have."""
        self._drop_unwanted()
        self._admit()
        for waiting in self._first_of_groups():
            self._ask_for_place(waiting)
        if self._queues and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._follow_clients()
        self._look()

    def _follow_clients(self) -> None:
        """What is another client's by now waits in that one's turn."""
        everybody = [
            waiting
            for queues in self._queues.values()
            for queue in queues.values()
            for waiting in queue
        ]
        for waiting in everybody:
            if waiting.client != waiting.claim.client:
                self._forget(waiting)
                waiting.client = waiting.claim.client
                self._append(waiting)

    def _drop_unwanted(self) -> None:
        heads = [queue[0] for queues in self._queues.values() for queue in queues.values()]
        for waiting in heads:
            if not waiting.claim.is_wanted:
                self._forget(waiting)
                if not waiting.admitted.done():
                    waiting.admitted.set_exception(Unwanted())

    def _admit(self) -> None:
        while (waiting := self._next()) is not None:
            self._forget(waiting)
            for order, key in ((self._queues, waiting.client),
                               (self._queues.get(waiting.client), waiting.group)):  # fmt: skip
                if order is not None and key in order:  # it has had its turn
                    order.move_to_end(key)
            if not waiting.admitted.done():
                self._enter(waiting.claim)
                waiting.admitted.set_result(None)

    def _next(self) -> _Waiting | None:
        """Whose turn it is, of those for whom there is a place."""
        if len(self._held) >= self._total:
            return None
        groups = {group for queues in self._queues.values() for group in queues}
        free = {group for group in groups if self.has_place(group)}
        return next((one for one in self._in_turn() if one.group in free), None)

    def _in_turn(self) -> Iterable[_Waiting]:
        """The first of each client's groups. Whoever has least comes first."""
        if not self._queues:
            return
        of_client, of_both = self._counts()
        for client in sorted(self._queues, key=of_client.__getitem__):
            queues = self._queues[client]
            for group in sorted(queues, key=lambda group: of_both[client, group]):
                yield queues[group][0]

    def _first_of_groups(self) -> Iterable[_Waiting]:
        found: dict[str, _Waiting] = {}
        for waiting in self._in_turn():
            found.setdefault(waiting.group, waiting)
        return found.values()

    def _counts(self) -> tuple[Counter[str], Counter[tuple[str, str]]]:
        """How many places each client has, and each of its groups."""
        claims = [held.claim for held in self._held.values()]
        return (
            Counter(claim.client for claim in claims),
            Counter((claim.client, claim.group) for claim in claims),
        )

    # Who gives

    def _ask_for_place(self, waiting: _Waiting) -> None:
        now = asyncio.get_running_loop().time()
        of_group = [held for held in self._held.values() if held.claim.group == waiting.group]
        among = (
            of_group
            if len(of_group) >= self._of_group(waiting.group)
            else list(self._held.values())
        )
        if any(now - held.asked_at < TURNS.leaves for held in among):
            return
        for held in self._who_gives(waiting, among, now):
            if held.claim.give_back():
                held.asked_at = now
                return

    def _who_gives(self, waiting: _Waiting, among: Iterable[_Held], now: float) -> Iterable[_Held]:
        """Who should give a place to this one, the first of them first. Of those that have too many
        the ones that came last lose least; in turns, who has had a place longest gives it."""
        among = list(among)
        of_client, of_both = self._counts()
        mine, mine_here = of_client[waiting.client], of_both[waiting.client, waiting.group]
        long = turn_of(len(among), self.waiting, self._quantum)

        def reason(held: _Held) -> tuple[int, int, int, float] | None:
            claim = held.claim
            theirs, here = of_client[claim.client], of_both[claim.client, claim.group]
            if not claim.is_wanted:
                return (0, 0, 0, held.since)
            is_own = claim.client == waiting.client
            if theirs >= mine + 2 if not is_own else here >= mine_here + 2:
                return (1, -theirs, -here, -held.since)
            is_as_rich = claim.group == waiting.group if is_own else theirs > mine
            turn = long * 2.0 ** min(claim.vain_turns, _MOST_DOUBLED)
            if is_as_rich and now - held.since >= turn:
                return (2, -theirs, -here, held.since)
            return None

        reasons = {held: why for held in among if (why := reason(held)) is not None}
        return sorted(reasons, key=reasons.__getitem__)
