"""What every ContentStore must do. A suite for a store derives from this and gives a `store`."""

from __future__ import annotations

import pytest

from mirror.contracts.content import ContentStore, StoreFull
from mirror.contracts.registry import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import Untrustworthy


async def put(store: ContentStore, data: bytes, refers_to: tuple[Digest, ...] = ()) -> Digest:
    """Stores these bytes the way a fill does."""
    digest = Digest.of(data)
    partial = await store.partial(digest)
    assert partial is not None
    await partial.announce(len(data))
    await partial.append([data])
    await partial.commit(refers_to)
    return digest


async def content(store: ContentStore, digest: Digest) -> bytes | None:
    """What a reader gets."""
    file = await store.open(digest)
    if file is None:
        return None
    try:
        return file.pread(await file.readable(0), 0)
    finally:
        file.close()


class ContentContract:
    async def test_what_was_committed_is_there(self, store: ContentStore) -> None:
        digest = await put(store, b"layer")
        assert await content(store, digest) == b"layer"
        assert await store.read(digest, limit=100) == b"layer"

    async def test_what_was_not_is_not(self, store: ContentStore) -> None:
        assert await store.open(Digest.of(b"nothing")) is None
        assert await store.read(Digest.of(b"nothing"), limit=100) is None

    async def test_nothing_is_visible_before_commit(self, store: ContentStore) -> None:
        digest = Digest.of(b"whole")
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"who", b"le"])
        assert await store.open(digest) is None
        await partial.commit()
        assert await content(store, digest) == b"whole"

    async def test_f01_wrong_bytes_are_refused_and_removed(self, store: ContentStore) -> None:
        digest = Digest.of(b"right")
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"wrong"])
        with pytest.raises(Untrustworthy):
            await partial.commit()
        assert await store.open(digest) is None
        again = await store.partial(digest)
        assert again is not None
        assert again.offset == 0
        await again.discard()

    async def test_what_was_put_is_there(self, store: ContentStore) -> None:
        child = await put(store, b"a layer")
        digest = Digest.of(b"a manifest")
        await store.put(digest, b"a manifest", [child])
        assert await content(store, digest) == b"a manifest"
        assert store.usage().reserved_bytes == 0
        partial = await store.partial(digest)  # nobody holds it any more
        assert partial is not None
        await partial.discard()

    async def test_what_its_content_needs_is_known(self, store: ContentStore) -> None:
        layer, manifest = Digest.of(b"a layer"), Digest.of(b"a manifest")
        assert not store.is_needed(layer)
        await store.put(manifest, b"a manifest", [layer])
        assert store.is_needed(layer)
        assert not store.is_needed(manifest)
        await store.delete(manifest)
        assert not store.is_needed(layer)

    async def test_f01_wrong_bytes_are_not_put(self, store: ContentStore) -> None:
        digest = Digest.of(b"right")
        with pytest.raises(Untrustworthy):
            await store.put(digest, b"wrong")
        assert await content(store, digest) is None
        assert store.usage().reserved_bytes == 0
        await store.put(digest, b"right")
        assert await content(store, digest) == b"right"

    async def test_what_is_being_written_is_put_or_not(self, store: ContentStore) -> None:
        digest = Digest.of(b"right")
        partial = await store.partial(digest)
        assert partial is not None
        kept = await store.put(digest, b"right")
        assert await content(store, digest) == (b"right" if kept else None)
        await partial.append([b"rig"])
        await partial.suspend()  # as by a writer that was stopped: who puts begins anew
        await store.put(digest, b"right")
        assert await content(store, digest) == b"right"

    async def test_more_than_the_store_can_hold_is_not_put(self, store: ContentStore) -> None:
        data = bytes(store.usage().max_bytes + 1)
        with pytest.raises(StoreFull):
            await store.put(Digest.of(data), data)
        assert store.usage().reserved_bytes == 0

    async def test_room_is_made_for_what_is_put(self, store: ContentStore) -> None:
        size = store.usage().max_bytes * 2 // 3
        for byte in (b"a", b"b"):
            await store.put(Digest.of(byte * size), byte * size)
        assert await content(store, Digest.of(b"a" * size)) is None
        assert await content(store, Digest.of(b"b" * size)) == b"b" * size

    async def test_one_writer_a_digest(self, store: ContentStore) -> None:
        digest = Digest.of(b"once")
        first = await store.partial(digest)
        assert first is not None
        assert await store.partial(digest) is None
        await first.suspend()
        second = await store.partial(digest)
        assert second is not None
        await second.discard()

    async def test_a_suspended_partial_is_resumed(self, store: ContentStore) -> None:
        digest = Digest.of(b"first half, second half")
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"first half, "])
        await partial.suspend()
        resumed = await store.partial(digest)
        assert resumed is not None
        assert resumed.offset == len(b"first half, ")
        await resumed.append([b"second half"])
        await resumed.commit()
        assert await content(store, digest) == b"first half, second half"

    async def test_a_reader_follows_a_growing_partial(self, store: ContentStore) -> None:
        digest = Digest.of(b"growing")
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"grow"])
        file = partial.open()
        assert file.pread(100, 0) == b"grow"
        await partial.append([b"ing"])
        await partial.commit()
        assert file.pread(100, 0) == b"growing"
        file.close()

    async def test_what_is_placed_ahead_is_read_and_kept(self, store: ContentStore) -> None:
        digest = Digest.of(b"0123456789")
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"01"])
        await partial.place(8, [b"8", b"9"])
        await partial.place(4, [b"45"], vouched=True)
        file = partial.open()
        assert (partial.offset, list(partial.ahead)) == (2, [(4, 6), (8, 10)])
        assert file.pread(2, 4) + file.pread(100, 8) == b"4589"
        file.close()
        await partial.suspend()
        resumed = await store.partial(digest)
        assert resumed is not None
        assert (resumed.offset, list(resumed.ahead)) == (2, [(4, 6), (8, 10)])
        assert list(resumed.vouched_ahead) == [(4, 6)]
        await resumed.place(6, [b"67"])
        assert list(resumed.ahead) == [(4, 10)]
        await resumed.append([b"23"])
        assert (resumed.offset, list(resumed.ahead)) == (10, [])
        await resumed.commit()
        assert await content(store, digest) == b"0123456789"

    async def test_what_is_there_already_is_passed_over(self, store: ContentStore) -> None:
        digest = Digest.of(b"0123456789")
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"01", b"23"])
        await partial.place(1, [b"?", b"??4", b"56"])
        assert partial.offset == 7
        await partial.place(0, [b"????????"[:7]])
        await partial.place(7, [b"789"])
        await partial.commit()
        assert await content(store, digest) == b"0123456789"

    async def test_a_file_that_is_opened_again_outlives_the_first(
        self, store: ContentStore
    ) -> None:
        digest = await put(store, b"read me")
        file = await store.open(digest)
        assert file is not None
        again = file.again()
        file.close()
        await store.delete(digest)
        assert again.pread(100, 0) == b"read me"
        again.close()

    async def test_f36_a_reader_finishes_though_its_content_is_deleted(
        self, store: ContentStore
    ) -> None:
        digest = await put(store, b"read me")
        file = await store.open(digest)
        assert file is not None
        await store.delete(digest)
        assert await store.open(digest) is None
        assert file.pread(100, 0) == b"read me"
        file.close()

    async def test_deleting_what_is_not_there_is_no_error(self, store: ContentStore) -> None:
        await store.delete(Digest.of(b"never was"))
        assert store.usage().entries == 0

    async def test_what_is_larger_than_the_limit_is_not_read(self, store: ContentStore) -> None:
        digest = await put(store, b"12345")
        assert await store.read(digest, limit=4) is None
        assert await store.read(digest, limit=5) == b"12345"

    async def test_pages_have_all_content(self, store: ContentStore) -> None:
        stored = {await put(store, data): len(data) for data in (b"a", b"bb", b"ccc")}
        found, after = {}, None
        while page := await store.page(after, 2):
            assert len(page) <= 2
            found |= {entry.digest: entry.size for entry in page}
            after = page[-1].digest
        assert found == stored

    async def test_usage_counts_content_and_what_is_coming(self, store: ContentStore) -> None:
        await put(store, b"x" * 10)
        partial = await store.partial(Digest.of(b"coming"))
        assert partial is not None
        await partial.announce(6)
        await partial.append([b"com"])
        usage = store.usage()
        assert (usage.content_bytes, usage.entries) == (10, 1)
        assert 3 <= usage.reserved_bytes <= 6
        await partial.discard()
        assert store.usage().reserved_bytes == 0

    async def test_more_than_the_store_can_hold_is_refused(self, store: ContentStore) -> None:
        partial = await store.partial(Digest.of(b"huge"))
        assert partial is not None
        with pytest.raises(StoreFull):
            await partial.announce(store.usage().max_bytes + 1)
        await partial.discard()
        assert store.usage().reserved_bytes == 0

    async def test_both_algorithms(self, store: ContentStore) -> None:
        digest = Digest.of(b"long", "sha512")
        partial = await store.partial(digest)
        assert partial is not None
        await partial.append([b"long"])
        await partial.commit()
        assert await content(store, digest) == b"long"

    async def test_the_outcome_is_the_callers(self, store: ContentStore) -> None:
        digest = await put(store, b"layer")
        file = await store.open(digest, Outcome.FILLED)
        assert file is not None
        assert file.outcome is Outcome.FILLED
        file.close()
