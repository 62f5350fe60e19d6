"""Tags that are frozen: to a digest, or to what they pointed to at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from ...clock import Clock
from ...contracts.tags import TagEvent, TagStore, TagStoreError
from ...oci.digest import Digest
from ...oci.errors import Denied, Unavailable
from ...oci.reference import Repository
from ..policy import Pins

log = structlog.get_logger()


class Pinned:
    """What the tag memory says is frozen (by command), then what the configuration says.

    The command goes first: it is the later word, and often the more urgent. A time that has not
    come yet freezes nothing: until then the tag is followed.
    """

    def __init__(self, pins: Pins, memory: TagStore, clock: Clock) -> None:
        self._pins = pins
        self._memory = memory
        self._clock = clock
        # What is past does not change; so the tag memory is asked about it once.
        self._found: dict[tuple[Repository, str], Digest] = {}

    async def digest(self, repository: Repository, tag: str) -> Digest | None:
        """What the tag is frozen to; None when it is not.

        Raises Denied when nobody knows what it was at that time, Unavailable when the tag memory
        cannot say: any other answer might be just what it was frozen against.
        """
        try:
            commanded = await self._memory.frozen(repository, tag)
        except TagStoreError:
            commanded = None
        if commanded is not None:
            return commanded
        pin = self._pins.get((repository, tag))
        if not isinstance(pin, datetime):
            return pin
        if pin.timestamp() > self._clock.wall():
            return None
        found = self._found.get((repository, tag))
        if found is None:
            found = self._found[repository, tag] = await self._past(repository, tag, pin)
            log.info("tag_frozen", image=f"{repository}:{tag}", at=spoken(pin), digest=str(found))
        return found

    async def _past(self, repository: Repository, tag: str, at: datetime) -> Digest:
        image = f"{repository}:{tag}"
        try:
            events = await self._memory.history(repository, tag)
        except TagStoreError:
            raise Unavailable(
                f"{image} is frozen to what it was at {spoken(at)}, and the tag memory does not "
                "answer now",
                retry_after=5,
            ) from None
        event = event_at(events, at)
        if event is None:
            raise Denied(
                f"{image} is frozen to what it was at {spoken(at)}, of which nothing is known "
                "here; pin it to a digest instead"
            )
        if event.digest is None:
            raise Denied(f"{image} is frozen to what it was at {spoken(at)}: there was none then")
        return event.digest


def event_at(events: Sequence[TagEvent], at: datetime) -> TagEvent | None:
    """What was so at this time: the last event that had begun. `events` are the newest first."""
    return next((event for event in events if event.first_seen <= at.timestamp()), None)


def spoken(at: datetime) -> str:
    """`2026-11-01`, or `2026-11-01T12:30:00Z`: as it may be written in the configuration."""
    utc = at.astimezone(UTC)
    midnight = utc.time().replace(tzinfo=None) == datetime.min.time()
    return utc.strftime("%Y-%m-%d" if midnight else "%Y-%m-%dT%H:%M:%SZ")
