"""Delivers what the records have for webhooks, in the process that holds the store."""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from ...clock import Clock
from ...contracts.events import WebhookAttempted, WebhooksCounted
from ...contracts.webhooks import Answer, Due, NotReceived, Poster, WebhookRecords
from ...events import Events
from ...oci.errors import Unavailable
from ...tasks import ended
from .envelope import Source, body_of, headers_of
from .schedule import GIVE_UP, verdict

log = structlog.get_logger()

_PLACES = 32  # deliveries under way
_OF_ONE = 4  # of one webhook; 1 while nobody takes its deliveries
_OF_NAMESPACE = 8
_LEASE = 40.0  # longer than a delivery may take: after it, who had claimed it has died
_LONGEST = 30.0
_POLL = 1.0
_POLL_BROKEN = 5.0  # while the records cannot be read
_UPKEEP = 15.0


class Webhooks:
    """Several may run, on nodes that share their records: each delivery is claimed. It may come
    twice where a sender dies between a receiver's answer and its note, and the id tells."""

    def __init__(
        self,
        records: WebhookRecords,
        poster: Poster,
        source: Source,
        events: Events,
        clock: Clock,
    ) -> None:
        self._records = records
        self._poster = poster
        self._source = source
        self._events = events
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], Due] = {}
        self._woken = asyncio.Event()
        self._upkeep_at = clock.monotonic()

    def wake(self) -> None:
        """Something is due: what others record is found within _POLL seconds without this."""
        self._woken.set()

    async def run(self) -> None:
        """Never returns. What is under way when this is cancelled is tried again later."""
        try:
            while True:
                pause = await self._turn()
                try:
                    async with asyncio.timeout(pause):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()
        finally:
            for task in self._under_way:
                task.cancel()
            await ended(tuple(self._under_way))

    async def _turn(self) -> float:
        """Begins what is due; seconds until the next turn."""
        try:
            while await self._begin_some():
                pass
            if self._clock.monotonic() >= self._upkeep_at:
                await self._keep_up()
                self._upkeep_at = self._clock.monotonic() + _UPKEEP
        except Exception as error:  # whatever it is, it is of the records, and passes
            self._note_broken(error)
            return _POLL_BROKEN
        return _POLL

    async def _begin_some(self) -> bool:
        """Claims one delivery at most of each webhook, and no more than any namespace that is
        claimed for has places left."""
        webhooks = Counter(due.webhook.id for due in self._under_way.values())
        namespaces = Counter(due.webhook.namespace for due in self._under_way.values())
        full = {name for name, count in namespaces.items() if count >= _OF_NAMESPACE}
        most = max((n for name, n in namespaces.items() if name not in full), default=0)
        count = min(_PLACES - len(self._under_way), _OF_NAMESPACE - most)
        if count <= 0:
            return False
        troubled = {due.webhook.id for due in self._under_way.values() if due.webhook.failures}
        busy = troubled | {id for id, under_way in webhooks.items() if under_way >= _OF_ONE}
        now = self._clock.wall()
        claimed = await self._records.claim(now, now + _LEASE, count, busy, full)
        for due in claimed:
            task = asyncio.create_task(self._deliver(due), name="webhook")
            self._under_way[task] = due
            task.add_done_callback(self._done)
        return bool(claimed)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note_broken(error)  # the attempt is not recorded, and made again
        self._woken.set()

    async def _deliver(self, due: Due) -> None:
        delivery, webhook = due.delivery, due.webhook
        began = self._clock.monotonic()
        body = body_of(due, self._source)
        outcome: Answer | NotReceived
        try:
            async with asyncio.timeout(_LONGEST):
                headers = headers_of(due, body, self._clock.wall())
                outcome = await self._poster.post(webhook.url, headers, body)
        except NotReceived as error:
            outcome = error
        except TimeoutError:
            outcome = NotReceived(f"no answer within {_LONGEST:g} s")
        found = verdict(outcome, delivery.attempts, webhook.failures)
        now = self._clock.wall()
        await self._records.attempted(
            delivery.id,
            now,
            found.state,
            found.status,
            found.words,
            None if found.pause is None else now + found.pause,
            None if found.rest is None else now + found.rest,
        )
        took = self._clock.monotonic() - began
        self._events.emit(WebhookAttempted(found.result, found.pause is None, took))

    async def _keep_up(self) -> None:
        now = self._clock.wall()
        given_up = await self._records.trim_deliveries(now, now - GIVE_UP)
        backlog = await self._records.backlog()
        oldest = 0.0 if backlog.oldest_at is None else max(0.0, now - backlog.oldest_at)
        self._events.emit(WebhooksCounted(backlog.waiting, oldest, backlog.dropped, given_up))

    def _note_broken(self, error: BaseException) -> None:
        is_known = isinstance(error, (Unavailable, OSError))
        log.warning("webhooks_wait", reason=str(error), exc_info=None if is_known else error)
