"""Tells the webhooks of administrators what the mirror's side has fetched."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from ...clock import Clock
from ...contracts.events import ContentCommitted
from ...contracts.hosted import HOSTED
from ...contracts.webhooks import Happening, Subject, WebhookRecords
from ...events import Events

log = structlog.get_logger()

_MOST = 1_000  # fills that wait to be recorded; beyond it the newest are not told of
_LOOK = 5.0  # seconds for which it is remembered whether any webhook wants fills
_PAUSE = 0.2  # fills come in bursts, an image's layers at about the same time


class FillTeller:
    """Listens in each process that fetches. A fill is not of the hosted records, so that one which
    ends as the process is killed may not be told of."""

    def __init__(self, records: WebhookRecords, events: Events, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._waiting: deque[Happening] = deque()
        self._came = asyncio.Event()
        self._wanted = False
        self._looked_at = float("-inf")
        events.listen(ContentCommitted, self._committed)

    def _committed(self, event: ContentCommitted) -> None:
        if len(self._waiting) >= _MOST or event.repository.registry == HOSTED:
            return
        repository = f"{event.repository.registry}/{event.repository.name}"
        self._waiting.append(
            Happening(
                Subject.FILL,
                repository,
                self._clock.wall(),
                digest=event.digest,
                media_type=event.media_type,
                size=event.size,
            )
        )
        self._came.set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._came.wait()
            await asyncio.sleep(_PAUSE)
            self._came.clear()
            try:
                await self._tell()
            except Exception as error:  # of the records; what is lost is a word, not content
                self._waiting.clear()
                log.warning("fills_not_told", reason=str(error))

    async def _tell(self) -> None:
        if self._clock.monotonic() - self._looked_at >= _LOOK:
            webhooks = await self._records.webhooks("")
            self._wanted = any(Subject.FILL in webhook.subjects for webhook in webhooks)
            self._looked_at = self._clock.monotonic()
        if not self._wanted:
            self._waiting.clear()
        while self._waiting:
            await self._records.tell(self._waiting.popleft())
