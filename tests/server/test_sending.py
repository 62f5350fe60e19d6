"""Blobs on their way: growing, failing, slow clients, clients that leave, many at once."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mirror.oci.errors import Unavailable
from mirror.server.http import sending
from mirror.server.http.sending import ClientLeft, ClientSlow, FileFault, Sender

from ..fakes import FakeRegistry
from ..waiting import eventually
from .conftest import DEADLINE, Port, Wire, descriptors, served

BIG = 24 << 20  # more than the kernel takes for a client that does not read


def blob_path(digest: object) -> str:
    return f"/v2/library/redis/blobs/{digest}"


# Whole requests, over a real port.


Tls = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(params=["plain", "tls"])
def spoken(request: pytest.FixtureRequest, tls: Tls) -> Tls | None:
    """What is spoken on the port: all that is told here is so with TLS, too."""
    return tls if request.param == "tls" else None


@pytest.fixture
async def port(registry: FakeRegistry, sender: Sender, spoken: Tls | None) -> AsyncIterator[Port]:
    async with served(registry, sender, tls=spoken) as port:
        yield port
    assert registry.open == 0, "a content was not closed"


async def test_a_growing_blob_is_read_while_it_grows(port: Port) -> None:
    data = os.urandom(2_500_000)
    blob = port.registry.grow_blob(data)
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest))
    for upto in (1, 1000, 70_000, 2_000_000):
        blob.grow(upto)
        if upto == 1:
            head = await wire.head()
            assert (head.status, head.headers["content-length"]) == (200, str(len(data)))
            assert head.headers["cache-status"] == "registry-mirror; fwd=miss"
            got = b""
        got += await wire.read(upto - len(got))
    blob.grow(len(data))
    blob.finish()
    got += await wire.read(len(data) - len(got))
    assert got == data
    await wire.ask("/v2/")
    assert (await wire.answer()).status == 200


async def test_nothing_is_sent_before_it_may_be_read(port: Port) -> None:
    blob = port.registry.grow_blob(b"held until it is proven")
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest))
    await eventually(lambda: port.registry.open == 1)
    blob.fail(Unavailable("wrong bytes", retry_after=3))
    answer = await wire.answer()
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    await eventually(lambda: port.told.answers == [("blob", "failed", 503)])


async def test_f56_a_range_is_answered_during_a_fill(port: Port) -> None:
    data = os.urandom(1_000_000)
    blob = port.registry.grow_blob(data)
    blob.grow(600_000)
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest), headers={"Range": "bytes=500000-"})
    head = await wire.head()
    assert (head.status, head.headers["content-range"]) == (206, "bytes 500000-999999/1000000")
    assert await wire.read(100_000) == data[500_000:600_000]
    blob.grow(len(data))
    blob.finish()
    assert await wire.read(400_000) == data[600_000:]


@pytest.mark.parametrize("sent", [70_000, 999_999])
async def test_a_fill_that_fails_cuts_the_connection(port: Port, sent: int) -> None:
    data = os.urandom(1_000_000)
    blob = port.registry.grow_blob(data)
    blob.grow(sent)
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest))
    assert (await wire.head()).headers["content-length"] == "1000000"
    assert await wire.read(sent) == data[:sent]
    blob.fail(Unavailable("the upstream is gone"))
    assert await wire.rest() == b""
    await eventually(lambda: port.told.answers == [("blob", "failed", 200)])
    assert port.told.bytes["blob"] == sent


@pytest.mark.parametrize("taken", ["all", "a part"])
async def test_a_client_that_closes_after_the_last_byte_has_it_all_counted(
    port: Port, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """The client has read the bytes and is gone before the thread that sent them has said so."""
    data = os.urandom(1_000_000)
    size = len(data) if taken == "all" else 300_000
    blob = port.registry.grow_blob(data)
    blob.grow(size)
    if taken == "all":
        blob.finish()
    has_gone, send = threading.Event(), sending._send

    def sends_and_is_held_up(span: sending._Span, count: int, buffer: bytearray) -> int | None:
        sent = send(span, count, buffer)
        if span.offset + (sent or 0) == size:
            has_gone.wait(10)
        return sent

    monkeypatch.setattr(sending, "_send", sends_and_is_held_up)
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest), headers={"Connection": "close"})
    await wire.head()
    assert await wire.read(size) == data[:size]
    wire.leave()
    await eventually(lambda: any(task.cancelling() for task in asyncio.all_tasks()))
    has_gone.set()
    (line,) = await eventually(lambda: port.log)
    assert line["bytes"] == size
    assert line.get("left", False) is (taken == "a part")
    assert port.told.bytes["blob"] == size


async def test_a_client_that_leaves_midway_is_no_error_of_the_loop(port: Port) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    digest = port.registry.add_blob(bytes(BIG))
    for _ in range(3):
        wire = await port.connect()
        await wire.ask(blob_path(digest))
        await wire.head()
        wire.leave()
    lines = await eventually(lambda: port.log if len(port.log) == 3 else [])
    assert all(line["left"] for line in lines)
    gc.collect()
    await asyncio.sleep(0)
    assert errors == []


@pytest.mark.parametrize("part", ["bytes=5-", "bytes=5-9", "bytes=-5"])
async def test_f05_a_blob_of_unknown_size_comes_whole_and_in_chunks(port: Port, part: str) -> None:
    data = os.urandom(700_000)
    blob = port.registry.grow_blob(data, size_known=False)
    blob.grow(300_000)
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest), headers={"Range": part})
    head = await wire.head()
    assert head.status == 200
    assert head.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in head.headers
    blob.grow(len(data))
    blob.finish()
    assert await read_chunks(wire) == data
    await wire.ask("/v2/")
    assert (await wire.answer()).status == 200


async def read_chunks(wire: Wire) -> bytes:
    data = b""
    async with asyncio.timeout(DEADLINE):
        while size := int(await wire.reader.readline(), 16):
            data += (await wire.reader.readexactly(size + 2))[:-2]
        assert await wire.reader.readline() == b"\r\n"
    return data


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_f05_a_failing_blob_of_unknown_size_never_looks_whole(
    port: Port, version: bytes
) -> None:
    blob = port.registry.grow_blob(b"x" * 1000, size_known=False)
    blob.grow(500)
    wire = await port.connect()
    path = blob_path(blob.digest).encode()
    await wire.send(b"GET %s HTTP/%s\r\nHost: m\r\n\r\n" % (path, version))
    await wire.head()
    await wire.read(500)
    blob.fail(Unavailable("the upstream is gone"))
    if version == b"1.0":
        # The connection's end would be the body's: only a reset says otherwise.
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(DEADLINE):
                await wire.reader.read()
    else:
        assert not (await wire.rest()).endswith(b"0\r\n\r\n")


async def test_an_old_client_gets_a_blob_of_unknown_size_up_to_the_connections_end(
    port: Port,
) -> None:
    data = os.urandom(300_000)
    blob = port.registry.grow_blob(data, size_known=False)
    blob.grow(len(data) - 1)
    wire = await port.connect()
    path = blob_path(blob.digest).encode()
    await wire.send(b"GET %s HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % path)
    head = await wire.head()
    assert head.headers.get("connection") != "keep-alive"
    blob.grow(len(data))
    blob.finish()
    assert await wire.rest() == data


async def test_head_of_a_blob_of_unknown_size_claims_none(port: Port) -> None:
    blob = port.registry.grow_blob(b"x" * 1000, size_known=False)
    answer = await port.get(blob_path(blob.digest), "HEAD")
    assert answer.status == 200
    assert "content-length" not in answer.headers


async def test_keep_alive_stays_in_step_after_blobs(port: Port) -> None:
    blobs = {}
    for size in (0, 10, 70_000, 3_000_000):
        data = os.urandom(size)
        blobs[port.registry.add_blob(data)] = data
    wire = await port.connect()
    for _ in range(3):
        for digest, data in blobs.items():
            await wire.ask(blob_path(digest))
            assert (await wire.answer()).body == data
            await wire.ask(blob_path(digest), "HEAD")
            assert (await wire.answer("HEAD")).headers["content-length"] == str(len(data))


async def test_a_head_that_has_to_wait_is_not_overtaken_by_its_body(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every first try of the loop to send finds the socket full.
    send, refused = socket.socket.send, set[int]()

    def reluctant(self: socket.socket, data: bytes) -> int:
        if self.fileno() in refused:
            refused.remove(self.fileno())
            return send(self, data)
        refused.add(self.fileno())
        raise BlockingIOError

    data = os.urandom(3_000_000)
    digest = port.registry.add_blob(data)
    wire = await port.connect()
    monkeypatch.setattr(socket.socket, "send", reluctant)
    for _ in range(3):
        await wire.ask(blob_path(digest))
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, data)


async def test_pipelined_requests_are_answered_in_order(port: Port) -> None:
    blobs = [os.urandom(size) for size in (5, 2_000_000, 100_000, 0, 3_000_000)]
    digests = [port.registry.add_blob(data) for data in blobs]
    wire = await port.connect()
    for digest in digests:
        await wire.ask(blob_path(digest))
    await wire.ask("/v2/")
    for data in blobs:
        assert (await wire.answer()).body == data
    assert (await wire.answer()).body == b"{}"


async def test_64_clients_at_once_get_their_bytes(port: Port) -> None:
    warm, cold = os.urandom(2_000_003), os.urandom(1_500_007)
    blob = port.registry.grow_blob(cold)
    digests = {port.registry.add_blob(warm): warm, blob.digest: cold}

    async def pull(number: int) -> bool:
        digest, data = list(digests.items())[number % 2]
        return (await port.get(blob_path(digest))).body == data

    pulls = asyncio.gather(*(pull(number) for number in range(64)))
    for upto in range(100_000, len(cold), 100_000):
        blob.grow(upto)
        await asyncio.sleep(0)
    blob.grow(len(cold))
    blob.finish()
    assert all(await pulls)


async def test_f50_a_client_that_leaves_midway_frees_its_descriptors(port: Port) -> None:
    warm = port.registry.add_blob(os.urandom(BIG))
    growing = port.registry.grow_blob(os.urandom(1_000_000))
    growing.grow(500_000)
    before = descriptors()
    for digest in (warm, growing.digest):
        wire = await port.connect()
        await wire.ask(blob_path(digest))
        await wire.read(100_000)
        assert port.registry.open == 1
        wire.leave()
        await eventually(lambda: port.registry.open == 0)
        await eventually(lambda: descriptors() <= before)
    await eventually(lambda: len(port.told.answers) == 2)
    assert [answer[1:] for answer in port.told.answers] == [("hit", 200), ("filled", 200)]


async def test_f50_a_client_that_leaves_before_its_answer_frees_its_descriptors(
    port: Port,
) -> None:
    blob = port.registry.grow_blob(b"x" * 1000)
    before = descriptors()
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest))
    await eventually(lambda: port.registry.open == 1)
    wire.leave()
    await eventually(lambda: port.registry.open == 0)
    await eventually(lambda: descriptors() <= before)
    assert port.told.answers == []


async def test_f51_a_client_that_does_not_read_delays_nobody(port: Port) -> None:
    data = os.urandom(BIG)
    digest = port.registry.add_blob(data)
    stuck = [await port.connect() for _ in range(8)]
    for wire in stuck:
        await wire.ask(blob_path(digest))
        await wire.head()
    assert (await port.get(blob_path(digest))).body == data
    assert (await port.get("/v2/")).status == 200
    assert port.registry.open == len(stuck)


async def test_f33_a_file_that_was_cut_short_cuts_the_connection(port: Port) -> None:
    data = os.urandom(1_000_000)
    blob = port.registry.grow_blob(data)
    blob.grow(len(data))
    blob.finish()
    os.truncate(blob.path, 300_000)
    wire = await port.connect()
    await wire.ask(blob_path(blob.digest))
    assert (await wire.head()).headers["content-length"] == "1000000"
    assert await wire.rest() == data[:300_000]
    await eventually(lambda: port.told.answers == [("blob", "failed", 200)])


async def test_f42_without_descriptors_to_spare_blobs_are_sent_all_the_same(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("mirror.server.http.sending.os.dup", no_more)
    data = os.urandom(1_000_000)
    answer = await port.get(blob_path(port.registry.add_blob(data)))
    assert answer.body == data


@pytest.mark.parametrize("what", ["blobs", "manifests"])
async def test_f51_a_client_that_takes_nothing_for_too_long_is_cut(
    registry: FakeRegistry, what: str, spoken: Tls | None
) -> None:
    sender = Sender(window=0.2)
    sender.start()
    async with served(registry, sender, patience=0.2, tls=spoken) as port:
        if what == "blobs":
            path = blob_path(registry.add_blob(os.urandom(BIG)))
        else:
            path = f"/v2/a/manifests/{registry.add_manifest(bytes(4 << 20))}"
        before = descriptors()
        wire = await port.connect()
        for _ in range(8):  # more than the kernel takes, whichever it is
            await wire.ask(path)
        await eventually(lambda: port.listener.connections == 1)
        await eventually(lambda: port.listener.connections == 0)
        wire.leave()
        await eventually(lambda: descriptors() <= before)
        assert registry.open == 0
    sender.close()


# The sender alone.


@pytest.fixture
def lone() -> Iterator[Sender]:
    """One thread, with little patience."""
    sender = Sender(threads=1, window=0.2, least=1)
    sender.start()
    yield sender
    sender.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sending") / "file"
    path.write_bytes(os.urandom(BIG))
    return path


async def receive(client: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(DEADLINE):
        while len(data) < count and (piece := await loop.sock_recv(client, 1 << 20)):
            data += piece
    return bytes(data)


async def test_spans_of_one_transfer_follow_one_another(
    lone: Sender, pair: tuple[socket.socket, socket.socket], file: Path
) -> None:
    ours, theirs = pair
    with file.open("rb") as opened, lone.transfer(ours.fileno(), opened.fileno()) as transfer:
        ours.close()  # the caller's descriptors are its own: it may close them
        opened.close()
        receiving = asyncio.create_task(receive(theirs, 5_000_000))
        await transfer.send(10, 20)
        await transfer.send(5_000_000, 9_999_990)
        assert transfer.sent == 5_000_000
        whole = file.read_bytes()
        assert await receiving == whole[10:20] + whole[5_000_000:9_999_990]


async def test_a_client_that_is_slow_is_given_up(
    lone: Sender, pair: tuple[socket.socket, socket.socket], file: Path
) -> None:
    with (
        file.open("rb") as opened,
        lone.transfer(pair[0].fileno(), opened.fileno()) as transfer,
    ):
        with pytest.raises(ClientSlow):
            await asyncio.wait_for(transfer.send(0, BIG), DEADLINE)
        assert 0 < transfer.sent < BIG


async def test_a_client_that_has_left_is_no_fault_of_the_file(
    lone: Sender, pair: tuple[socket.socket, socket.socket], file: Path
) -> None:
    pair[1].close()
    with (
        file.open("rb") as opened,
        lone.transfer(pair[0].fileno(), opened.fileno()) as transfer,
        pytest.raises(ClientLeft),
    ):
        await transfer.send(0, BIG)


async def test_f38_a_file_that_cannot_be_read_is_no_fault_of_the_client(
    lone: Sender, pair: tuple[socket.socket, socket.socket], file: Path
) -> None:
    unreadable = os.open(file, os.O_WRONLY)
    with lone.transfer(pair[0].fileno(), unreadable) as transfer, pytest.raises(FileFault):
        await transfer.send(0, 10)
    os.close(unreadable)


async def test_f38_a_file_that_cannot_be_closed_stops_nobody(
    lone: Sender,
    pair: tuple[socket.socket, socket.socket],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close, failures = os.close, [0, 0]  # of network and FUSE file systems, close is the last word

    def failing(fd: int) -> None:
        close(fd)
        if failures:
            failures.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with file.open("rb") as opened:
        with lone.transfer(pair[0].fileno(), opened.fileno()):
            monkeypatch.setattr(os, "close", failing)
        await eventually(lambda: not failures)
        with lone.transfer(pair[0].fileno(), opened.fileno()) as transfer:
            await asyncio.wait_for(transfer.send(0, 10), DEADLINE)


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_what_is_cancelled_or_stopped_midway_gives_its_descriptors_back(
    pair: tuple[socket.socket, socket.socket], file: Path, how: str
) -> None:
    before = descriptors()
    sender = Sender()
    sender.start()
    with file.open("rb") as opened:
        tasks = []
        for _ in range(20):
            transfer = sender.transfer(pair[0].fileno(), opened.fileno())

            async def send(transfer=transfer) -> None:  # type: ignore[no-untyped-def]
                with transfer:
                    await transfer.send(0, BIG)

            tasks.append(asyncio.create_task(send()))
        await receive(pair[1], 1000)
        if how == "cancelled":
            for task in tasks:
                task.cancel()
        else:
            sender.close()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        kind = asyncio.CancelledError if how == "cancelled" else ClientLeft
        assert {type(end) for end in ends} == {kind}
    sender.close()
    assert descriptors() <= before


async def test_a_fast_client_does_not_starve_the_others(lone: Sender, file: Path) -> None:
    """One thread, one client that takes all it can get, and another that must have its turn."""
    with file.open("rb") as opened:
        (fast, fast_end), (fair, fair_end) = socket.socketpair(), socket.socketpair()
        for end in (fast, fast_end, fair, fair_end):
            end.setblocking(False)
        with (
            lone.transfer(fast.fileno(), opened.fileno()) as greedy,
            lone.transfer(fair.fileno(), opened.fileno()) as other,
        ):
            sending = asyncio.create_task(greedy.send(0, BIG))
            receiving = asyncio.create_task(receive(fast_end, BIG))
            await other.send(0, 1000)
            assert not sending.done(), "the other had to wait for all of the first"
            assert len(await receive(fair_end, 1000)) == 1000
            await receiving
            await sending
        for end in (fast, fast_end, fair, fair_end):
            end.close()


async def test_sender_threads_give_way_to_the_loop(sender: Sender) -> None:
    def priorities() -> set[int]:
        threads = [each.native_id for each in threading.enumerate() if each.name == "sender"]
        return {os.getpriority(os.PRIO_PROCESS, each) for each in threads if each is not None}

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    await eventually(lambda: priorities() == {min(own + 5, 19)})
