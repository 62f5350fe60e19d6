"""The index off the event loop, with its faults survived: the files are the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import apsw
import structlog

from ...threads import Threads, aside
from .index import Index

log = structlog.get_logger()

T = TypeVar("T")


class AsyncIndex:
    def __init__(self, index: Index) -> None:
        self.index = index
        self._threads = Threads(1, "index")  # what is asked of it comes in the order asked

    async def ask(self, work: Callable[..., T], *arguments: object) -> T:
        """Raises what `work`, a method of the index, does. An index that is damaged, or was set
        aside by another process, is begun anew."""
        return await self._threads.run(self.ask_here, work, *arguments)

    async def note(self, work: Callable[..., object], *arguments: object) -> None:
        """As `ask`, but the database's faults are only told."""
        await self._threads.run(self.note_here, work, *arguments)

    async def here(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs `work`, which sees to the database's faults itself, on the index's thread."""
        return await self._threads.run(work, *arguments)

    def note_here(self, work: Callable[..., object], *arguments: object) -> None:
        """As `note`, in this thread, which is not the event loop's. Blocking."""
        try:
            self.ask_here(work, *arguments)
        except (apsw.Error, OSError) as error:
            log.warning("index_does_not_take_a_record", reason=str(error))

    def ask_here(self, work: Callable[..., T], *arguments: object) -> T:
        """As `ask`, in this thread, which is not the event loop's. Blocking."""
        return self.index.database.following(lambda: work(*arguments))

    def known(self, read: Callable[..., T], *arguments: object) -> T | None:
        """What a quick method of the index says; None where it does not answer. For the event loop,
        too."""
        try:
            return read(*arguments)
        except apsw.Error as error:
            log.warning("index_does_not_answer", reason=str(error))
            return None

    async def close(self) -> None:
        await aside(self._threads.close)
        self.index.close()
