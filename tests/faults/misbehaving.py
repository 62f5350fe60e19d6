"""Clients that misbehave, each in a process of its own.

    python -m tests.faults.misbehaving leaves http://127.1.2.3:5000 127.0.0.2

It writes a line when it has begun, and goes on until it is killed or its input ends. Then it writes
what it has got through, as JSON: how many connections and requests were made, how many answers with
each status were read, and how many bytes of bodies that are read slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from mirror.contracts.tags import TagRecord
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.storage.tags.encoding import encode, tag_key

from .neighbourhood import COLD, KIB, MIB, OCI_MANIFEST, Image, digest_of, made_up

AT_ONCE = 8  # connections of a client that asks for one thing after another
A_SECOND = 400  # what such a client asks for
CONNECTIONS = 1000  # what one makes in a second, that makes them for their own sake

done: Counter[str] = Counter()


@dataclass(frozen=True)
class Mirror:
    """As a client sees it. `sources`: the addresses from which it asks, in turn."""

    host: str
    port: int
    sources: Iterator[str]

    def connect(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        client.bind((next(self.sources), 0))
        client.connect((self.host, self.port))
        done["connections"] += 1
        return client

    def ask(self, path: str, *fields: str, method: str = "GET") -> socket.socket:
        client = self.connect()
        client.sendall(self.request(path, *fields, method=method))
        done["requests"] += 1
        return client

    def request(self, path: str, *fields: str, method: str = "GET") -> bytes:
        named = [] if any(field.startswith("Host:") for field in fields) else [f"Host: {self.host}"]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *named, *fields, "", ""]).encode()


Misbehaves = Callable[[Mirror], Awaitable[None]]


async def leaves(mirror: Mirror) -> None:
    """Asks for large layers, each of which it has no use for 20 ms later."""
    for number in range(80):
        client = mirror.ask(f"/v2/drips/left/blobs/{made_up(number)}")
        await asyncio.sleep(0.02)
        client.close()


async def ranges(mirror: Mirror) -> None:
    """Reads the same large blob over many connections, each from far within, at 8 kB/s."""
    clients = [
        mirror.ask(f"/v2/drips/far/blobs/{made_up(0)}", f"Range: bytes={8 * MIB + number * KIB}-")
        for number in range(60)
    ]
    _go_on(_reads(clients, 8000))


async def stays(mirror: Mirror) -> None:
    """Asks for more layers of one registry than may be fetched at once, and reads them all."""
    clients = [mirror.ask(f"/v2/drips/stays/blobs/{made_up(number)}") for number in range(80)]
    _go_on(_reads(clients, 64 * KIB))


async def two_registries(mirror: Mirror) -> None:
    """As `stays`, of two other registries."""
    clients = [
        mirror.ask(f"/v2/drips/of-{name}/blobs/{made_up(number)}?ns={name}")
        for number in range(40)
        for name in ("slow.example", "slower.example")
    ]
    _go_on(_reads(clients, 64 * KIB))


async def one_registry(mirror: Mirror) -> None:
    """As `stays`, of one other registry."""
    clients = [
        mirror.ask(f"/v2/drips/one/blobs/{made_up(number)}?ns=slow.example") for number in range(40)
    ]
    _go_on(_reads(clients, 64 * KIB))


async def asks_in_vain(mirror: Mirror) -> None:
    """Asks a registry for more than it may be asked at once, all of which it never answers."""
    asked = ("tags/list", "manifests/1", f"manifests/{made_up(0)}", f"blobs/{made_up(0)}")
    _background.extend(
        mirror.ask(f"/v2/mute/a{number}/{what}") for what in asked for number in range(40)
    )


async def asks_before_others(mirror: Mirror) -> None:
    """As `asks_in_vain`, and then for what others are about to ask for."""
    await asks_in_vain(mirror)
    _background.extend(mirror.ask(f"/v2/{name}/manifests/1", method="HEAD") for name in COLD)


async def takes_layers_before_others(mirror: Mirror) -> None:
    """Asks for more layers than may be fetched at once, none of which comes, and then for those
    that others are about to ask for."""
    asked = [f"/v2/mute/layers/blobs/{made_up(number)}" for number in range(100)]
    for name in COLD:
        asked += [f"/v2/{name}/blobs/{digest_of(layer)}" for layer in Image.of(name).layers]
    _background.extend(map(mirror.ask, asked))


async def made_up_tags(mirror: Mirror) -> None:
    """Asks for tags that do not exist, faster than the registry answers, and does not wait."""

    async def flood() -> None:
        for number in itertools.count():
            client = mirror.ask(f"/v2/absent/a{number}/manifests/1", method="HEAD")
            client.setblocking(False)
            clients.append(client)
            if len(clients) > 500:
                clients.pop(0).close()
            await asyncio.sleep(0.005)

    clients: list[socket.socket] = []
    _go_on(flood())


async def made_up_digests(mirror: Mirror) -> None:
    """Asks for content that does not exist, each a new one of another repository."""
    _asks(
        mirror,
        (
            f"/v2/absent/a{number}/{kind}/{made_up(number)}"
            for number in itertools.count()
            for kind in ("blobs", "manifests")
        ),
    )


async def many_tags(mirror: Mirror) -> None:
    """Asks for tags that exist, each a new one, of repositories with a rule about their ages."""
    paths = (f"/v2/gated/a{n % 50}/manifests/{n}" for n in itertools.count())
    _asks(mirror, paths, at_once=64)


async def wrong_requests(mirror: Mirror) -> None:
    """Asks the registry for what it refuses as a wrong request."""
    _asks(mirror, (f"/v2/strict/a{n}/tags/list?n=10000" for n in itertools.count()))


async def odd_manifests(mirror: Mirror) -> None:
    """Asks for images that clients no longer know, and for lists of referrers for which the
    registry has an image."""
    _asks(
        mirror,
        (
            path
            for number in itertools.count()
            for path in (
                f"/v2/old/a{number}/manifests/1",
                f"/v2/odd/a{number}/referrers/{made_up(number)}",
            )
        ),
    )


async def words_of_links(mirror: Mirror) -> None:
    """Asks for lists whose registry adds links that are hard to read."""
    _asks(mirror, (f"/v2/links/a{n}/tags/list?ns=slow.example" for n in itertools.count()))


async def wide_manifests(mirror: Mirror) -> None:
    """Asks for one manifest with very many layers, through one repository after another."""
    paths = (
        f"/v2/{kind}/a{number}/manifests/1"
        for number in itertools.count()
        for kind in ("wide", "huge")
    )
    _asks(mirror, paths, at_once=4, a_second=20)


async def claims(mirror: Mirror) -> None:
    """Asks for blobs that are said to be as large as the cache, over and over."""
    clients = [
        mirror.ask(f"/v2/claims/a/blobs/{made_up(number)}{named}")
        for number in range(25)
        for named in ("", "?ns=slow.example")
    ]
    _go_on(_reads(clients, 64 * KIB))


async def strangers_junk(mirror: Mirror) -> None:
    """Asks for its neighbour's blobs through another repository, of which an accelerator says that
    it has them."""
    blobs = [blob for name in COLD for blob in Image.of(name).blobs]
    clients = [mirror.ask(f"/v2/public/a/blobs/{digest_of(blob)}") for blob in blobs]
    _go_on(_reads(clients, 64 * KIB))


async def made_up_registries(mirror: Mirror) -> None:
    """Names registries that do not exist, each a new one."""
    paths = (f"/v2/a/b/manifests/1?ns=r{n}.example.com" for n in itertools.count())
    _asks(mirror, paths, at_once=64)


async def odd_names(mirror: Mirror) -> None:
    """Names registries, repositories and content in ways that mean none."""
    odd = [
        "/v2/a/b/manifests/1?ns=host:99999",
        "/v2/host:99999/a/b/manifests/1",
        "/v2/a/b/manifests/1?ns=" + "%ff" * 100,
        "/v2/A/B/manifests/1",
        "/v2/a/b/blobs/sha256:0",
        "/v2/a/b/manifests/" + "x" * 4000,
        "/host:99999/v2/a/b/tags/list",
        "/v2/" + "a/" * 2000 + "manifests/1",
    ]
    _asks(mirror, itertools.cycle(odd))


async def foreign_pages(mirror: Mirror) -> None:
    """Asks for what is cached as a web page of somebody else's makes its visitors' browsers ask."""
    fields = ("Host: evil.example", "Origin: http://evil.example")
    _asks(mirror, itertools.repeat("/v2/small/warm/manifests/1"), *fields)


async def new_connections(mirror: Mirror) -> None:
    """Connects, over and over: it asks nothing, or not to the end, or hangs up at once."""
    words = (b"", b"GET /v2/ HTTP/1.1\r\nHost: ", mirror.request("/v2/small/warm/manifests/1"))

    async def flood() -> None:
        began, made = time.monotonic(), 0
        while True:
            while made < (time.monotonic() - began) * CONNECTIONS:
                client = mirror.connect()
                client.send(words[made % len(words)])
                client.close()
                made += 1
            await asyncio.sleep(0.01)

    _go_on(flood())


async def slow_readers(mirror: Mirror) -> None:
    """Takes what is cached over many connections, and reads next to nothing."""
    layer = digest_of(Image.of("many/warm").layers[0])
    paths = ("/v2/many/warm/manifests/1", f"/v2/many/warm/blobs/{layer}")
    reader = _Reader(mirror)
    for path in paths:  # from now on it is cached
        await reader.read(path)
    clients = [mirror.ask(paths[0]) for _ in range(100)]
    clients += [mirror.ask(paths[1]) for _ in range(400)]
    _go_on(_reads(clients, 100))


async def idle_connections(mirror: Mirror) -> None:
    """Connects, often, and asks nothing, or not to the end."""
    clients = [mirror.connect() for _ in range(1000)]
    for client in clients[::2]:
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: ")
    _background.append(clients)


async def looks_at_an_image(mirror: Mirror) -> None:
    """Takes the manifest of a large image, and the first bytes of one of its layers."""
    image = Image.of("many/looked-at")
    for path in ("manifests/1", f"blobs/{digest_of(image.layers[0])}"):
        client = mirror.ask(f"/v2/many/looked-at/{path}")
        await asyncio.get_running_loop().run_in_executor(None, client.recv, 1)
        client.close()


async def nothing(mirror: Mirror) -> None:
    """Behaves."""


async def writes_records(mirror: Mirror, redis: str) -> None:
    """May write to the Redis of the mirror's tags: says of a public repository's tags that they are
    its neighbour's image, or what is no record at all, and asks for them."""
    url = urlsplit(redis)
    manifest = Image.of("small/warm").manifest
    private = Descriptor(OCI_MANIFEST, Digest.parse(digest_of(manifest)), len(manifest))

    async def flood() -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        for number in itertools.count():
            key = tag_key(Repository("docker.io", f"public/a{number}"), "1")
            junk = b"{" * (MIB if number % 10 == 0 else 100)
            record = encode(key, TagRecord(descriptor=private, checked_at=time.time()))
            for name, value in ((key, record), (key + "2", junk)):
                writer.write(_command(b"SET", b"registry-mirror:1:tag:" + name.encode(), value))
            await writer.drain()
            await reader.readline()
            await reader.readline()
            done["records"] += 2
            await asyncio.sleep(1 / A_SECOND)

    _go_on(flood())
    tags = (f"{n}/manifests/1{junk}" for n in itertools.count() for junk in ("", "2"))
    _asks(mirror, (f"/v2/public/a{tag}" for tag in tags), at_once=64)


