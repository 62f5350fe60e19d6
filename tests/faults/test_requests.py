"""Requests that mean no file, are no HTTP, or name nothing: refused, and the connection in step."""

from __future__ import annotations

import os

import pytest

from ..waiting import eventually
from .bodies import MIB
from .client import DOCKERD, Answer
from .house import House, Mirror

ZEROS = "sha256:" + "0" * 64


def refused(answer: Answer, *statuses: int) -> bool:
    return answer.status in statuses and bool(answer.code)


WORDS = [
    ("/v2/library/redis/blobs/sha256:abc", 400),
    ("/v2/library/redis/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400),
    (f"/v2/library/redis/blobs/SHA256:{'0' * 64}", 400),
    ("/v2/library/redis/blobs/../../../index.db", 404),
    ("/v2/../../index.db", 404),
    ("/v2/..%2f..%2findex.db", 404),
    ("/v2/library/redis/blobs/%2e%2e%2f%2e%2e%2findex.db", 400),
    ("/v2/library/%2e%2e%2f%2e%2e/manifests/7", 400),
    (f"/v2/library/redis/blobs/{ZEROS}%00", 400),
    ("/v2/library/redis%00/manifests/7", 400),
    (f"/v2/library/redis/blobs/{ZEROS}/../../../secret", 404),
    ("/etc/passwd", 404),
    ("//etc/passwd", 404),
    ("/v2/library/redis/manifests/" + "7" * 5000, 400),
]


NO_HTTP = [
    b"GET /v2/" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: m\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: m\r\nX: " + b"x" * MIB + b"\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: m\r\n" + b"X: x\r\n" * 100_000 + b"\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nGET",
    b"POST /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /v2/smuggled/manifests/7 HTTP/1.1\r\nHost: m\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost : m\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\n Host: m\r\n\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
]


async def test_f52_words_that_mean_no_file(house: House) -> None:
    mirror = await house.mirror()
    secret = mirror.folder / "secret"
    secret.write_text("hunter2")
    before = sorted(mirror.folder.iterdir())
    for path, expected in WORDS:
        async with mirror.connection() as client:
            await client.get(path)
            answer = await client.answer()
            assert refused(answer, expected), path
            await client.get("/v2/")
            assert (await client.answer()).body == b"{}", path
    assert sorted(mirror.folder.iterdir()) == before
    assert mirror.kept() == {}
    assert house.hub.requests == []


async def test_f52_what_is_no_http(house: House) -> None:
    mirror = await house.mirror()
    for data in NO_HTTP:
        async with mirror.connection() as client:
            client.writer.write(data)
            answer = await client.rest()  # a reset where much was left unread
            assert answer.count(b"HTTP/1.1 ") <= 2, data[:100]
            assert b"smuggled" not in answer
            assert b"Traceback" not in answer
    assert (await mirror.ask("/v2/")).status == 200
    assert house.hub.requests == []
    assert not [line for line in mirror.events("request") if line.get("repository")]


async def test_an_empty_blob_is_empty_while_it_comes_and_when_it_is_here(house: House) -> None:
    digest = house.hub.add_blob(b"")
    mirror = await house.mirror()
    for _ in range(2):
        answer = await mirror.ask(f"/v2/library/redis/blobs/{digest}")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=1000-", 416),
        ("bytes=5000-6000", 416),
        ("bytes=-0", 416),
        ("bytes=9-5", 200),
        ("bytes=a-b", 200),
        ("bytes=--5", 200),
        ("lines=0-5", 200),
        ("bytes=0-5,10-15", 200),
        ("bytes=" + ",".join(["0-0"] * 1500), 200),
        ("bytes=" + "9" * 1000 + "-", 416),
        ("bytes=0-" + "9" * 1000, 206),
        ("bytes=990-", 206),
        ("bytes=-10", 206),
        ("bytes=990-5000", 206),
    ],
)
async def test_f52_ranges(house: House, asked: str, expected: int) -> None:
    data = os.urandom(1000)
    digest = house.hub.add_blob(data)
    mirror = await house.mirror()
    for _ in range(2):  # during the fill, and from the cache
        answer = await mirror.blob(digest, {**DOCKERD, "Range": asked})
        assert answer.status == expected
        if expected == 200:
            assert answer.is_whole(digest)
        elif expected == 416:
            assert answer.headers["Content-Range"] == "bytes */1000"
            assert answer.code == "RANGE_INVALID"
        else:
            start = 0 if asked.startswith("bytes=0-") else 990
            assert answer.headers["Content-Range"] == f"bytes {start}-999/1000"
            assert answer.body == data[start:]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_f53_bodies_and_writes_leave_the_connection_in_step(
    house: House, chunked: bool
) -> None:
    data = os.urandom(2 * MIB)
    digest = house.hub.add_blob(data)
    mirror = await house.mirror()
    inner = b"GET /v2/smuggled/manifests/7 HTTP/1.1\r\nHost: m\r\n\r\n"
    if chunked:
        field = "Transfer-Encoding: chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    else:
        field, body = f"Content-Length: {len(inner)}", inner
    async with mirror.connection() as client:
        for method in ("GET", "PUT", "PATCH", "POST", "DELETE"):
            for path in (f"/v2/library/redis/blobs/{digest}", "/v2/library/redis/blobs/uploads/"):
                if method == "GET" and path.endswith("/uploads/"):
                    continue
                head = f"{method} {path} HTTP/1.1\r\nHost: m\r\n{field}\r\n\r\n".encode()
                await client.send(head + body)
                answer = await client.answer()
                if method == "GET":
                    assert answer.is_whole(digest)
                else:
                    assert refused(answer, 405)
                    assert answer.headers["Allow"] == "GET, HEAD"
    assert not [seen for seen in house.hub.requests if "smuggled" in seen.path]


