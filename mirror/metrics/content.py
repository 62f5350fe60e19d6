"""What is kept: content and its eviction, the store's upkeep, the second tier, the tag memory."""

from __future__ import annotations

from ..contracts.events import (
    BlobRedirected,
    CatalogueDropped,
    ContentEvicted,
    ContentPurged,
    ContentQuarantined,
    SecondTierAsked,
    SecondTierBacklog,
    SecondTierFailed,
    SecondTierGiven,
    SecondTierMissed,
    SecondTierSwept,
    SecondTierWrong,
    TagStoreFailed,
    TagStoreSwitched,
    UpkeepEnded,
)
from .instruments import Instruments

_SOON = 3600.0  # seconds: content that is gone so soon was of use for one pull at most
_DAY = 86400.0
_UNUSED = (60, 600, 3600, 6 * 3600, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 90 * _DAY)


def count(make: Instruments) -> None:
    _evicted(make)
    _purged(make)
    _upkeep(make)
    _second_tier(make)
    _sweeps(make)
    _tags(make)
    lost = make.counter(
        "catalogue_dropped",
        "Things that happened and did not get into the catalogue of images: it is built anew later",
    )
    make.events.listen(CatalogueDropped, lambda event: lost.inc(event.count))


def _evicted(make: Instruments) -> None:
    evicted = make.counter(
        "evicted", "Pieces of content (blobs, manifests) removed to make room for others"
    )
    size = make.counter("evicted_bytes", "Bytes of content removed to make room for others")
    soon = make.counter(
        "evicted_soon",
        "Pieces of content evicted within an hour after they were downloaded: the cache is too "
        "small for what is pulled",
    )
    unused = make.histogram(
        "evicted_unused_seconds",
        "For how many seconds evicted content had not been used. What is evicted unused for weeks "
        "is no loss; where it is hours, a larger max_size saves downloads",
        _UNUSED,
    )

    def happened(event: ContentEvicted) -> None:
        evicted.inc()
        size.inc(event.size)
        if event.unused is not None:
            unused.observe(event.unused)
        if event.age is not None and event.age < _SOON:
            soon.inc()

    make.events.listen(ContentEvicted, happened)


def _purged(make: Instruments) -> None:
    purged = make.counter("purged", "Pieces of content removed because somebody purged an image")
    size = make.counter("purged_bytes", "Bytes of content removed by purge")

    def happened(event: ContentPurged) -> None:
        purged.inc()
        size.inc(event.size)

    make.events.listen(ContentPurged, happened)


def _upkeep(make: Instruments) -> None:
    rotten = make.counter(
        "content_rotten",
        "Pieces of content found damaged on the disk, and set aside: they are downloaded again "
        "when they are asked for",
    )
    make.events.listen(ContentQuarantined, lambda _: rotten.inc())
    runs = make.counter(
        "upkeep_runs",
        "Rounds of the store's upkeep that have ended, by work: mend (after a crash), tidy (old "
        "downloads, eviction down to the marks), settle (what killed processes had reserved), "
        "scrub (all content is rehashed); and by result: ok or failed",
        "work",
        "result",
    )
    last = make.gauge(
        "upkeep_last_run_timestamp_seconds",
        "When a round of the store's upkeep last ended with this result, in Unix time. Where "
        "failed is later than ok, it fails now",
        "work",
        "result",
        of_many="max",
    )

    def ended(event: UpkeepEnded) -> None:
        for each in ("ok", "failed"):  # from the beginning, so that a first failure shows
            runs.labels(event.work, each)
        result = "ok" if event.went_well else "failed"
        runs.labels(event.work, result).inc()
        last.labels(event.work, result).set(event.at)

    make.events.listen(UpkeepEnded, ended)


