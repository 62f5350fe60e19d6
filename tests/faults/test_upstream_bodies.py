"""Blobs that are wrong, break, stall, drip, or never end: clients get right bytes, or an error."""

from __future__ import annotations

import asyncio
import gzip
import os
import random

import pytest

from ..fakes.hub import Fault, Hub, cut, status
from .bodies import MIB, breaks, drips, part, sends, stalls, unmeasured, wrong
from .client import DOCKERD, SKOPEO, Answer, digest_of
from .house import House, Mirror

LARGE = 3 * MIB  # given out while it comes


SMALL = MIB // 8  # given out once it is proven


def ranges(hub: Hub) -> list[str | None]:
    """The Range of each ask for bytes of a blob."""
    return [seen.headers.get("Range") for seen in hub.seen("blobs", "GET")]


def name_of(hub: Hub) -> str:
    """What metrics and logs call the hub."""
    return hub.url.removeprefix("http://")


def known_broken(answer: Answer, digest: str) -> bool:
    """A client that holds this knows that it does not hold the blob: its body was cut; or it has
    none, since all of it came, and was found wrong, before the first byte could leave."""
    if answer.status == 502:
        return not answer.cut
    return answer.status == 200 and answer.cut and digest_of(answer.body) != digest


async def is_kept(mirror: Mirror, hub: Hub, digest: str) -> bool:
    """Whether the blob is given out without anybody being asked."""
    before = len(hub.requests)
    return (await mirror.blob(digest)).is_whole(digest) and len(hub.requests) == before


async def test_f01_nobody_gets_wrong_bytes_whole_and_the_next_ask_is_clean(house: House) -> None:
    liar, good = house.hub, await house.another_hub()
    data, other = os.urandom(LARGE), os.urandom(SMALL)
    digest = liar.add_blob(data)
    good.add_blob(data)
    liar.fail("blobs", sends(wrong(data)))
    mirror = await house.mirror(liar, good)
    assert known_broken(await mirror.blob(digest), digest)
    assert (mirror.kept(), mirror.partials()) == ({}, [])
    assert await mirror.metric("upstream_rejected_total", endpoint=name_of(liar)) == 1
    assert await mirror.metric("fills_total", result="rejected") == 1
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(mirror, good, digest)
    # It is marked: for another blob, which it has, the other endpoint is asked.
    asked = len(liar.requests)
    other_digest = liar.add_blob(other)
    good.add_blob(other)
    assert (await mirror.blob(other_digest)).is_whole(other_digest)
    assert len(liar.requests) == asked


async def test_f01_many_who_read_along_get_right_bytes_or_a_cut(house: House) -> None:
    data = os.urandom(LARGE)
    house.hub.add_image("library/redis", "7", data)
    digest = digest_of(data)
    house.hub.fail("blobs", sends(wrong(data)))
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).status == 200
    answers = await asyncio.gather(*(mirror.blob(digest) for _ in range(8)))
    assert any(answer.cut for answer in answers)
    assert all(known_broken(answer, digest) or answer.is_whole(digest) for answer in answers)


async def test_f01_of_a_small_blob_no_client_notices_the_wrong_bytes(house: House) -> None:
    data = os.urandom(SMALL)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", sends(wrong(data)))
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await mirror.metric("upstream_rejected_total") == 1


async def test_f01_an_endpoint_that_only_lies_gives_a_clean_error(house: House) -> None:
    data = os.urandom(SMALL)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", sends(wrong(data)), times=100)
    mirror = await house.mirror()
    answer = await mirror.blob(digest, DOCKERD)
    assert (answer.status, "Retry-After" in answer.headers) == (502, True)
    assert answer.code
    answer = await mirror.blob(digest, SKOPEO)  # which waits for a 429, and for nothing else
    assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
    assert house.hub.count("blobs") < 10
    assert mirror.kept() == {}


async def test_f02_a_body_that_is_cut_is_resumed_unseen(house: House) -> None:
    data = os.urandom(LARGE)
    house.hub.add_image("library/redis", "7", data)
    digest = digest_of(data)
    house.hub.fail("blobs", cut())
    house.hub.fail("blobs", breaks(data, MIB))
    house.hub.fail("blobs", breaks(data, 2 * MIB))
    house.hub.fail("blobs", breaks(data, LARGE - 1))
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).status == 200
    answers = await asyncio.gather(*(mirror.blob(digest) for _ in range(3)))
    assert all(answer.is_whole(digest) for answer in answers)
    expected = [None, None, f"bytes={MIB}-", f"bytes={2 * MIB}-", f"bytes={LARGE - 1}-"]
    assert ranges(house.hub) == expected
    assert await mirror.metric("fills_total", result="committed") == 1
    assert len(data) <= await mirror.metric("upstream_bytes_total") < len(data) + 2000
    assert len(mirror.events("fill_goes_on_after_a_fault")) >= 3


