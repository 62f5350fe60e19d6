"""What this process fetches for all nodes: a lease each, kept as long as something brings it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from ...contracts.events import ContentCommitted, FillEnded, FillQueued, FillSpilled
from ...contracts.fleet import Holder, Lease, Leases, Wanted
from ...events import Events
from ...times import FLEET


@dataclass(eq=False, slots=True)
class Fetch:
    """A content that this process fetches. `streams`: how many bring it just now; `begun`: how many
    have been, in all."""

    wanted: Wanted
    lease: Lease
    streams: int = 0
    begun: int = 0


class Fetches:
    """A Holding, and the leases behind it.

    A lease belongs to a fill: it is kept between two connections of one, and until what they have
    brought is proven. It is given back at once when they fail, and when the fill ends or waits for
    its turn, so that nobody waits for who does nothing; and when the disk takes no more of it.
    """

    def __init__(self, leases: Leases, events: Events) -> None:
        self._leases = leases
        self._fetches: dict[Wanted, Fetch] = {}
        self._unjoined: dict[int, Wanted] = {}  # fills that nobody can join, until they end
        self._behind: set[asyncio.Task[None]] = set()
        events.listen(ContentCommitted, self._committed)
        events.listen(FillEnded, self._ended)
        events.listen(FillQueued, self._queued)
        events.listen(FillSpilled, self._spilled)

    def fetches(self, wanted: Wanted) -> bool:
        fetch = self._fetches.get(wanted)
        return fetch is not None and not fetch.lease.is_lost

    async def ask(self, wanted: Wanted, instead: Holder | None = None) -> Fetch | Holder | None:
        """As Leases.ask. What is got is to be begun, or goes back by itself. None, too, where the
        disk takes no more of it: nobody is to wait for what cannot be joined."""
        fetch = self._fetches.get(wanted)
        if fetch is not None and not fetch.lease.is_lost:
            return fetch
        answer = await self._leases.ask(wanted, instead)
        if answer is None or isinstance(answer, Holder):
            return answer
        if wanted in self._unjoined.values():
            self._do_behind(answer.give_back())
            return None
        fetch = self._fetches.get(wanted)
        if fetch is None or fetch.lease.is_lost:  # else it was asked for twice
            fetch = self._fetches[wanted] = Fetch(wanted, answer)
            self.expect(fetch)
        return fetch

    def begin(self, fetch: Fetch) -> None:
        """A stream brings it."""
        fetch.streams += 1
        fetch.begun += 1

    def end(self, fetch: Fetch, failed: bool) -> None:
        """The stream has ended."""
        fetch.streams -= 1
        if failed and not fetch.streams and self._fetches.get(fetch.wanted) is fetch:
            self._give_back(fetch.wanted)

    def expect(self, fetch: Fetch) -> None:
        """Within a while it is brought, by one stream more, or proven; or it goes back."""
        asyncio.get_running_loop().call_later(FLEET.small, self._look, fetch, fetch.begun)

    async def close(self) -> None:
        await asyncio.gather(*self._behind, return_exceptions=True)
        self._fetches.clear()

    def _look(self, fetch: Fetch, begun: int) -> None:
        if self._fetches.get(fetch.wanted) is fetch and fetch.begun == begun:
            self._give_back(fetch.wanted)

    def _committed(self, event: ContentCommitted) -> None:
        fetch = self._fetches.pop(Wanted(event.repository.registry, event.digest), None)
        if fetch is not None:
            self._do_behind(fetch.lease.has_come())

    def _ended(self, event: FillEnded) -> None:
        self._unjoined.pop(event.fill, None)
        self._give_back(Wanted(event.repository.registry, event.digest))

    def _queued(self, event: FillQueued) -> None:
        self._give_back(Wanted(event.repository.registry, event.digest))

    def _spilled(self, event: FillSpilled) -> None:
        """A node that has room for it is to fetch it for the others."""
        wanted = self._unjoined[event.fill] = Wanted(event.repository.registry, event.digest)
        self._give_back(wanted)

    def _give_back(self, wanted: Wanted) -> None:
        fetch = self._fetches.pop(wanted, None)
        if fetch is not None:
            self._do_behind(fetch.lease.give_back())

    def _do_behind(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)