def _second_tier(make: Instruments) -> None:
    asked = make.counter(
        "second_tier_asks",
        "Times that the second tier was asked for content that is not here, by result: hit, miss, "
        "or away (no answer, a refusal, or not asked as it was away a moment ago)",
        "result",
    )
    make.events.listen(SecondTierAsked, lambda event: asked.labels(event.result).inc())
    faults = make.counter(
        "second_tier_faults",
        "Times that an object store behind the disk did not do what it was asked: get, look, put",
        "operation",
    )
    make.events.listen(SecondTierFailed, lambda event: faults.labels(event.operation).inc())
    kept = make.counter(
        "second_tier_kept",
        "Pieces of content that were due to be given to the second tier, and that it has now",
    )
    failed = make.counter(
        "second_tier_failed",
        "Times that the second tier did not take a piece of content: it is tried again",
    )
    sent = make.counter("second_tier_sent_bytes", "Bytes of content given to the second tier")

    def given(event: SecondTierGiven) -> None:
        (kept if event.kept else failed).inc()
        sent.inc(event.sent)

    make.events.listen(SecondTierGiven, given)
    missed = make.counter(
        "second_tier_dropped",
        "Pieces of content evicted here before the second tier was given them: they come from "
        "upstream the next time",
    )
    make.events.listen(SecondTierMissed, lambda _: missed.inc())
    waiting = make.gauge(
        "second_tier_backlog",
        "Pieces of content here that the second tier is yet to be given",
        of_many="max",
    )
    oldest = make.gauge(
        "second_tier_backlog_oldest_seconds",
        "How long the oldest of them has been here; 0 where none has come since there is a second "
        "tier",
        of_many="max",
    )

    def backlog(event: SecondTierBacklog) -> None:
        waiting.set(event.count)
        oldest.set(event.oldest)

    make.events.listen(SecondTierBacklog, backlog)
    wrong = make.counter(
        "second_tier_wrong",
        "Times that the second tier had other bytes than a digest says, by whether they were set "
        "aside there (yes or no). They were fetched from upstream",
        "set_aside",
    )
    make.events.listen(
        SecondTierWrong,
        lambda event: wrong.labels("yes" if event.set_aside else "no").inc(),
    )


def _sweeps(make: Instruments) -> None:
    runs = make.counter(
        "second_tier_sweeps", "Sweeps of the object store that have ended, by result", "result"
    )
    last = make.gauge(
        "second_tier_last_sweep_timestamp_seconds",
        "When a sweep of the object store by this node last ended well, in Unix time",
        of_many="max",
    )
    size = make.gauge(
        "second_tier_bytes",
        "Bytes of cached content in the object store, as this node's last sweep has counted them",
        of_many="max",
    )
    gone = make.counter(
        "second_tier_swept",
        "Objects that sweeps have removed, by why: old (storage.s3.keep), room "
        "(storage.s3.max_size), wrong (set aside a month ago)",
        "why",
    )
    freed = make.counter("second_tier_swept_bytes", "Bytes of objects that sweeps have removed")

    def swept(event: SecondTierSwept) -> None:
        for result in ("done", "failed"):  # from the beginning, so that a first failure shows
            runs.labels(result)
        runs.labels("failed" if event.failed else "done").inc()
        if event.failed:
            return
        last.set(event.at)
        size.set(event.bytes)
        for why, (objects, amount) in event.gone.items():
            gone.labels(why).inc(objects)
            freed.inc(amount)

    make.events.listen(SecondTierSwept, swept)
    redirects = make.counter(
        "second_tier_redirects", "Blobs that clients were told to fetch from the object store"
    )
    make.events.listen(BlobRedirected, lambda _: redirects.inc())


def _tags(make: Instruments) -> None:
    errors = make.counter(
        "tag_store_errors",
        "Operations of the tag memory that failed. Pulls go on; tags are asked of the upstream "
        "more often",
        "store",
        "operation",
    )
    make.events.listen(
        TagStoreFailed, lambda event: errors.labels(event.store, event.operation).inc()
    )
    failing = make.gauge(
        "tag_store_failing",
        "1 while the tag memory cannot do what it is there for (ability), 0 while it can. What is "
        "learnt meanwhile is kept in memory, and lost at a restart",
        "store",
        "ability",
        of_many="livemax",
    )

    def switched(event: TagStoreSwitched) -> None:
        failing.labels(event.store, event.ability).set(not event.works)
        for operation in ("get", "put", "delete"):  # from the beginning, so that a first one shows
            errors.labels(event.store, operation)

    make.events.listen(TagStoreSwitched, switched)