async def test_f02_the_rest_comes_from_another_endpoint(house: House) -> None:
    other = await house.another_hub()
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    other.add_blob(data)
    house.hub.fail("blobs", breaks(data, MIB))
    mirror = await house.mirror(house.hub, other)
    assert (await mirror.blob(digest)).is_whole(digest)
    assert (ranges(house.hub), ranges(other)) == ([None], [f"bytes={MIB}-"])


async def test_f02_a_body_that_never_comes_whole_ends_in_a_cut(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", breaks(data, 2 * MIB), times=1000)
    mirror = await house.mirror(quick=True)
    assert known_broken(await mirror.blob(digest), digest)
    assert await mirror.metric("fills_total", result="failed") == 1
    assert [path.stat().st_size for path in mirror.partials()] == [2 * MIB]
    house.partials = True  # what is there is right, as far as anybody knows: kept to be resumed


async def test_f03_a_body_that_stalls_is_resumed_unseen(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", stalls(data, MIB))
    mirror = await house.mirror(quick=True)
    assert (await mirror.blob(digest)).is_whole(digest)
    assert ranges(house.hub) == [None, f"bytes={MIB}-"]
    (told,) = mirror.events("silent_blob_goes_on_elsewhere")
    assert told["silent"] == told["source"] == name_of(house.hub)


@pytest.mark.parametrize("length", [MIB, LARGE + MIB], ids=["shorter", "longer"])
@pytest.mark.parametrize("ends", [True, False], ids=["whole", "cut"])
async def test_f04_a_length_that_is_not_the_blobs(house: House, length: int, ends: bool) -> None:
    good = await house.another_hub()
    data = os.urandom(LARGE)
    house.hub.add_image("library/redis", "7", data)
    good.add_image("library/redis", "7", data)
    digest = digest_of(data)
    lie = (data + os.urandom(MIB))[:length]
    house.hub.fail("blobs", sends(lie) if ends else breaks(lie, len(lie) - 1))
    mirror = await house.mirror(house.hub, good)
    assert (await mirror.manifest("7")).status == 200
    answer = await mirror.blob(digest)
    assert known_broken(answer, digest) or answer.is_whole(digest)
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await is_kept(mirror, good, digest)


async def test_f05_a_body_without_a_length_is_proven_at_its_end(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", unmeasured(data[:MIB], data[MIB:]))
    mirror = await house.mirror()
    answer = await mirror.blob(digest)
    assert answer.is_whole(digest)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    again = await mirror.blob(digest)
    assert again.is_whole(digest)
    assert again.headers["Content-Length"] == str(len(data))
    assert house.hub.count("blobs") == 1


async def test_f05_wrong_bytes_without_a_length_are_cut_before_their_end(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", unmeasured(wrong(data)))
    mirror = await house.mirror()
    assert known_broken(await mirror.blob(digest), digest)
    assert (await mirror.blob(digest)).is_whole(digest)


async def test_f05_an_end_that_comes_early_is_not_the_blobs(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", unmeasured(data[: 2 * MIB]))
    mirror = await house.mirror()
    assert known_broken(await mirror.blob(digest), digest)
    assert (await mirror.blob(digest)).is_whole(digest)


async def test_f06_a_blob_that_is_encoded_is_had_elsewhere(house: House) -> None:
    good = await house.another_hub()
    data = b"the same again" * 200_000
    digest = house.hub.add_blob(data)
    good.add_blob(data)
    encoded = gzip.compress(data)
    house.hub.fail("blobs", sends(encoded, {"Content-Encoding": "gzip"}), times=100)
    mirror = await house.mirror(house.hub, good)
    answer = await mirror.blob(digest, {**DOCKERD, "Accept-Encoding": "gzip"})
    assert answer.is_whole(digest)
    assert "Content-Encoding" not in answer.headers
    assert all(seen.headers["Accept-Encoding"] == "identity" for seen in house.hub.requests)


async def test_f06_a_blob_that_is_only_had_encoded_is_refused(house: House) -> None:
    data = b"the same again" * 10_000
    digest = house.hub.add_blob(data)
    encoded = gzip.compress(data)
    house.hub.fail("blobs", sends(encoded, {"Content-Encoding": "gzip"}), times=100)
    mirror = await house.mirror()
    answer = await mirror.blob(digest)
    assert answer.status == 502
    assert "Content-Encoding" in answer.message
    assert mirror.kept() == {}


DATA = random.Random(7).randbytes(LARGE)


@pytest.mark.parametrize(
    "second",
    [
        sends(DATA),
        part(DATA, f"bytes 0-{LARGE - 1}/{LARGE}"),
        part(DATA[MIB - 1 :], f"bytes {MIB - 1}-{LARGE - 1}/{LARGE}"),
        part(DATA[MIB + 1 :], f"bytes {MIB + 1}-{LARGE - 1}/{LARGE}"),
        part(DATA[MIB:], None),
        part(DATA[MIB:], "bytes nonsense"),
        part(b"", f"bytes */{LARGE}", 416),
        part(b"", None, 416),
    ],
    ids=[
        "200", "from-zero", "a-byte-before", "a-byte-after", "no-range", "nonsense",
        "416", "416-without-size",
    ],
)  # fmt: skip
async def test_f07_a_range_that_is_answered_wrongly_splices_nothing(
    house: House, second: Fault
) -> None:
    digest = house.hub.add_blob(DATA)
    house.hub.fail("blobs", breaks(DATA, MIB))
    house.hub.fail("blobs", second)
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert ranges(house.hub)[:2] == [None, f"bytes={MIB}-"]
    assert await mirror.metric("fills_total", result="committed") == 1


async def test_f07_an_end_before_what_is_here_is_another_object(house: House) -> None:
    digest = house.hub.add_blob(DATA)
    house.hub.fail("blobs", breaks(DATA, MIB))
    house.hub.fail("blobs", part(b"", f"bytes */{MIB}", 416))
    mirror = await house.mirror()
    answer = await mirror.blob(digest)
    assert answer.is_whole(digest) or known_broken(answer, digest)
    assert (await mirror.blob(digest)).is_whole(digest)


async def test_f07_a_range_that_is_ignored_is_unseen(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", breaks(data, MIB))
    house.hub.fail("blobs", sends(data))
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert house.hub.count("blobs") == 2


async def test_f07_wrong_bytes_under_the_right_range_are_caught(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", breaks(data, MIB))
    house.hub.fail("blobs", part(data[:-MIB], f"bytes {MIB}-{LARGE - 1}/{LARGE}"))
    mirror = await house.mirror()
    assert known_broken(await mirror.blob(digest), digest)
    assert (await mirror.blob(digest)).is_whole(digest)
    assert await mirror.metric("upstream_rejected_total") >= 1


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
async def test_f08_another_object_under_the_same_name_is_not_joined_to_the_first(
    house: House, size: int
) -> None:
    data = os.urandom(size)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", breaks(os.urandom(size), size // 2, {"ETag": '"the first"'}))
    mirror = await house.mirror()
    answer = await mirror.blob(digest)
    assert answer.is_whole(digest) or (size == LARGE and known_broken(answer, digest))
    assert (await mirror.blob(digest)).is_whole(digest)


@pytest.mark.parametrize("longer", [-MIB, MIB], ids=["shorter", "longer"])
async def test_f08_a_length_that_changes_in_between(house: House, longer: int) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", breaks(bytes(LARGE + longer), MIB))
    mirror = await house.mirror()
    assert known_broken(await mirror.blob(digest), digest)
    assert (await mirror.blob(digest)).is_whole(digest)


async def test_f09_a_signed_url_that_has_ended_is_asked_for_anew(house: House) -> None:
    data = os.urandom(LARGE)
    digest = house.hub.add_blob(data)
    house.hub.fail("blobs", breaks(data, MIB))
    house.hub.fail("blobs", status(403, body="<Error><Code>AccessDenied</Code></Error>"))
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)
    assert ranges(house.hub) == [None, f"bytes={MIB}-", f"bytes={MIB}-"]
    signatures = [seen.query["signature"] for seen in house.hub.seen("blobs")]
    assert len(set(signatures)) == 3
    assert await mirror.metric("upstream_requests_total", status="403") == 1


async def test_f10_a_drip_is_given_up_and_others_do_not_wait_for_it(house: House) -> None:
    data, other = os.urandom(LARGE), os.urandom(LARGE)
    digest, other_digest = house.hub.add_blob(data), house.hub.add_blob(other)
    house.hub.fail("blobs", drips(data, MIB))
    mirror = await house.mirror(quick=True)
    slow = asyncio.create_task(mirror.blob(digest))
    while house.hub.count("blobs") == 0:
        await asyncio.sleep(0.01)
    assert (await mirror.blob(other_digest)).is_whole(other_digest)
    assert (await slow).is_whole(digest)
    second = ranges(house.hub)[-1]
    assert second is not None
    assert MIB <= int(second.removeprefix("bytes=").removesuffix("-")) < MIB + 10_000
    (told,) = mirror.events("fill_goes_on_after_a_fault")
    assert "bytes/s" in told["reason"]


async def test_f11_a_blob_above_the_cap(house: House) -> None:
    digest = house.hub.add_blob(os.urandom(LARGE))
    mirror = await house.mirror(limits={"blob": "2MiB"})
    answer = await mirror.blob(digest)
    assert (answer.status, answer.code) == (403, "DENIED")
    assert "2097152" in answer.message
    assert await mirror.metric("upstream_bytes_total") < MIB  # refused by its length
    assert await mirror.metric("fills_total", result="failed") == 1


async def test_f11_a_body_without_an_end(house: House) -> None:
    digest = digest_of(b"never")
    house.hub.blobs[digest] = b""
    house.hub.fail("blobs", unmeasured(os.urandom(MIB // 4), endless=True))
    mirror = await house.mirror(limits={"blob": "4MiB"})
    answer = await mirror.blob(digest)
    assert answer.cut
    assert len(answer.body) <= 4 * MIB
    assert await mirror.metric("upstream_bytes_total") < 6 * MIB
    assert mirror.kept() == {}
    assert mirror.partials() == []
