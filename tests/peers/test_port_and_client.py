"""The peer port and who asks there, over real connections: what comes, and all that goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest

from mirror.clock import Clock
from mirror.contracts.events import PeerAnswered, PeerAsked
from mirror.contracts.fleet import Elsewhere, Wanted
from mirror.contracts.registry import Outcome, Provenance
from mirror.contracts.second_tier import SecondTierFault
from mirror.oci.descriptor import OCTET_STREAM, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable
from mirror.oci.ranges import ByteRange
from mirror.peering import Ask, Proof
from mirror.secret_text import SecretStr
from mirror.server.http.accepting import Port, open_sockets
from mirror.server.http.listening import Listener
from mirror.server.http.response_cache import ResponseCache
from mirror.server.http.sending import Sender
from mirror.server.peers.handler import PeerPort, parse_content
from mirror.server.v2.access_log import AccessLog
from mirror.tls import serving_context, verifying_context
from mirror.upstream.http.resolver import Resolver
from mirror.upstream.peers import client as client_module
from mirror.upstream.peers.client import HttpPeers
from mirror.upstream.peers.nodes import FleetNodes, listed
from mirror.upstream.peers.stream import PeerStream

from ..e2e.certificates import issue
from ..fakes import HandClock, Recorder
from ..waiting import eventually

SECRET = b"0123456789abcdef0123456789abcdef"
OWN = "http://10.9.9.9:5003"
DATA = random.Random(5).randbytes((1 << 20) + 777)
WANTED = Wanted("docker.io", Digest.of(DATA))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = replace(client_module.FLEET, silent=0.6, connect=0.3)
    monkeypatch.setattr(client_module, "FLEET", quick)


@dataclass
class Growing:
    """A FileContent, and Given, that comes as the test says."""

    path: Path
    data: bytes = DATA
    growing: bool = True
    closed: int = 0
    came: int = 1 << 40
    error: Exception | None = None
    change: asyncio.Event = field(default_factory=asyncio.Event)
    descriptor = Descriptor(OCTET_STREAM, WANTED.digest, len(DATA))
    outcome = Outcome.JOINED
    provenance = Provenance.HERE

    def __post_init__(self) -> None:
        self.size = len(self.data)
        self.came = min(self.came, self.size)
        self.path.write_bytes(self.data)
        self.file = os.open(self.path, os.O_RDONLY)
        self.content = self

    def grows(self, came: int) -> None:
        self.came = came
        self.change.set()

    def fails(self) -> None:
        self.error = Unavailable("the fill has failed")
        self.change.set()

    async def proven(self) -> None: ...

    def fileno(self) -> int:
        return self.file

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self.file, count, offset)

    def damaged(self, reason: str) -> None: ...

    async def readable(self, beyond: int) -> int:
        while self.came <= beyond < self.size and self.error is None:
            self.change.clear()
            await self.change.wait()
        if self.error is not None:
            raise self.error
        return self.came

    def close(self) -> None:
        self.closed += 1


@dataclass
class Gives:
    given: Growing | Elsewhere | None = None
    asked: list[tuple[Wanted, ByteRange | None, str]] = field(default_factory=list)

    async def content(
        self, wanted: Wanted, part: ByteRange | None, node: str
    ) -> Growing | Elsewhere | None:
        self.asked.append((wanted, part, node))
        return self.given


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    sender = Sender()
    sender.start()
    yield sender
    sender.close()


@dataclass
class Node:
    """One with a peer port."""

    url: str
    gives: Gives
    told: Recorder
    wall: HandClock


@contextlib.asynccontextmanager
async def listening(
    sender: Sender, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", store: str = ""
) -> AsyncIterator[Node]:
    [one] = await open_sockets(host, 0, 128)
    scheme = "http" if tls is None else "https"
    url = f"{scheme}://{host}:{one.getsockname()[1]}"
    gives, told, wall = Gives(), Recorder(), HandClock()
    handler = PeerPort(gives, None, Proof(SECRET, url, wall), sender, told, Clock(wall=wall), store)
    unused = ResponseCache(AccessLog(lambda _: None, told))
    port = Port(one, tls is not None, "fleet")
    listener = Listener(handler, [port], response_cache=unused, events=told, tls=tls)
    listener.start()
    try:
        yield Node(url, gives, told, wall)
    finally:
        await listener.stop(0)


@contextlib.asynccontextmanager
async def asking(
    *known: str,
    secret: bytes = SECRET,
    wall: Callable[[], float] | None = None,
    tls: ssl.SSLContext | None = None,
    told: Recorder | None = None,
) -> AsyncIterator[HttpPeers]:
    events = told or Recorder()
    nodes = FleetNodes(OWN, listed(known), events)
    await nodes.look()
    resolver = Resolver(5.0)
    proof = Proof(secret, OWN, wall or HandClock())
    peers = HttpPeers(nodes, proof, events, Clock(), resolver, tls)
    yield peers
    await peers.close()
    await resolver.close()


@pytest.fixture
async def node(sender: Sender) -> AsyncIterator[Node]:
    async with listening(sender) as node:
        yield node


@pytest.fixture
async def peers(node: Node) -> AsyncIterator[HttpPeers]:
    async with asking(node.url) as peers:
        yield peers


async def drain(stream: object) -> bytes:
    assert isinstance(stream, PeerStream)
    data = b""
    try:
        while piece := await stream.read():
            data += bytes(piece)
    finally:
        await stream.close()
    return data


@pytest.mark.parametrize(
    "part",
    [
        None,
        ByteRange(0),
        ByteRange(1000),
        ByteRange(5, 9),
        ByteRange(len(DATA) - 1),
        ByteRange(3, 1 << 40),
    ],
    ids=["whole", "from 0", "rest", "four bytes", "last byte", "beyond"],
)
async def test_what_is_there_comes(
    node: Node, peers: HttpPeers, part: ByteRange | None, tmp_path: Path
) -> None:
    node.gives.given = given = Growing(tmp_path / "data", growing=False)
    stream = await peers.content(node.url, WANTED, part)
    assert isinstance(stream, PeerStream)
    start = part.start if part else 0
    assert (stream.start, stream.size) == (start, len(DATA))
    assert await drain(stream) == DATA[start : part.stop if part else None]
    assert node.gives.asked == [(WANTED, part, OWN)]
    await eventually(lambda: given.closed == 1)
    [answer] = await eventually(lambda: node.told.of(PeerAnswered))
    assert answer == PeerAnswered("here", len(DATA[start : part.stop if part else None]))


async def test_what_grows_comes_as_it_grows(node: Node, peers: HttpPeers, tmp_path: Path) -> None:
    node.gives.given = given = Growing(tmp_path / "data", came=1000)
    stream = await peers.content(node.url, WANTED)
    assert isinstance(stream, PeerStream)
    data = bytes(await stream.read())
    assert data == DATA[: len(data)]
    assert 0 < len(data) <= 1000
    given.grows(500_000)
    while len(data) < 500_000:
        data += bytes(await stream.read())
    given.grows(len(DATA))
    assert data + await drain(stream) == DATA
    [answer] = await eventually(lambda: node.told.of(PeerAnswered))
    assert answer.result == "growing"


async def test_a_slow_registry_behind_it_is_waited_for(
    node: Node, peers: HttpPeers, tmp_path: Path
) -> None:
    """Longer than a node may be silent: it says that it lives; before and after the head."""
    node.gives.given = given = Growing(tmp_path / "data", came=0)
    loop = asyncio.get_running_loop()
    loop.call_later(1.0, given.grows, 10)
    loop.call_later(2.0, given.grows, len(DATA))
    assert await drain(await peers.content(node.url, WANTED)) == DATA
    assert not peers.is_away(node.url)


async def test_a_read_that_is_cancelled_loses_nothing(
    node: Node, peers: HttpPeers, tmp_path: Path
) -> None:
    node.gives.given = given = Growing(tmp_path / "data", came=10)
    stream = await peers.content(node.url, WANTED)
    assert isinstance(stream, PeerStream)
    data = b""
    while len(data) < len(DATA):
        try:
            async with asyncio.timeout(0.01):
                data += bytes(await stream.read())
        except TimeoutError:
            given.grows(min(len(DATA), given.came + 300_000))
    assert data == DATA
    await stream.close()


async def test_others_are_named_and_only_nodes_of_the_fleet_are_believed(
    node: Node, sender: Sender
) -> None:
    other = "http://10.0.0.7:5003"
    async with listening(sender) as stranger, asking(node.url, other) as peers:
        node.gives.given = Elsewhere([other, stranger.url])
        assert await peers.content(node.url, WANTED) == Elsewhere([other])
        assert await peers.content(stranger.url, WANTED) is None
        assert await peers.content(OWN, WANTED) is None
        assert not stranger.gives.asked  # not a byte was sent there


async def test_a_redirect_is_not_followed(node: Node) -> None:
    head = ("HTTP/1.1 307 T", f"Location: {node.url}/fleet/1/node", "Content-Length: 0")
    async with stub(saying(*head)) as url, asking(url) as peers:
        assert await peers.content(url, WANTED) is None
    assert not node.told.seen  # of a request that is not for it, it tells that it refused it


async def test_nothing_is_none(node: Node, peers: HttpPeers, tmp_path: Path) -> None:
    assert await peers.content(node.url, WANTED) is None
    assert not peers.is_away(node.url)
    node.gives.given = Growing(tmp_path / "data")
    assert await peers.content(node.url, WANTED, ByteRange(len(DATA))) is None
    assert not peers.is_away(node.url)


async def test_a_fill_that_fails_cuts_the_stream(
    node: Node, peers: HttpPeers, tmp_path: Path
) -> None:
    node.gives.given = given = Growing(tmp_path / "data", came=1000)
    stream = await peers.content(node.url, WANTED)
    assert isinstance(stream, PeerStream)
    await stream.read()
    given.fails()
    with pytest.raises(SecondTierFault):
        await drain(stream)
    [answer] = await eventually(lambda: node.told.of(PeerAnswered))
    assert answer.result == "cut"


@pytest.mark.parametrize(
    ("change", "reason", "word"),
    [
        ({"secret": SECRET[::-1]}, "signature", "secret"),
        ({"wall": HandClock(1_000_000 - 90)}, "clock", "90 s ahead of"),
        ({"wall": HandClock(1_000_000 + 90)}, "clock", "90 s behind"),
    ],
    ids=["secret", "behind", "ahead"],
)
async def test_who_cannot_prove_to_be_of_the_fleet_is_refused_and_both_are_told(
    node: Node,
    change: dict[str, object],
    reason: str,
    word: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = Recorder()
    async with asking(node.url, told=told, **change) as peers:  # type: ignore[arg-type]
        assert await peers.content(node.url, WANTED) is None
        assert peers.is_away(node.url)
        assert await peers.content(node.url, WANTED) is None
    assert node.gives.asked == []
    assert node.told.of(PeerAnswered) == [PeerAnswered("refused", reason=reason)]
    assert told.of(PeerAsked) == [PeerAsked("refused")]
    words = capsys.readouterr().out
    assert words.count("peer_refused") == words.count("peer_refuses_us") == 1
    assert words.count(word) >= 2
    assert SECRET.decode() not in words


async def test_what_was_overheard_is_worth_nothing_after_a_minute(node: Node) -> None:
    path = "/fleet/1/content/docker.io/" + str(WANTED.digest)
    given = Proof(SECRET, OWN, node.wall).of(Ask("GET", path), node.url)

    async def status(**headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(node.url + path, headers=headers) as answer,
        ):
            await answer.read()
            return answer.status

    assert await status(Authorization=given) == 404
    assert await status(Authorization=given, Range="bytes=1-2") == 401
    assert await status() == 401
    node.wall.now += 61
    assert await status(Authorization=given) == 401


@pytest.mark.parametrize(
    "path",
    [
        "",
        "docker.io",
        f"docker.io/{WANTED.digest}/",
        f"docker.io/{WANTED.digest}?x=1",
        f"Docker.io/{WANTED.digest}",
        f"index.docker.io/{WANTED.digest}",
        "docker.io/sha256:../../etc/passwd",
        f"..%2f/{WANTED.digest}",
        f"docker.io/{str(WANTED.digest).upper()}",
    ],
)
def test_only_one_form_of_a_path_means_a_content(path: str) -> None:
    assert parse_content("/fleet/1/content/" + path) is None


def test_that_form_does() -> None:
    assert parse_content(f"/fleet/1/content/docker.io/{WANTED.digest}") == WANTED
    with_port = f"/fleet/1/content/registry.corp.lan:5000/{WANTED.digest}"
    assert parse_content(with_port) == Wanted("registry.corp.lan:5000", WANTED.digest)


# What a node that is broken, hostile or gone does.


@contextlib.asynccontextmanager
async def stub(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def saying(*lines: str, body: bytes = b"") -> Callable[..., Awaitable[None]]:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        await writer.drain()

    return answer


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        (None, ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked"]),
        (None, ["HTTP/1.1 206 Partial", "Content-Length: 5", "Content-Range: bytes 0-4/9"]),
        (ByteRange(2), ["HTTP/1.1 206 P", "Content-Length: 5", "Content-Range: bytes 3-7/8"]),
        (ByteRange(2), ["HTTP/1.1 206 P", "Content-Length: 5", "Content-Range: bytes 2-7/8"]),
        (ByteRange(2), ["HTTP/1.1 206 P", "Content-Length: 5", "Content-Range: bytes 2-6/8"]),
        (ByteRange(2), ["HTTP/1.1 206 P", "Content-Length: 5", "Content-Range: bytes 2-6/*"]),
        (ByteRange(2, 5), ["HTTP/1.1 206 P", "Content-Length: 5", "Content-Range: bytes 2-6/8"]),
        (ByteRange(2), ["HTTP/1.1 206 P", "Content-Length: 5"]),
        (None, ["HTTP/1.1 302 Found", "Location: http://127.0.0.1:1/", "Content-Length: 0"]),
        (None, ["HTTP/1.1 421 M", "Content-Length: 9"]),
        (None, ["HTTP/1.1 500 no", "Content-Length: 0"]),
        (None, ["nonsense"]),
    ],
)
async def test_an_answer_of_no_use_is_none(part: ByteRange | None, lines: list[str]) -> None:
    async with stub(saying(*lines, body=b"123456789")) as url, asking(url) as peers:
        found = await peers.content(url, WANTED, part)
        assert found is None or found == Elsewhere([])


@pytest.mark.parametrize(
    "nodes", ["7", "[7, null]", '{"a": 1}', "[" + '"http://x:1",' * 999 + "0]"]
)
async def test_others_that_it_names_are_read_strictly(nodes: str) -> None:
    body = f'{{"nodes": {nodes}}}'.encode()
    head = ("HTTP/1.1 421 M", f"Content-Length: {len(body)}")
    async with stub(saying(*head, body=body)) as url, asking(url) as peers:
        assert await peers.content(url, WANTED) == Elsewhere([])


async def test_one_that_ends_early_is_told_of_as_a_fault() -> None:
    head = ("HTTP/1.1 200 OK", "Content-Length: 100")
    async with stub(saying(*head, body=b"12345")) as url, asking(url) as peers:
        with pytest.raises(SecondTierFault):
            await drain(await peers.content(url, WANTED))


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_a_frozen_node_is_left_and_rests() -> None:
    """Its kernel accepts connections, and nothing answers."""
    loop = asyncio.get_running_loop()
    async with stub(_silent) as url, asking(url) as peers:
        began = loop.time()
        assert await peers.content(url, WANTED) is None
        assert loop.time() - began < 3
        assert peers.is_away(url)
        began = loop.time()
        assert await peers.content(url, WANTED) is None
        assert loop.time() - began < 0.2


async def test_a_node_that_freezes_in_the_midst_is_a_fault() -> None:
    async def freezes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345")
        await _silent(reader, writer)

    first = True

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        was_first, first = first, False
        await (freezes if was_first else _silent)(reader, writer)

    async with stub(answer) as url, asking(url) as peers:
        stream = await peers.content(url, WANTED)
        assert isinstance(stream, PeerStream)
        assert bytes(await stream.read()) == b"12345"
        # Its reader gives up again and again, sooner than a node may be silent.
        with pytest.raises(SecondTierFault, match="silent"):
            await read_with_impatience(stream)
        assert peers.is_away(url)
        await stream.close()


async def read_with_impatience(stream: PeerStream) -> bytes:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                return await stream.read()


async def test_a_node_behind_a_partition_costs_the_time_to_connect() -> None:
    """Nothing answers, not even that nothing is there: packets are dropped."""
    loop = asyncio.get_running_loop()
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the kernel drops who comes to a queue that is full
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with asking(url) as peers:
            began = loop.time()
            assert await peers.content(url, WANTED) is None
            assert loop.time() - began < 3
            assert peers.is_away(url)


async def test_a_node_that_is_not_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        told = Recorder()
        async with asking(url, told=told) as peers:
            assert await peers.content(url, WANTED) is None
            assert peers.is_away(url)
            assert told.of(PeerAsked) == [PeerAsked("away")]


async def test_a_reader_that_takes_nothing_holds_up_no_other(
    node: Node, peers: HttpPeers, tmp_path: Path
) -> None:
    large = random.Random(7).randbytes(24 << 20)  # more than buffers between the two hold
    node.gives.given = Growing(tmp_path / "data", large, growing=False)
    slow = [await peers.content(node.url, WANTED) for _ in range(12)]  # none of them is read
    async with asyncio.timeout(20):
        assert await drain(await peers.content(node.url, WANTED)) == large
    [answer] = await eventually(lambda: node.told.of(PeerAnswered))
    assert answer == PeerAnswered("here", len(large))
    for stream in slow:
        assert isinstance(stream, PeerStream)
        await stream.close()


async def test_a_proxy_of_the_environment_sees_nothing_of_it(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    node.gives.given = Growing(tmp_path / "data")
    async with asking(node.url) as peers:
        assert await drain(await peers.content(node.url, WANTED)) == DATA


# TLS.


async def test_by_tls_nodes_are_known_by_their_authority_and_may_have_to_show_one(
    sender: Sender, tmp_path: Path
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "others").mkdir()
    ours, others = (issue(tmp_path / name, ("127.0.0.1",)) for name in ("ours", "others"))
    shown, authority = SecretStr(ours.server.read_text()), ours.authority.read_text()
    async with listening(sender, serving_context(shown, authority)) as node:
        node.gives.given = Growing(tmp_path / "data")

        async def found(tls: ssl.SSLContext) -> bool:
            async with asking(node.url, tls=tls) as peers:
                stream = await peers.content(node.url, WANTED)
                return stream is not None and await drain(stream) == DATA

        assert await found(verifying_context(authority, shown))
        assert not await found(verifying_context(authority))
        assert not await found(verifying_context(others.authority.read_text(), shown))
        strangers = SecretStr(others.server.read_text())
        assert not await found(verifying_context(authority, strangers))


async def test_the_words_of_an_answer_are_json(node: Node) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(node.url + "/fleet/1/node") as answer,
    ):
        assert answer.status == 401
        assert "nodes of a fleet" in json.loads(await answer.read())["error"]