NAMES = [
    "library/Redis", "library/rédis", "library/r%C3%A9dis", "库/redis", "library/redis/",
    "library//redis", "/redis", "a" * 256, "library/.redis", "library/redis-", "a__b___c",
    "library/re dis", "library/redis;x", "%20",
]  # fmt: skip


def series(metrics: str) -> set[str]:
    """The names and labels of all samples that requests may bring about: not of upkeep, which runs
    when it is time for it."""
    lines = (line for line in metrics.splitlines() if not line.startswith("#"))
    return {line.rpartition(" ")[0] for line in lines if "_upkeep_" not in line}


async def refuse(mirror: Mirror, names: list[str], counted: int) -> set[str]:
    """Asks for these names; the series that there are when so many refusals were counted."""
    for name in names:
        async with mirror.connection() as client:
            await client.get(f"/v2/{name}/manifests/7".replace(" ", "%20"))
            answer = await client.answer()
            assert refused(answer, 400), name
            # What is not even ASCII is no HTTP.
            assert answer.code == "NAME_INVALID" or not name.isascii(), name

    async def all_counted() -> bool:  # a moment after they were answered
        return await mirror.metric("responses_total", status="400") == counted

    await eventually(all_counted)
    return series(await mirror.metrics())


async def test_f54_odd_names_are_refused_and_are_no_labels(house: House) -> None:
    mirror = await house.mirror()
    known = await refuse(mirror, NAMES, len(NAMES))
    more = [f"Flood{number}" for number in range(100)]
    assert await refuse(mirror, more, len(NAMES) + len(more)) == known
    assert house.hub.requests == []


async def test_f54_names_that_are_only_unknown_are_no_labels(house: House) -> None:
    house.hub.challenge = "none"
    mirror = await house.mirror()
    agents = [{"User-Agent": f"agent{number}/1"} for number in range(50)]
    await mirror.manifest("7", name="library/first")
    known = series(await mirror.metrics())
    for number, agent in enumerate(agents):
        answer = await mirror.manifest(f"t{number}", headers=agent, name=f"library/n{number}")
        assert refused(answer, 404)
    assert series(await mirror.metrics()) == known
