"""The bench runs from its command line to its written results, and notices wrong answers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.corpus import TAIL, Blob, Corpus
from bench.load.asking import ask
from bench.load.reading import Readers, read
from bench.results import Table, Target, interleave
from bench.servers import House, Upstream, WrongAnswer

from ..e2e.programs import REPOSITORY, needs

SIZE = 3 << 20


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path, SIZE)


@pytest.fixture
def upstream(house: House) -> Upstream:
    return house.upstream()


def test_figures_run_and_their_results_are_written(tmp_path: Path) -> None:
    needs("nginx", "wrk", "docker-registry")
    figures = ("warm-tls", "cold-tls")
    words = [sys.executable, "-m", "bench", *figures, "--quick", "--results", str(tmp_path)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    documents = json.loads((tmp_path / "latest.json").read_text())
    found = [set(documents[name]["tables"][0]["samples"]) for name in figures]
    peers = {"upstream, direct", "docker-registry", "limit: receive, hash, write"}
    assert found == [{"mirror", "nginx, 2 workers"}, {"mirror"} | peers]
    for document in documents.values():
        assert document["quick"] is True
        assert all(target["value"] > 0 for target in document["targets"])
    written = (tmp_path / "latest.md").read_text()
    assert "from an upstream with TLS 1.3" in done.stdout
    assert "from an upstream with TLS 1.3" in written
    assert "measures nothing" in written


def test_what_grows_is_measured_and_plotted(tmp_path: Path) -> None:
    needs("nginx")
    words = [sys.executable, "-m", "bench", "growth", "--quick", "--results", str(tmp_path)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "latest.json").read_text())["growth"]
    blobs, *connections = (table["samples"] for table in document["tables"])
    assert list(blobs) == ["100", "1000"]
    assert [list(each) for each in connections] == [["1", "100"]] * 2
    drawn = {path.name for path in tmp_path.glob("*.svg") if ElementTree.parse(path)}
    assert drawn == {"growth.svg", *(f"growth-{number}.svg" for number in range(1, 6))}
    written = (tmp_path / "latest.md").read_text()
    assert all(f"({name})" in written for name in drawn)


def test_an_unknown_figure_is_named_with_those_that_exist() -> None:
    words = [sys.executable, "-m", "bench", "--only", "wram"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "wram" in done.stderr
    assert "warm" in done.stderr


def test_blobs_are_what_their_digests_name(upstream: Upstream, corpus: Corpus) -> None:
    blobs = list(itertools.islice(corpus.blobs(SIZE), 2))
    upstream.offer(blobs)
    assert blobs[0].digest != blobs[1].digest
    for blob in blobs:
        upstream.prove(blob.path, blob.digest)
    assert read(upstream, blobs, 2).bytes == 2 * SIZE


@pytest.mark.parametrize(("copy", "tls"), [(False, False), (True, False), (True, True)])
def test_readers_count_every_byte(house: House, corpus: Corpus, copy: bool, tls: bool) -> None:
    blob, upstream = next(corpus.blobs(SIZE)), house.upstream(tls=tls)
    upstream.offer([blob])
    found = read(upstream, blob, 3, processes=2, starts=[0.0, 0.01, 0.02], copy=copy)
    assert found.bytes == 3 * SIZE
    assert len(found.first) == len(found.last) == 3
    assert upstream.given(blob.digest) == (3, 3 * SIZE)


@pytest.mark.parametrize("wrong", ["end", "length", "name"])
def test_wrong_answers_are_noticed(upstream: Upstream, corpus: Corpus, wrong: str) -> None:
    blob = next(corpus.blobs(SIZE))
    upstream.offer([blob])
    expected = {
        "end": Blob(blob.digest, blob.file, blob.size, bytes(TAIL)),
        "length": Blob(blob.digest, blob.file, blob.size + 1, blob.tail),
        "name": Blob("sha256:" + "0" * 64, blob.file, blob.size, blob.tail),
    }[wrong]
    readers = Readers(upstream, expected, 2)
    readers.go()
    with pytest.raises(WrongAnswer):
        readers.reading()
    with pytest.raises(WrongAnswer):
        upstream.prove(expected.path, "sha256:" + "0" * 64)


def test_the_own_loop_refuses_what_it_did_not_ask_for(upstream: Upstream, corpus: Corpus) -> None:
    upstream.offer([], corpus.manifest)
    assert ask(upstream, corpus.manifest.path, 2, 0.2).requests > 0
    with pytest.raises(WrongAnswer):
        ask(upstream, corpus.config.path, 2, 0.2)


def test_the_upstream_resumes_where_it_is_asked_to(upstream: Upstream, corpus: Corpus) -> None:
    blob = next(corpus.blobs(SIZE))
    upstream.offer([blob])
    status, headers, body = upstream.ask(blob.path, headers={"Range": f"bytes={SIZE - 40}-"})
    assert status == 206
    assert headers["content-range"] == f"bytes {SIZE - 40}-{SIZE - 1}/{SIZE}"
    assert len(body) == 40
    assert body.endswith(blob.tail)


def test_rounds_are_interleaved_and_each_is_begun_by_another() -> None:
    seen: list[str] = []
    interleave(3, {name: lambda name=name: seen.append(name) for name in "abc"})
    assert "".join(seen) == "abcbcacab"


def test_targets_are_held_against_medians() -> None:
    table = Table("speed")
    for ours, theirs in ((9, 10), (1, 10), (8, 10)):
        table.add("mirror", "GB/s", ours)
        table.add("peer", "GB/s", theirs)
    ratio = table.ratio("GB/s", "mirror", "peer")
    assert ratio == pytest.approx(0.8)
    assert Target("as fast", ratio, 0.9, at_least=True).met is False
    assert Target("no slower", ratio, 0.9).met is True
    assert Target("against nobody", table.ratio("GB/s", "mirror", "absent"), 1).met is None
    assert "8 (1–9)" in "\n".join(table.lines())
