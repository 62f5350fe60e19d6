"""How many connections bring one blob, where one is slower than the link might be.

Their number grows with success, and stops where more does not help or the upstream objects. It does
not begin to grow where bytes wait for this mirror, and not the mirror for them: those of more
connections would wait as well.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from ...frozen import dataclass
from .fill import Fill

log = structlog.get_logger()

_LOOKS = 4  # measurements in the time that more connections have to show that they help
_FIRST = 256 << 10  # bytes, which are taken in small pieces
_PAUSE = 3.0  # times `measure`: before it is tried again, and twice that the next time


@dataclass(frozen=True, slots=True)
class ParallelPolicy:
    """When and how a download is parted. Sizes in bytes, `measure` in seconds.

    `over`: a blob, or the rest of one, that is smaller comes over one connection, unless it would
    take more than `long` seconds; so does one that comes with `fast` bytes a second, or faster than
    it is taken, and one that no client has asked for yet. More connections are kept when they make
    it `gain` times as fast within `measure`. `part` is what a connection takes at a time: large
    beside what a round trip costs, small beside the blob. `connections` 1: never.
    """

    over: int = 64 << 20
    long: float = 3.0
    fast: float = 40 << 20
    part: int = 8 << 20
    connections: int = 8
    measure: float = 1.0
    gain: float = 1.25

    def may_part(self, size: int) -> bool:
        """Whether so many bytes may come over several connections."""
        return self.connections > 1 and size >= min(self.over, 2 * self.part)


ALONE = ParallelPolicy(connections=1)
"""All from one source, of which no range comes on its own either."""


class Parted(Protocol):
    """What brings a blob, and may do so over more connections."""

    wanted: int
    """How many connections it takes, as far as there are parts for them."""

    @property
    def came(self) -> int:
        """Bytes, by now."""

    @property
    def waited(self) -> int:
        """Bytes of these, by now, that had come before this mirror took them."""

    @property
    def missing(self) -> int:
        """Bytes that are to come yet."""

    @property
    def objects(self) -> bool:
        """Whether the upstream has refused one connection more."""

    @property
    def all_bring(self) -> bool:
        """Whether each connection that is wanted has brought something."""

    def more(self) -> None:
        """More connections are wanted: begins them."""


async def grow(download: Parted, fill: Fill, policy: ParallelPolicy) -> None:
    """Doubles the number of connections as long as that helps. Ends when no more are worth it."""
    is_large = download.missing >= policy.over
    speed = await _awaited(download, fill, policy)
    pause = _PAUSE
    while download.wanted < policy.connections and _is_slow(download, speed, is_large, policy):
        before = download.wanted
        download.wanted = min(before * 2, policy.connections)
        download.more()
        faster = await _faster_than(download, speed * policy.gain, policy)
        if faster is None or download.objects:
            download.wanted = min(download.wanted, before)
            if download.objects:
                return
            # It may have been the moment: what else is on the link comes and goes.
            await asyncio.sleep(pause * policy.measure)
            pause, speed = pause * 2, await _awaited(download, fill, policy)
            continue
        speed = faster
        log.info(
            "download_parted",
            digest=str(fill.digest),
            connections=download.wanted,
            bytes_per_second=round(speed),
        )


def _is_slow(download: Parted, speed: float, is_large: bool, policy: ParallelPolicy) -> bool:
    """Whether more connections are worth trying."""
    takes_long = download.missing > speed * policy.long
    return speed < policy.fast and (is_large or takes_long)


async def _awaited(download: Parted, fill: Fill, policy: ParallelPolicy) -> float:
    """The speed, as soon as a client has asked for it, and the mirror waits for what comes behind
    the first of it; that nothing comes at all is known after `measure`."""
    quiet = 0
    while True:
        came, waited = download.came, download.waited
        speed = await _measured(download, policy)
        quiet = 0 if speed else quiet + 1
        is_awaited = 2 * (download.waited - waited) < download.came - came and came >= _FIRST
        if fill.is_asked_for and (is_awaited or quiet >= _LOOKS):
            return speed


async def _faster_than(download: Parted, least: float, policy: ParallelPolicy) -> float | None:
    """The speed, as soon as it is that; None when it is not in time."""
    for _ in range(_LOOKS):
        all_bring = download.all_bring
        speed = await _measured(download, policy)
        if all_bring and speed >= least:
            return speed
    return None


async def _measured(download: Parted, policy: ParallelPolicy) -> float:
    came, loop = download.came, asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(policy.measure / _LOOKS)
    return (download.came - came) / (loop.time() - began)
