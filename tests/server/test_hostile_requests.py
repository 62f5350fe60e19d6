"""Requests that no good client sends: answered in the registry's words, and in step."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from mirror.oci.errors import Unavailable

from ..waiting import eventually
from .conftest import Answer, Port, Wire

ZEROS = "sha256:" + "0" * 64


def code_of(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/json"
    assert "Traceback" not in answer.body.decode()
    return str(json.loads(answer.body)["errors"][0]["code"])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/Library/redis/manifests/7", 400, "NAME_INVALID"),
        ("/v2/library//redis/manifests/7", 400, "NAME_INVALID"),
        ("/v2//manifests/7", 400, "NAME_INVALID"),
        ("/v2/manifests/7", 400, "NAME_INVALID"),
        ("/v2/a/../../etc/manifests/7", 400, "NAME_INVALID"),
        ("/v2/a%2e%2e%2fb/manifests/7", 400, "NAME_INVALID"),
        ("/v2/a%00/manifests/7", 400, "NAME_INVALID"),
        ("/v2/gr%C3%BC%C3%9F/manifests/7", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 256}/manifests/7", 400, "NAME_INVALID"),
        (f"/v2/{'a/' * 1000}a/manifests/7", 400, "NAME_INVALID"),
        ("/v2/a/manifests/-7", 400, "TAG_INVALID"),
        ("/v2/a/manifests/%37", 400, "TAG_INVALID"),
        (f"/v2/a/manifests/{'7' * 129}", 400, "TAG_INVALID"),
        ("/v2/a/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/md5:" + "0" * 32, 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:" + "A" * 64, 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/..", 400, "DIGEST_INVALID"),
        ("/v2/a/referrers/7", 400, "DIGEST_INVALID"),
        ("/v2/a/manifests/7/", 404, "NAME_UNKNOWN"),
        (f"/v2/a/blobs/{ZEROS}/", 404, "NAME_UNKNOWN"),
        ("/v2/a/tags/list/", 404, "NAME_UNKNOWN"),
        ("/v2/_catalog", 404, "NAME_UNKNOWN"),
        ("/v2/a", 404, "NAME_UNKNOWN"),
        ("/v2/a/tags/lists", 404, "NAME_UNKNOWN"),
        ("/V2/", 404, "NAME_UNKNOWN"),
        ("/v2x", 404, "NAME_UNKNOWN"),
        ("//", 404, "NAME_UNKNOWN"),
        ("/healthz/", 404, "NAME_UNKNOWN"),
        ("/quay.io/v2/", 404, "NAME_UNKNOWN"),
        ("/quay.io/v2/library/redis/manifests/7", 404, "NAME_UNKNOWN"),
        ("/docker.io/docker.io/v2/", 404, "NAME_UNKNOWN"),
        ("/docker.io//v2/", 404, "NAME_UNKNOWN"),
        ("/docker.io/v2x", 404, "NAME_UNKNOWN"),
        ("/a%00/v2/", 404, "NAME_UNKNOWN"),
        ("/docker.io:99999/v2/", 404, "NAME_UNKNOWN"),
        ("/v2/a/manifests/7?ns=host:99999", 400, "NAME_INVALID"),
        ("/v2/a/manifests/7?ns=host:0", 400, "NAME_INVALID"),
        ("/v2/a/manifests/7?ns=a..b", 400, "NAME_INVALID"),
        ("/v2/host:99999/a/manifests/7", 400, "NAME_INVALID"),
        ("//v2/", 404, "NAME_UNKNOWN"),
        ("/v1/_ping", 404, "NAME_UNKNOWN"),
        ("/metrics", 404, "NAME_UNKNOWN"),
        ("/v2/a/tags/list?" + "&".join("x" * 20), 400, "UNKNOWN"),
    ],
)
async def test_f52_f54_words_that_are_not_of_the_grammar(
    port: Port, path: str, status: int, code: str
) -> None:
    answer = await port.get(path)
    assert (answer.status, code_of(answer)) == (status, code)
    assert port.registry.asked == []
    assert port.told.answers[0][:2] in {("other", "failed"), ("tags", "failed")}


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v2/" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: m\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\n" + b"X: x\r\n" * 10_000 + b"\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\nBad Header: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        b"GET /v2/\x00 HTTP/1.1\r\nHost: m\r\n\r\n",
        b"GET v2 HTTP/1.1\r\nHost: m\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=[
        "long-path", "long-field", "many-fields", "two-lengths", "length-and-chunks",
        "negative-length", "bad-name", "no-host", "nul", "relative", "no-http", "tls",
    ],
)  # fmt: skip
async def test_f52_what_is_no_http_is_refused_in_the_registrys_words_and_closed(
    port: Port, raw: bytes
) -> None:
    wire = await port.connect()
    wire.writer.write(raw)
    answer = await wire.answer()
    assert answer.status == 400
    assert code_of(answer) == "UNKNOWN"
    assert await wire.rest() == b""
    assert port.registry.asked == []
    await eventually(lambda: port.told.answers == [("other", "failed", 400)])


@pytest.mark.parametrize("host", ["xn--a", "a.xn--", "xn--a:5000", "[v1.a]", "%ff", "me@xn--a"])
async def test_an_absolute_target_is_answered_whatever_host_it_names(port: Port, host: str) -> None:
    wire = await port.connect()
    await wire.ask(f"http://{host}/v2/")
    answer = await wire.answer()
    assert (answer.status, answer.body) == (200, b"{}") or answer.status == 400
    assert port.registry.asked == []


async def test_f52_bytes_that_are_not_utf8_are_no_name(port: Port) -> None:
    wire = await port.connect()
    await wire.send(b"GET /v2/\xff\xfe/manifests/7 HTTP/1.1\r\nHost: m\r\n\r\n")
    assert (await wire.answer()).status == 400
    assert port.registry.asked == []


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
async def test_f53_a_mirror_is_for_reading(port: Port, method: str) -> None:
    for path in ("/v2/", "/v2/a/manifests/7", "/v2/a/blobs/uploads/", "/docker.io/v2/", "/"):
        answer = await port.get(path, method)
        assert (answer.status, code_of(answer)) == (405, "UNSUPPORTED")
        assert answer.headers["allow"] == "GET, HEAD"
    assert (await port.get("/elsewhere", method)).status == 404
    assert port.registry.asked == []


async def in_step(wire: Wire) -> None:
    await wire.ask("/v2/")
    answer = await wire.answer()
    assert (answer.status, answer.body) == (200, b"{}")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"])
async def test_f53_a_body_is_ignored_and_the_connection_stays_in_step(
    port: Port, method: str
) -> None:
    wire = await port.connect()
    inner = b"GET /v2/smuggled/manifests/7 HTTP/1.1\r\nHost: m\r\n\r\n"
    line = f"{method} /v2/ HTTP/1.1\r\nHost: m\r\n".encode()
    await wire.send(line + b"Content-Length: %d\r\n\r\n%s" % (len(inner), inner))
    assert (await wire.answer(method)).status == (200 if method in ("GET", "HEAD") else 405)
    await in_step(wire)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    await wire.send(line + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    await wire.answer(method)
    await in_step(wire)
    assert port.registry.asked == []


async def test_f53_a_compressed_body_is_not_unpacked(port: Port) -> None:
    wire = await port.connect()
    await wire.send(
        b"GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nxxxx"
    )
    assert (await wire.answer()).status == 200
    await in_step(wire)


async def test_a_websocket_handshake_is_answered_like_any_request(port: Port) -> None:
    wire = await port.connect()
    await wire.ask("/v2/", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert (await wire.answer()).status == 200
    await in_step(wire)


async def test_connect_makes_no_tunnel(port: Port) -> None:
    wire = await port.connect()
    await wire.send(b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n")
    assert (await wire.answer()).status in (400, 404, 405)


async def test_all_accept_lines_are_fine(port: Port) -> None:
    port.registry.add_manifest(b"{}", "7")
    wire = await port.connect()
    lines = b"".join(b"Accept: application/x%d\r\n" % number for number in range(6))
    await wire.send(b"GET /v2/a/manifests/7 HTTP/1.1\r\nHost: m\r\n" + lines + b"\r\n")
    assert (await wire.answer()).status == 200


async def test_a_failure_suits_the_client(port: Port) -> None:
    port.registry.failures["blob"] = Unavailable("the upstream is down", retry_after=7)
    path = f"/v2/library/redis/blobs/{ZEROS}"
    for agent, status in [("docker/28.5.0", 503), ("skopeo/1.18.0", 429)]:
        answer = await port.get(path, headers={"User-Agent": agent})
        assert (answer.status, answer.headers["retry-after"]) == (status, "7")


async def test_what_nobody_expected_is_500_without_a_traceback(port: Port) -> None:
    port.registry.failures["manifest"] = ValueError("a bug, with hunter2 in it")
    wire = await port.connect()
    with capture_logs() as written:
        await wire.ask(f"/v2/library/redis/manifests/{ZEROS}")
        answer = await wire.answer()
    assert (answer.status, code_of(answer)) == (500, "UNKNOWN")
    assert b"hunter2" not in answer.body
    await in_step(wire)
    assert [line["event"] for line in written if line["log_level"] == "error"], "unseen"
