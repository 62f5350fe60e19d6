"""Whatever a client sends, no answer is above 4xx, and nobody fails by it."""

from __future__ import annotations

import http.client
import random
import socket

import pytest

from .registry import IMAGE, INDEX, PORT, Registry, Repository, digest_of, image

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "M-SEARCH")
DIGEST = digest_of(b"layer")
LONG = "a" * 300


def paths(repository: Repository, session: str) -> list[str]:
    name = repository.name
    references = ["1", DIGEST, "sha256:", "sha512:00", "a:b", "-", LONG, "%00", "..", "é", ""]
    uploads = ["", session, "x" * 200, "%2e%2e", "a/b", "uploads"]
    queries = [
        "", "?digest=" + DIGEST, "?digest=", "?digest=md5:00", "?mount=" + DIGEST, "?n=2&last=a",
        f"?mount={DIGEST}&from={name}", f"?mount={DIGEST}&from=..", "?mount=x", "?n=-1",
        "?artifactType=%00", "?last=" + LONG, "?" + "a=1&" * 40, "?digest=%ff%fe", "?tag=é",
    ]  # fmt: skip
    found = [f"/v2/{name}/{kind}/{each}" for kind in ("manifests", "blobs", "referrers")
             for each in references]  # fmt: skip
    found += [f"/v2/{name}/blobs/uploads/{each}" for each in uploads]
    found += [
        f"/v2/{name}/tags/list",
        "/v2/_catalog",
        "/v2/",
        "/v2",
        "/v2//",
        f"/v2/{LONG}/tags/list",
    ]
    found += ["/v1/_ping", "/v1/search", "/token", "/", "/api/v1/x", "/static/../x", "//", "*"]
    return [path + query for path in found for query in queries]


HEADERS = [
    {}, {"Content-Type": IMAGE}, {"Content-Type": INDEX}, {"Content-Type": "\x7f/ÿ"},
    {"Content-Range": "0-4"}, {"Content-Range": "9-1"}, {"Content-Range": "bytes */*"},
    {"Content-Range": "9" * 40 + "-1"}, {"Range": "bytes=0-"}, {"Range": "bytes=9-1,2-3"},
    {"If-None-Match": "*"}, {"Expect": "100-continue"}, {"Expect": "more"},
    {"Transfer-Encoding": "chunked"}, {"Content-Encoding": "gzip"}, {"Accept": "x"},
    {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic !!!"}, {"Authorization": "Digest"},
    {"Host": ""}, {"Host": "[::"}, {"Origin": "http://evil.example"}, {"Cookie": "registry=x"},
]  # fmt: skip
CHUNKED = b"5\r\nlayer\r\n0\r\n\r\n"
BODIES = (None, b"", b"layer", b"{}", image(), b"\x00" * 5000, b"[" * 3000, CHUNKED)


@pytest.mark.parametrize("seed", range(2))
def test_no_answer_is_above_4xx(repository: Repository, seed: int) -> None:
    chance = random.Random(seed)
    repository.put_image("1")
    session = repository.begin().rpartition("/")[2]
    everything = paths(repository, session)
    registry, statuses = repository.registry, list[int]()
    for _ in range(120):
        asked = (
            chance.choice(METHODS), chance.choice(everything), chance.choice(BODIES),
            chance.choice(HEADERS),
        )  # fmt: skip
        statuses.append(status_of(registry, *asked))
        assert statuses[-1] < 500, asked
    assert statuses.count(0) < len(statuses) / 4
    assert repository.ask("GET", "tags/list").status in (200, 404)


def status_of(
    registry: Registry, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> int:
    """As it was sent, whatever http.client would say to that."""
    login = {"Authorization": "Basic YW5uOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ=="}
    sent = {"Host": "r", "Content-Length": str(len(body or b"")), **login, **headers}
    if "Transfer-Encoding" in headers:
        del sent["Content-Length"]
        body = CHUNKED if body != b"[" * 3000 else b"zz\r\n"
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in sent.items())]
    with socket.create_connection((registry.address, PORT), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        answer = http.client.HTTPResponse(connection, method=method)
        try:
            answer.begin()
        except (http.client.HTTPException, ConnectionError):
            return 0  # closed: a body that ended early has no other answer
        return answer.status
