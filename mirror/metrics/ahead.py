"""The key `sync`: images that are brought here on a schedule."""

from __future__ import annotations

from ..contracts.events import ConfigReloaded, SyncBegun, SyncEnded
from .instruments import Instruments


def count(make: Instruments) -> None:
    running = make.gauge(
        "sync_running", "Entries of `sync` that run now", "entry", of_many="livesum"
    )
    ended = make.counter(
        "sync_runs",
        "Runs of entries of `sync` that have ended, by result: good, failed (of some image), or "
        "stopped (by a reload, its window, or the mirror's end)",
        "entry",
        "result",
    )
    fetched = make.counter(
        "sync_fetched_bytes", "Bytes that runs of `sync` have brought here", "entry"
    )

    failed = make.gauge(
        "sync_failed_images",
        "Images that the last run of an entry of `sync` did not bring, nor were here already",
        "entry",
        of_many="sum",
    )
    entries = set[str]()

    def begun(event: SyncBegun) -> None:
        running.labels(event.name).inc()

    def over(event: SyncEnded) -> None:
        running.labels(event.name).dec()
        ended.labels(event.name, event.result).inc()
        fetched.labels(event.name).inc(event.fetched)
        failed.labels(event.name).set(event.failed)
        entries.add(event.name)

    def reloaded(_: ConfigReloaded) -> None:
        """Entries may be gone: those that are not run again, and tell anew."""
        for name in entries:
            failed.labels(name).set(0)
        entries.clear()

    make.events.listen(SyncBegun, begun)
    make.events.listen(SyncEnded, over)
    make.events.listen(ConfigReloaded, reloaded)