def _command(*words: bytes) -> bytes:
    """As Redis takes it (RESP)."""
    parts = (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%b" % (len(words), b"".join(parts))


_background: list[object] = []


def _go_on(work: Awaitable[None]) -> None:
    _background.append(asyncio.ensure_future(work))


async def _reads(clients: Sequence[socket.socket], speed: int) -> None:
    for client in clients:
        client.setblocking(False)
    while True:
        for client in clients:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                done["bytes"] += len(client.recv(speed // 2))
        await asyncio.sleep(0.5)


def _asks(
    mirror: Mirror,
    paths: Iterable[str],
    *fields: str,
    at_once: int = AT_ONCE,
    a_second: int = A_SECOND,
) -> None:
    """Asks for these, one after the other over each of its connections, and reads the answers."""
    paths = iter(paths)

    async def one() -> None:
        reader = _Reader(mirror)
        for path in paths:
            with contextlib.suppress(OSError, EOFError):
                await reader.read(path, *fields)
            await asyncio.sleep(at_once / a_second)

    for _ in range(at_once):
        _go_on(one())


class _Reader:
    """A connection that is kept as long as the mirror keeps it."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def read(self, path: str, *fields: str) -> None:
        """Raises OSError or EOFError when the mirror hangs up."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._mirror.connect())
        reader, writer = self._streams
        try:
            writer.write(self._mirror.request(path, *fields))
            done["requests"] += 1
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"\r\ncontent-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, EOFError):
            writer.close()
            self._streams = None
            raise
        done[head.split()[1]] += 1
        if "\r\nconnection: close" in head:
            writer.close()
            self._streams = None


async def _main(name: str, url: str, *words: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    sources = [word for word in words if "//" not in word]
    others = [word for word in words if "//" in word]
    misbehaves = globals()[name]
    await misbehaves(Mirror(parts.hostname, parts.port, itertools.cycle(sources)), *others)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever began it ends, in whatever way
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
