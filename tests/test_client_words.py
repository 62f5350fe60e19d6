"""No words of a client's are a fault of the mirror's: whatever it asks, the answer is no 5xx."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import ResolveResult
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mirror.oci.digest import Digest
from mirror.policy.on_demand import OnDemand
from mirror.upstream.http.transport import Resolver

from .running import RunningMirror

DEADLINE = 20.0  # seconds after which a request is stuck
LAYER = b"layer"
DIGEST = str(Digest.of(LAYER))

# Mostly what a parser of HTTP takes, so that it comes to be read.
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
anything = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30)
hostile = st.integers(0, 19).flatmap(lambda dice: visible if dice else anything)
# fmt: off
word = hostile | st.sampled_from([
    "", "a", "library", "redis", "7", "v2", "v2/", ".", "..", "//", "%2e%2e%2f", "%00", "%", "-",
    "docker.io", "docker.io:443", "quay.io", "x.example:99999", "x.example:0", "127.1", "::1", "@",
    "[::1", "xn--a", "xn--", "a" * 300, ":", "tags", "list", "manifests", "blobs", "referrers",
    DIGEST, "sha256:abc", "sha512:" + "0" * 128, "?", "#", "localhost", "x.internal", "%ff%fe",
    "%f0%9f%90%b3", "%ed%a0%80", "%D9%A1", "+", "&", "=", ";", "*", "https://x.example",
])
good_name = st.sampled_from(["library/redis", "redis", "docker.io/redis", "quay.io/a/b"])
# fmt: on


def mostly(good: st.SearchStrategy[str], bad: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """One bad word at a time is read; of many, the first is refused before the others are."""
    return st.integers(0, 4).flatmap(lambda dice: good if dice else bad)


name, tag = mostly(good_name, word), mostly(st.just("1"), word)
digest = mostly(st.just(DIGEST), word)
hosts = st.sampled_from(["docker.io", "quay.io", "x.example", "10.0.0.7", "localhost", "registry"])
registry = (
    st.builds("{}:{}".format, hosts, st.sampled_from([-1, 0, 80, 443, 5000, 65536, 99999])) | word
)
path = mostly(
    st.one_of(
        st.builds("/v2/{}/manifests/{}".format, name, tag),
        st.builds("/v2/{}/blobs/{}".format, name, digest),
        st.builds("/v2/{}/tags/list".format, name),
        st.builds("/v2/{}/referrers/{}".format, name, digest),
        st.builds("/{}/v2/{}/tags/list".format, registry, name),
        st.builds("/v2/{}/a/manifests/1".format, registry),
    ),
    st.builds("{}://{}/v2/{}/manifests/1".format, word, word, name)
    | st.lists(word, max_size=6).map("/".join)
    | hostile,
)
counts = st.sampled_from(["0", "-1", "1e9", "9" * 400, "a/b"])
query = st.lists(
    st.builds("ns={}".format, registry)
    | st.builds("{}={}".format, st.sampled_from(["n", "last", "artifactType"]), word | counts)
    | word,
    max_size=2,
).map("&".join)
# fmt: off
field_names = st.sampled_from([
    "Range", "If-Range", "If-None-Match", "If-Match", "If-Modified-Since", "Accept",
    "Accept-Encoding", "Accept-Language", "Authorization", "Connection", "Cookie",
    "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Expect",
    "Forwarded", "Host", "Origin", "Referer", "Sec-Fetch-Site", "TE", "Upgrade", "User-Agent",
    "Via", "X-Forwarded-For", "X",
])
field_values = word | st.sampled_from([
    "bytes=0-", "bytes=-1", "bytes=5-1", "bytes=99999999999999999999-", "bytes=0-1,3-4", "bytes",
    f'"{DIGEST}"', 'W/"x"', "close", "keep-alive", "upgrade", "100-continue", "chunked", "gzip",
    "18446744073709551616", "-1", "0x1", "application/json, */*", "Basic YTpi", "mirror.lan", "[",
    "[::1]:5000", "a:b:c", "x" * 7000, "a, " * 500, "docker/28", "skopeo/1.22", "none",
])
methods = st.sampled_from(["GET"] * 20 + ["HEAD"] * 6 + ["PUT", "OPTIONS", "TRACE", "PRI", "get"])
# fmt: on


class Door:
    """A mirror in front of a hub, and a client that sends what it is told, in a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self._houses = RunningMirror.built(folder)
        self.mirror = self.runner.run(self._houses.__aenter__())
        self.mirror.hub.add_image("library/redis", "1", LAYER)
        self.runner.run(self.mirror.start("allow_any_registry: true\nlimits: {idle: 1s}\n"))

    def close(self) -> None:
        self.runner.run(self._houses.__aexit__(None, None, None))
        self.runner.close()

    def status(self, raw: bytes) -> int:
        return self.runner.run(self._status(raw))

    async def _status(self, raw: bytes) -> int:
        reader, writer = await asyncio.open_connection(self.mirror.address, 5000)
        try:
            writer.write(raw)
            async with asyncio.timeout(DEADLINE):
                line = await reader.readline()
        finally:
            writer.transport.abort()
        return int(line.split()[1]) if line else 0


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    async def resolve(*_: Any, **__: Any) -> list[ResolveResult]:
        raise OSError(socket.EAI_NONAME, "there is no internet here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resolver, "resolve", resolve)
        patch.setattr(OnDemand, "_make_room", lambda *_: None)  # all names are to be tried
        door = Door(tmp_path_factory.mktemp("door"))
        yield door
        door.close()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(methods, path, st.none() | query, st.lists(st.tuples(field_names, field_values), max_size=2))
def test_whatever_a_client_writes_is_no_fault_of_the_mirrors(
    door: Door, method: str, path: str, query: str | None, fields: list[tuple[str, str]]
) -> None:
    lines = [f"{method} {path if query is None else f'{path}?{query}'} HTTP/1.1"]
    if not any(name == "Host" for name, _ in fields):
        lines.append("Host: mirror")
    lines += [f"{name}: {value}" for name, value in fields]
    with capture_logs() as logged:
        status = door.status("\r\n".join([*lines, "", ""]).encode("latin-1"))
    assert not [line for line in logged if line["log_level"] in ("error", "critical")]
    # 503: of a registry that is asked, and cannot be reached. 0: closed, as the rest did not come.
    assert status < 500 or status == 503
