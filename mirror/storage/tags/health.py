"""Whether a tag store works, told to the log when it changes and not at every request."""

from __future__ import annotations

import structlog

from ...contracts.events import TagStoreSwitched
from ...events import Events

log = structlog.get_logger()


class Health:
    """One thing a store does: works, or fails for a reason."""

    def __init__(self, store: str, ability: str, events: Events) -> None:
        self._store = store
        self._ability = ability
        self._events = events
        self._reason: str | None = None
        self._tell()

    @property
    def ok(self) -> bool:
        return self._reason is None

    def failed(self, reason: str) -> None:
        """Logs when this is news. `reason` is of a few fixed kinds, and holds no secret."""
        if reason != self._reason:
            log.warning(
                "tag_store_failing", store=self._store, ability=self._ability, reason=reason
            )
        was_ok, self._reason = self.ok, reason
        if was_ok:
            self._tell()

    def worked(self) -> None:
        if self._reason is not None:
            log.info("tag_store_works_again", store=self._store, ability=self._ability)
            self._reason = None
            self._tell()

    def _tell(self) -> None:
        self._events.emit(TagStoreSwitched(self._store, self._ability, self.ok))
