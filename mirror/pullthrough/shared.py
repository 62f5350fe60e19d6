"""What the caches of all registries of a process share."""

from __future__ import annotations

from cachetools import LRUCache

from ..asking.backoff import Backoff
from ..asking.negative_cache import NegativeCache
from ..clock import Clock
from ..contracts.content import ContentStore
from ..contracts.records import Absences, Links, NoReferrerLists, ReferrerLists
from ..contracts.registry import BytesContent
from ..contracts.tags import TagStore
from ..events import Events
from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.reference import Repository
from .fills.table import Fills
from .recently_served import RecentlyServed

_MANIFEST_BYTES = 32 << 20  # kept in memory, so that a hit reads no file


@dataclass(frozen=True, slots=True)
class Shared:
    """The stores that a process has opened, and what it remembers in memory. It outlives a reload
    of the configuration: a cache that is built anew on it goes on as the one before.

    `links` tell which manifests that are here may be given as lists of `referrers`; without them,
    none. `served` is what clients were promised, `missing` what repositories were said to lack,
    `manifests` the memory of manifests; `tag_checks` and `list_checks` are the pauses after checks
    behind the answer that failed.
    """

    store: ContentStore
    tags: TagStore
    fills: Fills
    links: Links | None
    referrers: ReferrerLists
    clock: Clock
    served: RecentlyServed
    missing: NegativeCache
    manifests: LRUCache[Digest, BytesContent]
    tag_checks: Backoff[tuple[Repository, str]]
    list_checks: Backoff[tuple[Repository, Digest]]

    @classmethod
    def over(
        cls,
        store: ContentStore,
        tags: TagStore,
        fills: Fills,
        links: Links | None = None,
        referrers: ReferrerLists | None = None,
        clock: Clock | None = None,
        absences: Absences | None = None,
    ) -> Shared:
        """Over these stores, with nothing remembered yet. `absences`: what other nodes were told is
        missing, where they share it."""
        clock = clock or Clock()
        return cls(
            store,
            tags,
            fills,
            links,
            referrers or NoReferrerLists(),
            clock,
            RecentlyServed(store, clock),
            NegativeCache(clock, absences),
            LRUCache(_MANIFEST_BYTES, getsizeof=lambda content: len(content.data)),
            Backoff(clock.monotonic),
            Backoff(clock.monotonic),
        )

    @property
    def events(self) -> Events:
        return self.fills.events

    def forget_content(self) -> None:
        """What is remembered in memory of what is here, and what is not: it may have been purged,
        or imported."""
        self.manifests.clear()
        self.missing.clear()

    def forget(self, registry: str) -> None:
        """What is remembered in memory of this registry: nobody asks it any more."""
        self.served.forget(registry)
        self.missing.forget(registry)
        self.tag_checks.forget(registry)
        self.list_checks.forget(registry)
