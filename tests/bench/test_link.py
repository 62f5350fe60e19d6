"""The link of the bench carries every byte, late and not too many at a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.corpus import Blob, Corpus
from bench.far import Distance
from bench.servers import House, Upstream

SIZE = 1 << 20
ROUND_TRIP = 0.05
RATE = 4e6


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


@pytest.fixture
def upstream(house: House) -> Upstream:
    return house.upstream()


@pytest.fixture
def way(house: House, upstream: Upstream) -> Distance:
    return Distance(house, upstream, endpoints=2, round_trip=ROUND_TRIP, rate=RATE, total=2 * RATE)


@pytest.fixture
def blob(tmp_path: Path, upstream: Upstream) -> Blob:
    blob = next(Corpus(tmp_path, SIZE).blobs(SIZE))
    upstream.offer([blob])
    return blob


def test_every_byte_comes_and_none_too_early(way: Distance, blob: Blob) -> None:
    carried = way.carried
    began = time.monotonic()
    way.endpoints[0].prove(blob.path, blob.digest)
    took = time.monotonic() - began
    # A connection and a question take a round trip each; the link makes up for some idle time.
    assert took >= 2 * ROUND_TRIP + 0.9 * SIZE / RATE - 0.02
    assert SIZE < way.carried - carried < SIZE + 10_000


def test_an_endpoint_is_cut_in_the_middle_and_mended(way: Distance, blob: Blob) -> None:
    one, other = way.endpoints
    way.fail([one], "cut", after=SIZE // 2)
    with pytest.raises(OSError):
        one.prove(blob.path, blob.digest)
    with pytest.raises(ConnectionRefusedError):
        one.prove(blob.path, blob.digest)
    other.prove(blob.path, blob.digest)
    way.mend()
    one.prove(blob.path, blob.digest)


def test_an_endpoint_falls_silent(way: Distance, blob: Blob) -> None:
    one, other = way.endpoints
    way.fail([one], "silent", after=0)
    other.prove(blob.path, blob.digest)
    with socket.create_connection(("127.0.0.1", one.port), timeout=0.5) as client:
        client.sendall(f"GET {blob.path} HTTP/1.1\r\n\r\n".encode())
        with pytest.raises(TimeoutError):
            client.recv(1)
    way.mend()
    one.prove(blob.path, blob.digest)
