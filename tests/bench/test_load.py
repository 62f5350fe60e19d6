"""What asks the servers counts rightly, and notices wrong answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ballast import SIZE as BALLAST_SIZE
from bench.ballast import Ballast
from bench.corpus import TAIL, Blob, Corpus, small_images
from bench.load.idling import idle_connections
from bench.load.probing import probe_each
from bench.load.pulling import pull
from bench.load.ranging import take
from bench.load.reading import read
from bench.servers import House, Upstream, WrongAnswer

SIZE = 3 << 20
PARTS = 8


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with House(tmp_path) as house:
        yield house.upstream()


@pytest.fixture
def blob(tmp_path: Path, upstream: Upstream) -> Blob:
    blob = next(Corpus(tmp_path, SIZE).blobs(SIZE))
    upstream.offer([blob])
    return blob


def test_parts_are_a_whole_blob_and_what_is_beyond_them_is_not_read(
    upstream: Upstream, blob: Blob
) -> None:
    assert take(upstream, blob, PARTS, 0).bytes == SIZE
    downloads, sent = upstream.given(blob.digest)
    assert downloads == 1  # the other parts begin further on
    assert sent >= SIZE


def test_a_part_with_another_end_is_noticed(upstream: Upstream, blob: Blob) -> None:
    wrong = Blob(blob.digest, blob.file, blob.size, bytes(TAIL))
    with pytest.raises(WrongAnswer, match="last bytes"):
        take(upstream, wrong, PARTS, 0)


def test_a_part_of_something_longer_is_noticed(upstream: Upstream, blob: Blob) -> None:
    longer = Blob(blob.digest, blob.file, blob.size + 1, blob.tail)
    with pytest.raises(WrongAnswer, match="Content-Range"):
        take(upstream, longer, PARTS, 0)


def test_what_is_sent_from_files_is_counted(upstream: Upstream, blob: Blob) -> None:
    with upstream.cost() as cost:
        read(upstream, blob)
    assert cost.taken == SIZE - TAIL  # which it has in memory


def test_every_image_is_pulled_once_and_proven(upstream: Upstream) -> None:
    images = small_images(5)
    upstream.offer(
        [blob for image in images for blob in (image.config, image.layer)],
        *(manifest for image in images for manifest in (image.index, image.manifest)),
    )
    found = pull(upstream, [image.pull for image in images], 2)
    assert found.images == len(found.took) == 5
    assert all(upstream.given(image.layer.digest) == (1, 4096) for image in images)
    lie = [(images[0].config.path, images[1].config.digest)]
    with pytest.raises(WrongAnswer, match="wrong bytes"):
        pull(upstream, [lie], 1)
    with pytest.raises(WrongAnswer, match="404"):
        pull(upstream, [small_images(1)[0].pull], 1)


def test_idle_connections_are_kept_to_the_end(upstream: Upstream) -> None:
    with idle_connections(upstream, "/v2/", 3):
        assert upstream.answers()
    with (
        pytest.raises(WrongAnswer, match="idle connection was closed"),
        idle_connections(upstream, "/v2/", 3),
    ):
        upstream.program.stop()


def test_ballast_is_given_as_if_it_had_been_pulled(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        upstream = house.upstream()
        mirror = house.mirror(upstream)
        ballast = Ballast(mirror)
        ballast.grow(10)
        ballast.grow(30)
        blobs = ballast.blobs(range(30))
        assert len(probe_each(mirror, blobs)) == len({blob.digest for blob in blobs}) == 30
        for blob in blobs:
            status, headers, body = mirror.ask(blob.path)
            assert (status, len(body)) == (200, BALLAST_SIZE)
            assert headers["docker-content-digest"] == blob.digest
        with pytest.raises(WrongAnswer):
            probe_each(mirror, ballast.blobs([30]))
