"""Reading along with this node's other processes, for other nodes: nothing is begun here, and
nothing is gone on with that somebody else has begun."""

from __future__ import annotations

import asyncio

import structlog

from ...clock import Clock
from ...contracts.content import ContentStore
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable
from ...oci.reference import Repository
from ...tasks import ended
from ...times import DOWNLOADS
from .fill import Fill
from .following import WriterGone, follow
from .states import FillState

log = structlog.get_logger()

_NAME = "fleet"  # of the repository, which nobody asks for
_MOST = 256  # fills that are read along


class Along:
    """One a content, as long as anybody reads it."""

    def __init__(self, store: ContentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._fills: dict[tuple[str, Digest], Fill] = {}
        self._tasks: dict[Fill, asyncio.Task[None]] = {}

    async def fill(self, registry: str, digest: Digest) -> Fill | None:
        """What another process of this node fetches; None when none does. To be read at once."""
        key = (registry, digest)
        if key not in self._fills and len(self._fills) < _MOST:
            followed = await self._store.follow(digest, registry)
            if followed is None:
                return None
            followed.close()
            if key not in self._fills:
                fill = self._fills[key] = Fill(digest, Repository(registry, _NAME), 0.0)
                fill.on_left = self._left
                self._tasks[fill] = asyncio.create_task(self._run(fill), name=f"along {digest}")
        return self._fills.get(key)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await ended(tasks)

    def _left(self, fill: Fill) -> None:
        task = self._tasks.get(fill)
        if task is not None and not fill.readers:
            task.cancel()

    async def _run(self, fill: Fill) -> None:
        try:
            partial = await follow(fill, self._store, self._clock, DOWNLOADS.stalled, _nothing)
            if partial is None:
                fill.enter(FillState.FOLLOWED)
            else:
                await partial.suspend()
                fill.fail(Unavailable("the process that has fetched it died", retry_after=1))
        except WriterGone:
            fill.fail(Unavailable("the process that has fetched it gave it up", retry_after=1))
        except RegistryError as error:
            fill.fail(error)
        except OSError as error:
            log.warning("other_process_not_followed", digest=str(fill.digest), reason=str(error))
            fill.fail(Unavailable("what another process writes cannot be read", retry_after=1))
        finally:
            if not fill.is_over:  # nobody reads it any more, or the mirror stops
                fill.fail(Unavailable("nobody reads along"))
            self._fills.pop((fill.repository.registry, fill.digest), None)
            self._tasks.pop(fill, None)


async def _nothing() -> None:
    """Ranges that the other process has not brought come as it brings them."""
    await asyncio.Event().wait()
