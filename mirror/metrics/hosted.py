"""Repositories of one's own: what is pushed and deleted, what collections and retention remove."""

from __future__ import annotations

from ..contracts.events import (
    BlobDeleted,
    BlobPushed,
    CollectionEnded,
    HeldContentChecked,
    ManifestDeleted,
    ManifestPushed,
    RetentionEnded,
    TagDeleted,
)
from .instruments import Instruments


def count(make: Instruments) -> None:
    _pushes(make)
    _deletes(make)
    _collections(make)
    _retention(make)


def _pushes(make: Instruments) -> None:
    pushed = make.counter(
        "hosted_pushed",
        "What was pushed to repositories of one's own, by kind: manifest, or blob (uploaded or "
        "mounted, also where its bytes were here before)",
        "kind",
    )
    size = make.counter("hosted_pushed_bytes", "Bytes of what was pushed, by kind", "kind")

    def blob(event: BlobPushed) -> None:
        pushed.labels("blob").inc()
        size.labels("blob").inc(event.size)

    def manifest(event: ManifestPushed) -> None:
        pushed.labels("manifest").inc()
        size.labels("manifest").inc(event.size)

    make.events.listen(BlobPushed, blob)
    make.events.listen(ManifestPushed, manifest)


def _deletes(make: Instruments) -> None:
    deleted = make.counter(
        "hosted_deleted",
        "What people, programs and retention deleted of repositories of one's own, by kind: tag, "
        "manifest or blob",
        "kind",
    )
    make.events.listen(TagDeleted, lambda _: deleted.labels("tag").inc())
    make.events.listen(ManifestDeleted, lambda _: deleted.labels("manifest").inc())
    make.events.listen(BlobDeleted, lambda _: deleted.labels("blob").inc())


def _collections(make: Instruments) -> None:
    runs = make.counter(
        "hosted_collections",
        "Garbage collections that have ended, by result: done, stopped (the clock was set, or the "
        "mirror stopped) or failed",
        "result",
    )
    last = make.gauge(
        "hosted_collection_last_run_timestamp_seconds",
        "When a garbage collection last ended with this result, in Unix time. Where failed is "
        "later than done, it fails now",
        "result",
        of_many="max",
    )
    collected = make.counter(
        "hosted_collected",
        "What garbage collections have removed, by kind: blob (out of a repository), repository "
        "(nothing was ever pushed to it whole), or content (out of the store)",
        "kind",
    )
    size = make.counter("hosted_collected_bytes", "Bytes that collections gave back to the disk")

    def ended(event: CollectionEnded) -> None:
        for each in ("done", "stopped", "failed"):  # so that a first failure shows
            runs.labels(each)
        runs.labels(event.result).inc()
        last.labels(event.result).set(event.at)
        collected.labels("blob").inc(event.blobs)
        collected.labels("repository").inc(event.repositories)
        collected.labels("content").inc(event.content)
        size.inc(event.freed)

    make.events.listen(CollectionEnded, ended)
    missing = make.gauge(
        "hosted_content_missing",
        "Pieces of content that repositories of one's own need, and that are not in the store. "
        "Looked at from the start on, and at each collection. Above 0, images cannot be pulled",
        of_many="max",
    )
    make.events.listen(HeldContentChecked, lambda event: missing.set(event.missing))


def _retention(make: Instruments) -> None:
    removed = make.counter(
        "hosted_retention_removed", "What retention rules have removed, by kind", "kind"
    )
    failed = make.gauge(
        "hosted_retention_failed",
        "Repositories whose retention rules could not be followed when it was last tried",
        of_many="max",
    )

    def ended(event: RetentionEnded) -> None:
        removed.labels("tag").inc(event.tags)
        removed.labels("manifest").inc(event.manifests)
        failed.set(event.failed)

    make.events.listen(RetentionEnded, ended)
