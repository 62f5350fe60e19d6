"""What every TagStore must do, whatever is below it: suites to inherit from.

A subclass gives the fixture `store`.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from mirror.contracts.tags import KnownTag, TagEvent, TagRecord, TagStore, TagStoreError
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository

from ..waiting import eventually

REDIS = Repository("docker.io", "library/redis")
T = time.time() // 1 - 10_000
"""A time not long ago: what is old is forgotten."""

INDEX = "application/vnd.oci.image.index.v1+json"


def found(
    text: str = "", size: int | None = 1234, checked_at: float = 1_700_000_000.25
) -> TagRecord:
    """A record of a tag that exists; each text is another digest."""
    return TagRecord(Descriptor(INDEX, Digest.of(text.encode()), size), checked_at)


def missing(checked_at: float = 1_700_000_000.0) -> TagRecord:
    """A record of a tag that the upstream said there is none of."""
    return TagRecord(None, checked_at)


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def event(text: str | None, first_seen: float, last_seen: float) -> TagEvent:
    """What `found(text)`, or `missing`, leaves in the history."""
    return TagEvent(None if text is None else digest(text), first_seen, last_seen)


class TagStoreContract:
    async def test_gives_back_what_was_put(self, store: TagStore) -> None:
        await store.put(REDIS, "7", found("seven"), 3600)
        assert await store.get(REDIS, "7") == found("seven")

    async def test_knows_nothing_of_a_tag_that_was_never_put(self, store: TagStore) -> None:
        assert await store.get(REDIS, "7") is None

    async def test_remembers_that_a_tag_does_not_exist(self, store: TagStore) -> None:
        await store.put(REDIS, "8", missing(), 3600)
        assert await store.get(REDIS, "8") == missing()

    async def test_the_last_put_replaces_the_one_before(self, store: TagStore) -> None:
        await store.put(REDIS, "7", missing(), 3600)
        await store.put(REDIS, "7", found("old"), 3600)
        await store.put(REDIS, "7", found("new"), 3600)
        assert await store.get(REDIS, "7") == found("new")

    async def test_forgets_what_is_deleted(self, store: TagStore) -> None:
        await store.put(REDIS, "7", found(), 3600)
        await store.delete(REDIS, "7")
        assert await store.get(REDIS, "7") is None

    async def test_deleting_what_is_not_there_is_no_error(self, store: TagStore) -> None:
        await store.delete(REDIS, "7")
        assert await store.get(REDIS, "7") is None

    async def test_forgets_by_itself_when_the_time_is_over(self, store: TagStore) -> None:
        await store.put(REDIS, "short", found(), 0.2)
        await store.put(REDIS, "long", found(), 3600)

        async def is_forgotten() -> bool:
            return await store.get(REDIS, "short") is None

        await eventually(is_forgotten)
        assert await store.get(REDIS, "long") == found()

    async def test_putting_again_begins_the_time_anew(self, store: TagStore) -> None:
        await store.put(REDIS, "7", found(), 0.2)
        await store.put(REDIS, "7", found(), 3600)
        await store.put(REDIS, "other", found(), 0.3)

        async def longer_than_the_first_time() -> bool:
            return await store.get(REDIS, "other") is None

        await eventually(longer_than_the_first_time)
        assert await store.get(REDIS, "7") == found()

    @pytest.mark.parametrize("keep_for", [0, -1, -1e12, float("-inf"), float("nan")])
    async def test_f29_no_time_to_keep_means_forgotten(
        self, store: TagStore, keep_for: float
    ) -> None:
        await store.put(REDIS, "7", found("old"), 3600)
        await store.put(REDIS, "7", found("new"), keep_for)
        assert await store.get(REDIS, "7") is None

    @pytest.mark.parametrize("keep_for", [1e12, 1e300, float("inf")])
    async def test_f29_an_absurdly_long_time_is_a_long_time(
        self, store: TagStore, keep_for: float
    ) -> None:
        await store.put(REDIS, "7", found(), keep_for)
        assert await store.get(REDIS, "7") == found()

    @pytest.mark.parametrize("checked_at", [4e9, 0.0, -86400.0])
    async def test_f29_a_time_of_a_wrong_clock_is_kept_as_it_is(
        self, store: TagStore, checked_at: float
    ) -> None:
        await store.put(REDIS, "7", found(checked_at=checked_at), 3600)
        assert await store.get(REDIS, "7") == found(checked_at=checked_at)

    async def test_a_size_that_is_unknown_and_a_sha512_are_kept(self, store: TagStore) -> None:
        record = TagRecord(Descriptor(INDEX, Digest.of(b"x", "sha512"), None), 1.0)
        await store.put(REDIS, "7", record, 3600)
        assert await store.get(REDIS, "7") == record

    async def test_tags_and_repositories_that_look_alike_are_apart(self, store: TagStore) -> None:
        places = [
            (Repository("docker.io", "a"), "b"),
            (Repository("docker.io", "a/b"), "c"),
            (Repository("docker.io", "a/b"), "C"),
            (Repository("docker.io", "a"), "b.c"),
            (Repository("docker.io", "b/c"), "a"),
            (Repository("localhost", "5000/a"), "b"),
            (Repository("localhost:5000", "a"), "b"),
            (Repository("localhost:5000", "a/b"), "b"),
            (Repository("ghcr.io", "a/b"), "c"),
            (Repository("docker.io", "n" * 255), "t" * 128),
        ]
        for repository, tag in places:
            await store.put(repository, tag, found(f"{repository} {tag}"), 3600)
        await store.delete(Repository("docker.io", "a"), "b.c")
        for repository, tag in places:
            wanted = None if tag == "b.c" else found(f"{repository} {tag}")
            assert await store.get(repository, tag) == wanted

    async def test_many_at_once_each_get_their_own(self, store: TagStore) -> None:
        async def one(number: int) -> None:
            for turn in range(5):
                record = found(f"{number} {turn}")
                await store.put(REDIS, str(number), record, 3600)
                assert await store.get(REDIS, str(number)) == record

        await asyncio.gather(*(one(number) for number in range(60)))

    async def test_closing_twice_is_no_error(self, store: TagStore) -> None:
        await store.put(REDIS, "7", found(), 3600)
        await store.close()
        await store.close()


async def listed(store: TagStore, limit: int) -> list[KnownTag]:
    """All that the pages have, one after the other."""
    tags: list[KnownTag] = []
    after: str | None = ""
    while after is not None:
        page = await store.page(after, limit)
        tags += page.tags
        after = page.following
    return tags


class ListingContract:
    """Of every store that can be reached."""

    async def test_an_empty_store_lists_nothing(self, store: TagStore) -> None:
        assert await listed(store, 10) == []

    @pytest.mark.parametrize("limit", [1, 3, 7, 100])
    async def test_pages_of_any_length_have_all_tags(self, store: TagStore, limit: int) -> None:
        places = [
            (Repository("docker.io", "a"), "b"),
            (Repository("docker.io", "a/b"), "c"),
            (Repository("docker.io", "a/b"), "C"),
            (Repository("localhost:5000", "5000/a"), "b"),
            (Repository("docker.io", "n" * 255), "t" * 128),
            (REDIS, "7"),
            (REDIS, "7.0_x-y"),
        ]
        wanted = set()
        for repository, tag in places:
            record = found(f"{repository} {tag}")
            await store.put(repository, tag, record, 3600)
            wanted.add(KnownTag(repository, tag, record))
        assert set(await listed(store, limit)) == wanted

    async def test_a_listing_has_no_tag_that_was_deleted_or_whose_time_is_over(
        self, store: TagStore
    ) -> None:
        await store.put(REDIS, "deleted", found(), 3600)
        await store.put(REDIS, "short", found(), 0.05)
        await store.put(REDIS, "long", found(), 3600)
        await store.put(REDIS, "none", missing(), 3600)
        await store.delete(REDIS, "deleted")

        async def is_forgotten() -> bool:
            return await store.get(REDIS, "short") is None

        await eventually(is_forgotten)
        assert {(tag.tag, tag.record) for tag in await listed(store, 2)} == {
            ("long", found()),
            ("none", missing()),
        }

    async def test_a_tag_that_stays_is_listed_whatever_comes_and_goes_meanwhile(
        self, store: TagStore
    ) -> None:
        for number in range(60):
            await store.put(REDIS, f"tag-{number:02}", found(str(number)), 3600)
        seen: set[str] = set()
        after: str | None = ""
        turn = 0
        while after is not None:
            page = await store.page(after, 5)
            seen |= {tag.tag for tag in page.tags}
            after = page.following
            await store.delete(REDIS, f"tag-{turn * 2:02}")
            await store.put(REDIS, f"new-{turn:02}", found(), 3600)
            turn += 1
        assert seen >= {f"tag-{number:02}" for number in range(1, 60, 2)}

    async def test_a_pages_length_bounds_what_is_read_at_once(self, store: TagStore) -> None:
        for number in range(300):
            await store.put(REDIS, str(number), found(str(number)), 3600)
        page = await store.page("", 10)
        assert len(page.tags) < 100
        assert page.following is not None

    async def test_a_closed_store_lists_nothing_and_says_so(self, store: TagStore) -> None:
        await store.close()
        with pytest.raises(TagStoreError):
            await store.page("", 10)


class HistoryContract:
    """Of every store that can be reached. `found(text)` is another digest for each text."""

    async def test_history_tells_what_a_tag_pointed_to_the_newest_first(
        self, store: TagStore
    ) -> None:
        await store.put(REDIS, "7", found("old", checked_at=T + 1000), 3600)
        await store.put(REDIS, "7", found("new", checked_at=T + 2000.5), 3600)
        await store.put(REDIS, "8", found("eight", checked_at=T + 1500), 3600)
        assert list(await store.history(REDIS, "7")) == [
            event("new", T + 2000.5, T + 2000.5),
            event("old", T + 1000, T + 1000),
        ]

    async def test_a_tag_that_was_never_put_has_no_history(self, store: TagStore) -> None:
        assert list(await store.history(REDIS, "7")) == []

    async def test_the_same_said_again_is_the_same_event(self, store: TagStore) -> None:
        for at in (T + 1000, T + 1300, T + 1600):
            await store.put(REDIS, "7", found("same", checked_at=at), 3600)
        assert list(await store.history(REDIS, "7")) == [event("same", T + 1000, T + 1600)]

    async def test_a_digest_that_came_back_is_another_event(self, store: TagStore) -> None:
        for at, text in ((T + 1000, "a"), (T + 2000, "b"), (T + 3000, "a"), (T + 4000, "a")):
            await store.put(REDIS, "7", found(text, checked_at=at), 3600)
        assert list(await store.history(REDIS, "7")) == [
            event("a", T + 3000, T + 4000),
            event("b", T + 2000, T + 2000),
            event("a", T + 1000, T + 1000),
        ]

    async def test_a_tag_that_went_away_has_that_in_its_history(self, store: TagStore) -> None:
        await store.put(REDIS, "7", found("a", checked_at=T + 1000), 3600)
        await store.put(REDIS, "7", missing(T + 2000), 30)
        await store.put(REDIS, "7", missing(T + 2100), 30)
        await store.put(REDIS, "7", found("a", checked_at=T + 3000), 3600)
        assert list(await store.history(REDIS, "7")) == [
            event("a", T + 3000, T + 3000),
            event(None, T + 2000, T + 2100),
            event("a", T + 1000, T + 1000),
        ]

    async def test_f55_a_name_that_never_was_has_no_history(self, store: TagStore) -> None:
        await store.put(REDIS, "nope", missing(), 3600)
        await store.put(REDIS, "nope", missing(), 3600)
        assert list(await store.history(REDIS, "nope")) == []

    async def test_history_outlives_the_record(self, store: TagStore) -> None:
        await store.put(REDIS, "7", found("a", checked_at=T + 1000), 0.05)
        await store.put(REDIS, "8", found("b", checked_at=T + 1000), 3600)
        await store.delete(REDIS, "8")

        async def is_forgotten() -> bool:
            return await store.get(REDIS, "7") is None

        await eventually(is_forgotten)
        assert list(await store.history(REDIS, "7")) == [event("a", T + 1000, T + 1000)]
        assert list(await store.history(REDIS, "8")) == [event("b", T + 1000, T + 1000)]

    async def test_f55_the_oldest_events_of_a_tag_are_forgotten(self, store: TagStore) -> None:
        for number in range(40):
            await store.put(REDIS, "7", found(str(number), checked_at=T + 1000 + number), 3600)
        history = await store.history(REDIS, "7")
        assert [each.first_seen for each in history] == [T + 1039 - number for number in range(32)]

    async def test_f29_a_clock_that_was_wrong_does_not_end_the_history(
        self, store: TagStore
    ) -> None:
        await store.put(REDIS, "7", found("a", checked_at=4e9), 3600)
        await store.put(REDIS, "7", found("b", checked_at=T + 1000), 3600)
        assert list(await store.history(REDIS, "7")) == [
            event("b", T + 1000, T + 1000),
            event("a", 4e9, 4e9),
        ]
        await store.put(REDIS, "7", found("b", checked_at=-5.0), 3600)
        assert (await store.history(REDIS, "7"))[0] == event("b", -5.0, -5.0)

    async def test_many_notes_at_once_are_one_event(self, store: TagStore) -> None:
        await asyncio.gather(
            *(store.put(REDIS, "7", found("a", checked_at=T + 1000), 3600) for _ in range(30))
        )
        assert list(await store.history(REDIS, "7")) == [event("a", T + 1000, T + 1000)]

    async def test_a_tag_is_frozen_until_it_is_unfrozen(self, store: TagStore) -> None:
        assert await store.frozen(REDIS, "7") is None
        await store.freeze(REDIS, "7", digest("a"))
        assert await store.frozen(REDIS, "7") == digest("a")
        assert await store.frozen(REDIS, "8") is None
        await store.freeze(REDIS, "7", digest("b"))
        assert await store.frozen(REDIS, "7") == digest("b")
        assert await store.unfreeze(REDIS, "7") is True
        assert await store.frozen(REDIS, "7") is None
        assert await store.unfreeze(REDIS, "7") is False

    async def test_a_frozen_tag_has_its_record_and_history_still(self, store: TagStore) -> None:
        await store.freeze(REDIS, "7", digest("a"))
        await store.put(REDIS, "7", found("b", checked_at=T + 1000), 3600)
        assert await store.get(REDIS, "7") == found("b", checked_at=T + 1000)
        assert list(await store.history(REDIS, "7")) == [event("b", T + 1000, T + 1000)]
