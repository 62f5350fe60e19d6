"""What an upstream or a client writes is read in a time that grows with its length, and no faster.

Each parser is given texts far longer than it would be (its own bounds are lifted where it has any),
made to be read again and again by a pattern that backtracks or a loop that starts over. It runs in
a child that the kernel ends when one text has cost it CPU_SECONDS of its own CPU time, whatever
else the machine does: reading once takes a fiftieth of that, reading the square far more.
"""

from __future__ import annotations

import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from mirror.oci import challenges, links
from mirror.oci.digest import Digest
from mirror.oci.documents import read_object
from mirror.oci.errors import RegistryError
from mirror.oci.patterns import Patterns
from mirror.oci.ranges import ContentRange, parse_range
from mirror.oci.reference import Repository, parse_image, parse_name, parse_reference
from mirror.oci.retry import parse_http_date, parse_retry_after
from mirror.policy.on_demand import refuse_private
from mirror.server.http import response_cache
from mirror.server.v2 import access_log as access
from mirror.server.v2.conditions import not_modified, wanted
from mirror.server.v2.naming import Naming
from mirror.server.v2.target import (
    parse_artifact_type,
    parse_count,
    parse_marker,
    parse_path,
    parse_query,
    split,
)
from mirror.upstream.client import answers, quota

LENGTH = 1 << 16
CPU_SECONDS = 0.5

DIGEST = Digest.of(b"")
NAMING = Naming("docker.io", frozenset({"docker.io", "ghcr.io"}), any_registry=True)
# The most repetitions that the configuration lets a pattern have, in what a name can be at most.
PATTERNS = Patterns(["*a" * 150 + "b:" + "*?" * 30, "*[a-z]" * 60 + "*.*:*"])

PARSERS: dict[str, Callable[[str], object]] = {
    # An upstream's words
    "Link": lambda text: answers.tag_to_go_on_after(answers.next_query([text]) or "", ["7"]),
    "WWW-Authenticate": lambda text: challenges.parse_challenges([text]),
    "Retry-After": lambda text: parse_retry_after(text, 0.0),
    "Date": parse_http_date,
    "Content-Range of a 206": ContentRange.parse,
    "Content-Range of a 416": lambda text: answers.size_of_unsatisfied({"Content-Range": text}),
    "Content-Type": lambda text: answers.media_type({"Content-Type": text}),
    "Content-Encoding": lambda text: answers.encoding({"Content-Encoding": text}),
    "Docker-Content-Digest": lambda text: answers.claimed_digest({"Docker-Content-Digest": text}),
    "ratelimit-limit": quota._NUMBER.fullmatch,
    "JSON": lambda text: read_object(text.encode("utf-8", "surrogateescape")),
    "JSON's values": lambda text: read_object(b'{"a":' + text.encode() + b"}"),
    "JSON's strings": lambda text: read_object(b'{"a":"' + text.encode() + b'"}'),
    # A client's words
    "request target": lambda text: split("/" + text),
    "path": lambda text: parse_path("/v2/" + text),
    "query": parse_query,
    "n": parse_count,
    "last": parse_marker,
    "artifactType": parse_artifact_type,
    "ns": lambda text: NAMING.repository("library/redis", text),
    "a registry in the path": lambda text: NAMING.repository(text),
    "Host": lambda text: NAMING.repository("library/redis", None, text),
    "a registry that is not configured": refuse_private,
    "Range": lambda text: parse_range(text, 100),
    "Range's positions": lambda text: parse_range("bytes=" + text, 100),
    "If-Range": lambda text: wanted("bytes=0-1", text, DIGEST, 100),
    "If-None-Match": lambda text: not_modified([text], DIGEST),
    "User-Agent": access.product,
    "a head": lambda text: response_cache.read_fields(b"Host: m\r\n" + text.encode() + b"\r\n\r\n"),
    "a head's end": lambda text: response_cache.is_bare(b"GET /" + text.encode() + b"\r\n\r\n"),
    # Both
    "image": lambda text: parse_image(text, "docker.io"),
    "repository": parse_name,
    "tag or digest": parse_reference,
    "a repository among patterns": lambda text: PATTERNS.match(
        Repository("docker.io", "a" * 255), text[:128]
    ),
}

PIECES = (
    *('"', "\\", '\\"', "'", ",", ";", "=", ":", "/", "?", "&", "%", "#", "@", "*", "-", ".", "_"),
    *("<", ">", "<a>", "<a>;", "<a>,", '; rel="', "; rel=next", ' ;a="b"', "a=b,", 'a="b",'),
    *("a", "0", "9", "a.", "a-", "a__", "a/", "../", "a:", "%41", "a=b&", "xn--", "é", "W/", '"a"'),
    *(" ", "\t", " ,", "\t,", "\r\n", "\r\nA: b", "bytes=", "0-,", "0-1,", "Mon, ", "1.", "1e9,"),
    *("[", "]", "{", "[[],", '{"a":', "[],", '"a",', '"a":1,', "\\u0041", "Basic ", "Basic a,"),
)


def poisons() -> Iterator[str]:
    for piece in PIECES:
        many = piece * (LENGTH // len(piece))
        half = many[: len(many) // 2]
        yield many
        yield many + "\x01"
        for other in ("<a>", ";", '"', ",", " ", "a", "="):
            yield half + other * (LENGTH // 2 // len(other))


def poison_that_ends(parse: Callable[[str], object]) -> str | None:
    """The text at which a child that parses them all, one by one, ran out of its time, or raised
    what no parser may; None if none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            for number, text in enumerate(poisons()):
                os.write(writing, number.to_bytes(2, "big"))
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                with suppress(RegistryError):
                    parse(text)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        last = pipe.read()[-2:]
    _, status = os.waitpid(child, 0)
    return list(poisons())[int.from_bytes(last, "big")] if status else None


@pytest.mark.parametrize("name", PARSERS)
def test_no_word_takes_longer_to_read_than_it_is_long(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (challenges, links):
        monkeypatch.setattr(module, "MAX_LINE", 2 * LENGTH)
    monkeypatch.setattr(response_cache, "_LONGEST_HEAD", 2 * LENGTH)
    poison = poison_that_ends(PARSERS[name])
    assert poison is None, f"{name}: {poison[:40]!r} … {poison[-40:]!r}"


def test_a_reader_that_starts_over_is_found_out() -> None:
    assert poison_that_ends(re.compile("<*a").findall)
