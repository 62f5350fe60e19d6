"""The response cache gives the ordinary answers, byte for byte, as long as those are good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.contracts.events import HitsAnswered, RequestAnswered
from mirror.contracts.registry import Outcome
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_MANIFEST
from mirror.server.http import response_cache
from mirror.server.http.idle_connections import IdleConnections
from mirror.server.http.listening import Listener
from mirror.server.http.public_answers import PublicAnswer
from mirror.server.http.response_cache import LARGEST, Answer, ResponseCache, is_bare, read_fields
from mirror.server.http.sending import Sender
from mirror.server.v2.access_log import AccessLog, Hit
from mirror.server.v2.handler import V2
from mirror.server.v2.serving import Serving
from mirror.storage.tags import redis as tags_redis
from mirror.storage.tags import redis_frozen
from mirror.switch import Switch

from ..fakes import REDIS, Answers, FakeRegistry, HandClock
from ..waiting import eventually
from .conftest import DEADLINE, Port, Wire, descriptors, ports

MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST}).encode()
CONFIG = b'{"architecture": "amd64"}'
TAG = "/v2/library/redis/manifests/7"
BY_DIGEST = f"/v2/library/redis/manifests/{Digest.of(MANIFEST)}"
BLOB = f"/v2/library/redis/blobs/{Digest.of(CONFIG)}"
ETAG = f'"{Digest.of(MANIFEST)}"'

# What differs from one answer to the next: their times, and the ids that the mirror makes, which
# the cache gives none.
OWN = re.compile(
    rb"\r\nDate: [^\r]*|\r\nX-Request-Id: [0-9a-f]{16}(?=\r)|(?<=_id\": \")[0-9a-f]{16}"
)


class KeepsNothing(ResponseCache):
    def put(self, answer: PublicAnswer, still: Callable[[], bool] | None = None) -> None:
        """All goes around it."""


@asynccontextmanager
async def opened(
    folder: Path, sender: Sender, kind: type[ResponseCache] = ResponseCache, **options: Any
) -> AsyncIterator[tuple[Port, HandClock]]:
    registry, told, time, lines = (
        FakeRegistry(folder),
        Answers(),
        HandClock(1_800_000_000),
        list[str](),
    )
    registry.add_manifest(MANIFEST, "7")
    registry.add_blob(CONFIG)
    log = AccessLog(lines.append, told, time.clock())
    table = kind(log, time.clock())
    serving = Switch(Serving(registry))
    handler = V2(serving, sender, log=log, response_cache=table, events=told, clock=time.clock())
    listener = Listener(handler, await ports(), response_cache=table, events=told, **options)
    listener.start()
    port = Port(registry, told, listener, lines, serving, table)
    try:
        yield port, time
    finally:
        for wire in port.wires:
            wire.leave()
        await listener.stop(0)


@pytest.fixture
async def hot(tmp_path: Path, sender: Sender) -> AsyncIterator[tuple[Port, HandClock]]:
    async with opened(tmp_path, sender) as (port, time):
        yield port, time


async def is_hot(port: Port, path: str, method: str = "GET", **headers: str) -> bool:
    """Asks, and tells whether the registry behind was left in peace."""
    before = len(port.registry.asked)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await port.get(path, method, named)
    assert answer.status in (200, 206, 304)
    return len(port.registry.asked) == before


@pytest.mark.parametrize("path", [TAG, BY_DIGEST, BLOB])
async def test_what_was_just_answered_is_answered_again_without_asking(
    hot: tuple[Port, HandClock], path: str
) -> None:
    port, _ = hot
    assert not await is_hot(port, path)
    first = await port.get(path)
    again = await port.get(path)
    assert first == again
    assert await is_hot(port, path)
    assert await is_hot(port, path, Connection="close")
    assert not await is_hot(port, path, "GET", Range="bytes=0-")
    assert not await is_hot(port, path, "GET", Authorization="Basic aGk6aGk=")
    assert not await is_hot(port, path + "?ns=docker.io")
    wire = await port.connect()
    asked = len(port.registry.asked)
    await wire.send(f"GET {path} HTTP/1.1\r\nHost: other\r\n\r\n".encode())
    assert (await wire.answer()).status == 200
    assert len(port.registry.asked) > asked


async def test_head_and_conditions_of_manifests_are_answered_too(
    hot: tuple[Port, HandClock],
) -> None:
    port, _ = hot
    await port.get(TAG)
    assert await is_hot(port, TAG, "HEAD")
    assert await is_hot(port, TAG, If_None_Match=ETAG)
    assert not await is_hot(port, TAG, If_None_Match=f"W/{ETAG}")
    assert not await is_hot(port, TAG, If_None_Match='"another"')


async def test_a_connection_is_answered_by_the_cache_and_around_it_in_turn(
    hot: tuple[Port, HandClock],
) -> None:
    port, time = hot
    wire = await port.connect()
    for _ in range(3):
        for path in (TAG, BY_DIGEST, BLOB, TAG, "/v2/"):
            await wire.ask(path)
            assert (await wire.answer()).status == 200
        time.now += 60


async def test_a_connection_that_asks_only_what_is_hot_needs_no_transport_any_more(
    hot: tuple[Port, HandClock],
) -> None:
    port, _ = hot
    await port.get(TAG)
    wire = await port.connect()
    for _ in range(2):
        await wire.ask("/v2/")
        assert (await wire.answer()).status == 200
        assert connections(port)
        for _ in range(20):
            await wire.ask(TAG)
            assert (await wire.answer()).body == MANIFEST
        await eventually(lambda: not connections(port))
    assert port.listener.connections == 1
    await asyncio.wait_for(port.listener.stop(5), DEADLINE)
    assert await wire.rest() == b""


async def test_a_tag_lives_for_a_moment(hot: tuple[Port, HandClock]) -> None:
    port, time = hot
    await port.get(TAG)
    time.now += 0.18
    assert await is_hot(port, TAG)
    time.now += 0.08
    assert not await is_hot(port, TAG)
    assert await is_hot(port, TAG)


async def test_one_request_renews_what_is_soon_over_and_nobody_waits_for_it(
    hot: tuple[Port, HandClock],
) -> None:
    port, time = hot
    await port.get(TAG)
    time.now += 0.2
    port.registry.waits["manifest"] = asyncio.Event()
    asked = len(port.registry.asked)
    renewing = asyncio.create_task(port.get(TAG))
    await eventually(lambda: len(port.registry.asked) > asked)
    assert await is_hot(port, TAG)
    port.registry.waits["manifest"].set()
    await renewing
    time.now += 0.1
    assert await is_hot(port, TAG)


def test_all_nodes_know_of_a_frozen_tag_within_a_second() -> None:
    assert redis_frozen._FROZEN_COPY + tags_redis.LIMIT + response_cache._TAG_LIFE <= 1


@pytest.mark.parametrize(
    ("age", "fresh_for", "life"), [(0.0, 0.125, 0.125), (12.875, 60, 0.125), (299.9, 0.1, 0.1)]
)
async def test_nor_beyond_its_freshness_or_its_age(
    hot: tuple[Port, HandClock], age: float, fresh_for: float, life: float
) -> None:
    port, time = hot
    port.registry.add_manifest(MANIFEST, "7", age=age, fresh_for=fresh_for)
    await port.get(TAG)
    time.now += life * 0.7
    assert await is_hot(port, TAG)
    time.now += life * 0.3 + 0.01
    assert not await is_hot(port, TAG)


async def test_nor_do_its_seconds_begin_anew_when_its_manifest_was_waited_for(
    hot: tuple[Port, HandClock],
) -> None:
    port, time = hot
    port.registry.add_manifest(MANIFEST, "7", fresh_for=0.2)
    port.registry.waits["manifest"] = asyncio.Event()
    first = asyncio.create_task(port.get(TAG))
    await eventually(lambda: ("manifest", REDIS, Digest.of(MANIFEST)) in port.registry.asked)
    time.now += 0.15
    port.registry.waits["manifest"].set()
    await first
    time.now += 0.03
    assert await is_hot(port, TAG)
    time.now += 0.03
    assert not await is_hot(port, TAG)


async def test_content_is_asked_for_again_after_a_while(hot: tuple[Port, HandClock]) -> None:
    port, time = hot
    for path in (BY_DIGEST, BLOB):
        await port.get(path)
        time.now += 7
        assert await is_hot(port, path)
        time.now += 4
        assert not await is_hot(port, path)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.HIT])
async def test_only_hits_get_in(hot: tuple[Port, HandClock], outcome: Outcome) -> None:
    port, _ = hot
    port.registry.add_manifest(MANIFEST, "7", tag_outcome=outcome)
    await port.get(TAG)
    assert not await is_hot(port, TAG)


async def test_large_answers_stay_out(hot: tuple[Port, HandClock]) -> None:
    port, _ = hot
    for size in (LARGEST, LARGEST + 1):
        digest = port.registry.add_blob(bytes(size))
        path = f"/v2/library/redis/blobs/{digest}"
        await port.get(path)
        assert await is_hot(port, path) == (size <= LARGEST)


async def test_the_table_is_bounded(
    hot: tuple[Port, HandClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.server.http.response_cache._TABLE_BYTES", 300_000)
    port, _ = hot
    paths = []
    for number in range(8):
        digest = port.registry.add_blob(bytes([number]) * LARGEST)
        paths.append(f"/v2/library/redis/blobs/{digest}")
        await port.get(paths[-1])
    assert not await is_hot(port, paths[0])
    assert await is_hot(port, paths[-1])


async def test_long_targets_and_hosts_are_of_the_table_s_bytes_too(
    hot: tuple[Port, HandClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.server.http.response_cache._TABLE_BYTES", 50_000)
    port, _ = hot
    wire = await port.connect()
    for number in range(8):
        path = f"{BLOB}?{number}{'x' * 7000}"
        await wire.send(f"GET {path} HTTP/1.1\r\nHost: {'h' * 7000}\r\n\r\n".encode())
        await wire.answer()
    keys = port.listener._response_cache._prepared
    assert 0 < sum(len(line) + len(host) for line, host in keys) <= 50_000


async def test_a_line_that_could_not_be_written_keeps_no_other() -> None:
    calls: list[str] = []

    def write(text: str) -> None:
        calls.append(text)
        if len(calls) == 1:
            raise OSError("No space left on device")

    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    told = Answers()
    log = AccessLog(write, told)
    for number in (1, 2):
        log.note_hits(Hit("GET", "tag", "", "", "", 200, 10), ["1.2.3.4"], 0.0, "", 0.0)
        await eventually(lambda number=number: len(calls) == number)
    assert len(errors) == 1
    assert len(told.answers) == 2
    assert told.bytes["tag"] == 20


async def test_what_is_ready_has_the_date_of_its_second(hot: tuple[Port, HandClock]) -> None:
    port, time = hot
    await port.get(BY_DIGEST)
    dates = []
    for _ in range(2):
        dates.append((await port.get(BY_DIGEST)).headers["date"])
        time.now += 1
    assert [each[-6:-4] for each in dates] == ["00", "01"]


@pytest.mark.parametrize(("took", "within"), [(0.0, 0.0002), (0.0015, 0.001)])
async def test_who_is_answered_in_one_turn_has_each_a_line_and_a_count(
    hot: tuple[Port, HandClock], took: float, within: float
) -> None:
    port, time = hot
    await port.get(BY_DIGEST)
    table, request = port.response_cache, f"GET {BY_DIGEST} HTTP/1.1\r\nHost: mirror\r\n\r\n"
    clients = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    table.begin_turn()
    for client in clients:
        ready = table.ready.get(request.encode()) or table.find(request.encode())
        assert ready is not None
        table.note(ready, client)
    time.now += took
    table.end_turn()
    assert [line["client"] for line in port.log[1:]] == clients
    (told,) = port.told.of(HitsAnswered)
    assert (told.count, told.sent) == (3, 3 * len(MANIFEST))
    assert (told.took, told.within) == (pytest.approx(took, abs=1e-6), within)
    assert sorted(told.by[0][1]) == sorted(clients)


async def test_every_answer_is_counted_and_told(hot: tuple[Port, HandClock]) -> None:
    port, _ = hot
    await port.get(TAG, headers={"User-Agent": "docker/28.5.0 go/go1.24"})
    first = [{**line, "request_id": None} for line in port.log]
    for _ in range(3):
        await port.get(TAG, headers={"User-Agent": "docker/28.5.0 go/go1.24"})
    await eventually(lambda: len(port.log) == 4)
    assert [{**line, "request_id": None} for line in port.log] == first * 4  # the clock stands
    await port.get(TAG, "HEAD")
    await port.get(TAG, headers={"If-None-Match": ETAG})
    await eventually(lambda: len(port.log) == 6)
    assert [(line["method"], line["status"], line["bytes"]) for line in port.log[4:]] == [
        ("HEAD", 200, 0),
        ("GET", 304, 0),
    ]
    assert port.told.answers == [("tag", "hit", 200)] * 5 + [("tag", "hit", 304)]
    assert port.told.bytes["tag"] == 4 * len(MANIFEST)
    told = [*port.told.of(RequestAnswered), *port.told.of(HitsAnswered)]
    assert {each.registry for each in told} == {"docker.io"}
    pulls = [(each.repository, each.reference, 1) for each in port.told.of(RequestAnswered)]
    pulls += [named for each in port.told.of(HitsAnswered) for named in each.named]
    assert {pull[:2] for pull in pulls} == {("library/redis", "7")}
    assert sum(count for _, _, count in pulls) == 6


async def test_who_reads_nothing_is_not_written_to_without_end(
    tmp_path: Path, sender: Sender
) -> None:
    async with opened(tmp_path, sender, idle=0.5) as (port, _):
        digest = port.registry.add_blob(bytes(LARGEST))
        path = f"/v2/library/redis/blobs/{digest}"
        await port.get(path)
        wire = await port.connect()
        transport: Any = wire.writer.transport
        transport.pause_reading()
        with suppress(ConnectionError):
            while transport.get_write_buffer_size() < 1 << 20:  # until it reads no more either
                wire.writer.write(f"GET {path} HTTP/1.1\r\nHost: m\r\n\r\n".encode() * 100)
                await asyncio.sleep(0)
        sizes = [each.transport.get_write_buffer_size() for each in connections(port)]
        assert max(sizes, default=0) <= 2 * LARGEST


def connections(port: Port) -> Sequence[Any]:
    server = port.listener._server
    return [each for each in server.connections if each.transport] if server else []


async def test_a_connection_that_the_cache_answers_has_the_deadline_of_all(
    tmp_path: Path, sender: Sender
) -> None:
    async with opened(tmp_path, sender, idle=0.5) as (port, _):
        await port.get(TAG)
        wire = await port.connect()
        ended = asyncio.create_task(wire.reader.read(-1))
        for _ in range(14):  # longer than the deadline, and never idle for as long as that
            await wire.ask(TAG)
            await asyncio.sleep(0.05)
        assert not ended.done()
        await asyncio.wait_for(ended, DEADLINE)  # now it is


@pytest.mark.parametrize("path", [TAG, "/v2/"], ids=["by the cache", "around it"])
async def test_a_request_that_has_arrived_is_answered_before_its_connection_makes_room(
    hot: tuple[Port, HandClock], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """It has arrived while the loop was held up, and is read only after room is made."""
    monkeypatch.setattr("mirror.server.http.accepting._SOON", 1.0)
    port, _ = hot
    await port.get(TAG)
    acceptor: Any = port.listener._acceptor
    acceptor._most = 0  # from now on few descriptors are left
    wire = await port.connect()
    await wire.ask(path)
    assert (await wire.answer()).status == 200
    request = f"GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    loop.call_later(0.01, wire.writer.write, request)
    loop.call_soon(time.sleep, 1.1)
    assert (await wire.answer()).status == 200
    assert await wire.rest() == b""  # room was made then


async def test_connections_that_are_done_leave_nothing_behind(hot: tuple[Port, HandClock]) -> None:
    port, _ = hot
    await port.get(TAG)
    before = descriptors()
    for _ in range(50):
        answer = await port.get(TAG, headers={"Connection": "close"})
        assert answer.headers["connection"] == "close"
    await eventually(lambda: descriptors() <= before)
    assert port.listener.connections == 0


async def test_a_stop_answers_who_has_asked_and_closes_the_rest(
    tmp_path: Path, sender: Sender
) -> None:
    async with opened(tmp_path, sender) as (port, _):
        await port.get(TAG)
        wires = [await port.connect() for _ in range(100)]
        for wire in wires:
            await wire.ask(TAG)
            await wire.answer()
        assert port.listener.connections >= 100
        for wire in wires[50:]:
            await wire.ask(TAG)
        await asyncio.wait_for(port.listener.stop(5), DEADLINE)
        assert [await wire.rest() for wire in wires[:50]] == [b""] * 50
        for wire in wires[50:]:
            assert (await wire.answer()).body == MANIFEST
            assert await wire.rest() == b""


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: m\r\n\r",
        b"\r\n\r\n",
        b"Host : m\r\n\r\n",
        b"Host:\r\n\r\n",
        b" Host: m\r\n\r\n",
        b"Host: m\r\n folded: x\r\n\r\n",
        b"Host: m\r\nHost: m\r\n\r\n",
        b"Host: m\nAccept: x\r\n\r\n",
        b"Host: m\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"Accept: */*\r\n\r\n",
        b"Host: m\r\nContent-Length: 0\r\n\r\n",
        b"Host: m\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Host: m\r\nExpect: 100-continue\r\n\r\n",
        b"Host: m\r\nConnection: upgrade\r\n\r\n",
        b"Host: m\r\nConnection: close, keep-alive\r\n\r\n",
        b"Host: m\r\nIf-Match: x\r\n\r\n",
        b"Host: m\r\nCookie: a=b\r\n\r\n",
        b"Host: m\r\nUser-Agent: \xff\r\n\r\n",
        b"Host: m\r\nAccept: " + b"x" * 4096 + b"\r\n\r\n",
    ],
)
def test_what_is_not_plain_goes_the_ordinary_way(lines: bytes) -> None:
    assert read_fields(lines) is None


def test_a_body_or_another_request_leaves_the_parser_out_of_step() -> None:
    head = b"GET / HTTP/1.1\r\nHost: m\r\n"
    assert is_bare(head + b"\r\n")
    assert is_bare(head + b"Range: bytes=0-\r\n\r\n")
    assert not is_bare(head)
    assert not is_bare(b"")
    assert not is_bare(b"GET")
    assert not is_bare(head + b"\r\n" + head + b"\r\n")
    for line in (b"PRI * HTTP/2.0\r\n", b"CONNECT m:80 HTTP/1.1\r\nHost: m\r\n", b"\r\n"):
        assert not is_bare(line + b"\r\n")
    for name in (b"content-LENGTH: 1", b"Transfer-Encoding: chunked", b"Upgrade: h2c"):
        assert not is_bare(head + name + b"\r\n\r\n")


REQUEST = st.builds(
    lambda method, path, version, fields: "\r\n".join(
        [f"{method} {path} HTTP/{version}", *fields, "", ""]
    ).encode(),
    st.sampled_from(["GET"] * 6 + ["HEAD", "get", "PUT"]),
    st.sampled_from(
        [TAG, BY_DIGEST, BLOB] * 4 + ["/v2/", f"{TAG}?", f"{BLOB}x", f"http://mirror{TAG}"]
    ),
    st.sampled_from(["1.1"] * 9 + ["1.0"]),
    st.lists(
        st.sampled_from(
            [
                "Accept: */*",
                "Accept: application/json",
                "Accept-Encoding: gzip",
                "User-Agent: docker/28.5.0 (x; y)",
                "user-agent:containerd/2.1",
                "Connection: keep-alive",
                "Connection: close",
                f"If-None-Match: {ETAG}",
                "If-None-Match: *",
                "Range: bytes=1-",
                "Authorization: Basic eDp5",
                "Content-Length: 0",
                "X-Any: thing",
                "X-Request-Id: of-mine",
                "X-Request-Id: of mine",
            ]
        ),
        max_size=2,
    ).map(lambda fields: ["Host: mirror", *fields]),
)


# Whole requests, requests that come in two parts, and such as never come to an end.
PIECES = st.lists(
    st.one_of(
        REQUEST.map(lambda request: [request]),
        st.tuples(REQUEST, st.integers(1, 120)).map(
            lambda cut: [cut[0][: cut[1]], cut[0][cut[1] :]]
        ),
        st.tuples(REQUEST, st.integers(1, 120)).map(lambda cut: [cut[0][: cut[1]]]),
    ),
    min_size=1,
    max_size=4,
).map(lambda parts: [piece for part in parts for piece in part])


async def exchanged(port: Port, pieces: Sequence[bytes], together: bool) -> bytes:
    """What comes back for these pieces, until the server closes. Each is read by the server before
    the next is sent, unless they are sent `together`."""
    wire = await port.connect()
    other = await port.connect()
    try:
        for piece in pieces:
            await wire.send(piece)
            if not together:
                await in_step(other)
        await wire.send(b"GET /v2/ HTTP/1.1\r\nHost: m\r\nConnection: close\r\nX-End: x\r\n\r\n")
    except ConnectionError:  # it has closed already
        pass
    other.leave()
    return OWN.sub(b"", await wire.rest())


async def in_step(wire: Wire) -> None:
    """Returns when the server has read what was sent before."""
    await wire.ask("/v2/")
    assert (await wire.answer()).status == 200


def test_through_the_cache_and_around_it_the_same_comes_back(
    tmp_path: Path, sender: Sender
) -> None:
    with asyncio.Runner() as runner:
        folders = [tmp_path / "through", tmp_path / "around"]
        for folder in folders:
            folder.mkdir()
        contexts = [
            opened(folders[0], sender, ResponseCache),
            opened(folders[1], sender, KeepsNothing),
        ]
        (through, _), (around, _) = [runner.run(each.__aenter__()) for each in contexts]
        for path in (TAG, BY_DIGEST, BLOB):  # they stay in: the clock stands
            runner.run(through.get(path))

        async def both(pieces: list[bytes], together: bool) -> None:
            ways = [exchanged(port, pieces, together) for port in (through, around)]
            cached, ordinary = await asyncio.gather(*ways)
            assert cached == ordinary

        @settings(max_examples=150, deadline=None)
        @given(PIECES, st.booleans())
        def compared(pieces: list[bytes], together: bool) -> None:
            runner.run(both(pieces, together))

        try:
            compared()
            asked, answered = len(through.registry.asked), len(around.registry.asked)
            assert asked < answered, "the cache was never used"
        finally:
            for each in contexts:
                runner.run(each.__aexit__(None, None, None))


async def test_an_answer_waits_for_those_before_it(hot: tuple[Port, HandClock]) -> None:
    port, _ = hot
    await port.get(TAG)
    port.registry.waits["blob"] = asyncio.Event()
    wire = await port.connect()
    await wire.ask(BLOB)
    await eventually(lambda: port.registry.asked[-1][0] == "blob")
    await wire.ask(TAG)
    await in_step(await port.connect())
    port.registry.waits["blob"].set()
    assert (await wire.answer()).body == CONFIG
    assert (await wire.answer()).body == MANIFEST


@pytest.mark.parametrize(
    "before",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\nX-Any: ",
        b"PRI * HTTP/2.0\r\n\r\n",  # and, in HTTP/2, "SM\r\n\r\n"
        b"PUT /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 2000\r\n\r\n",
        b"PUT /v2/ HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_part_of_another_request_is_none(
    hot: tuple[Port, HandClock], before: bytes
) -> None:
    port, _ = hot
    await port.get(TAG)
    wire = await port.connect()
    await wire.send(before)
    await in_step(await port.connect())
    await wire.ask(TAG)
    await in_step(await port.connect())
    wire.writer.write_eof()
    assert MANIFEST not in await wire.rest()


async def test_a_hit_is_not_told_with_the_time_of_who_is_let_go_beside_it(
    hot: tuple[Port, HandClock],
) -> None:
    port, time = hot
    await port.get(BY_DIGEST)

    def let_go(connection: socket.SocketType, data: bytes, owed: Answer | None) -> None:
        connection.close()
        time.now += 1

    connections = IdleConnections(port.response_cache, let_go, idle=60.0)
    asked = f"GET {BY_DIGEST} HTTP/1.1\r\nHost: mirror\r\n\r\n"
    port.response_cache.begin_turn()
    with contextlib.ExitStack() as stack:
        for request in (asked, "GET /v2/unknown HTTP/1.1\r\n\r\n", asked):
            client, server = socket.socketpair()
            stack.enter_context(client)
            client.sendall(request.encode())
            connections.take(server, "10.0.0.1")
        port.response_cache.end_turn()
        connections.close()
    assert [line["first_byte"] for line in port.log[1:]] == [0, 0]
