"""Every kind of answer, to well-behaved clients."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest

from mirror.contracts.registry import Outcome
from mirror.oci.digest import Digest
from mirror.oci.manifests import DOCKER_MANIFEST, OCI_INDEX
from mirror.oci.reference import Repository

from ..fakes import REDIS
from ..waiting import eventually
from .conftest import Port

# Spaces, key order and the missing newline must arrive as they are.
MANIFEST = b'{ "schemaVersion":2,\n "mediaType": "' + DOCKER_MANIFEST.encode() + b'" }'
SIZES = [0, 1, 1000, 64 << 10, (64 << 10) + 1, 3_000_001]


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_the_ping_is_200_whatever_happens_behind(port: Port, path: str) -> None:
    answer = await port.get(path, headers={"Authorization": "Basic aHVudGVyOjI="})
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert "www-authenticate" not in answer.headers
    assert port.registry.asked == []


async def test_a_manifest_passes_byte_for_byte(port: Port) -> None:
    digest = port.registry.add_manifest(MANIFEST, "7", media_type=DOCKER_MANIFEST)
    for reference in ("7", str(digest)):
        answer = await port.get(f"/v2/library/redis/manifests/{reference}")
        assert (answer.status, answer.body) == (200, MANIFEST)
        assert answer.headers["content-type"] == DOCKER_MANIFEST
        assert answer.headers["docker-content-digest"] == str(digest)
        assert answer.headers["etag"] == f'"{digest}"'
        assert answer.headers["content-length"] == str(len(MANIFEST))
    assert port.registry.asked == [
        ("resolve", REDIS, "7"),
        ("manifest", REDIS, digest),
        ("manifest", REDIS, digest),
    ]


async def test_head_has_the_headers_of_get(port: Port) -> None:
    data = os.urandom(100_000)
    manifest, blob = port.registry.add_manifest(MANIFEST, "7"), port.registry.add_blob(data)
    for path in (f"manifests/{manifest}", "manifests/7", f"blobs/{blob}", "tags/list"):
        head = await port.get(f"/v2/library/redis/{path}", "HEAD")
        get = await port.get(f"/v2/library/redis/{path}")
        assert head.status == get.status == 200
        for headers in (head.headers, get.headers):
            headers.pop("date", None)
            headers.pop("x-request-id", None)  # of each request
            if path.startswith("blobs"):
                headers.pop("cache-status", None)  # nobody tells what a HEAD would have hit
        assert head.headers == get.headers
    assert [call[0] for call in port.registry.asked].count("stat") == 1


async def test_head_of_a_blob_fetches_nothing(port: Port) -> None:
    growing = port.registry.grow_blob(b"x" * 1000)
    answer = await port.get(f"/v2/library/redis/blobs/{growing.digest}", "HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, "1000")
    assert [call[0] for call in port.registry.asked] == ["stat"]


@pytest.mark.parametrize("size", SIZES)
async def test_a_blob_passes_byte_for_byte(port: Port, size: int) -> None:
    data = os.urandom(size)
    digest = port.registry.add_blob(data)
    answer = await port.get(f"/v2/library/redis/blobs/{digest}")
    assert answer.status == 200
    assert answer.body == data
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["docker-content-digest"] == str(digest)
    await eventually(lambda: port.told.answers == [("blob", "hit", 200)])
    assert port.told.bytes.get("blob", 0) == size


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-", 0, 1_000_000),
        ("bytes=0-0", 0, 1),
        ("bytes=999999-", 999_999, 1_000_000),
        ("bytes=500000-999999999", 500_000, 1_000_000),
        ("bytes=-10", 999_990, 1_000_000),
        ("bytes=-9999999", 0, 1_000_000),
        ("bytes=100-700099", 100, 700_100),
    ],
)
async def test_a_single_range_is_206(port: Port, header: str, start: int, stop: int) -> None:
    data = os.urandom(1_000_000)
    digest = port.registry.add_blob(data)
    answer = await port.get(f"/v2/library/redis/blobs/{digest}", headers={"Range": header})
    assert answer.status == 206
    assert answer.body == data[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/1000000"


@pytest.mark.parametrize(
    "header", ["bytes=0-1,5-6", "bytes=5-1", "bytes=x", "lines=1-2", "bytes=" + "0-1," * 1000]
)
async def test_f52_what_is_no_single_range_is_answered_whole(port: Port, header: str) -> None:
    data = os.urandom(200_000)
    digest = port.registry.add_blob(data)
    answer = await port.get(f"/v2/library/redis/blobs/{digest}", headers={"Range": header})
    assert (answer.status, answer.body) == (200, data)
    assert "content-range" not in answer.headers


async def test_a_range_behind_the_end_is_416_with_the_size(port: Port) -> None:
    digest = port.registry.add_blob(b"x" * 1000)
    answer = await port.get(f"/v2/library/redis/blobs/{digest}", headers={"Range": "bytes=1000-"})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */1000")
    assert json.loads(answer.body)["errors"][0]["code"] == "RANGE_INVALID"


async def test_a_range_holds_only_for_the_content_that_if_range_names(port: Port) -> None:
    digest = port.registry.add_blob(b"0123456789")
    for validator, status in [
        (f'"{digest}"', 206),
        (f'W/"{digest}"', 200),
        ('"sha256:other"', 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
    ]:
        answer = await port.get(
            f"/v2/library/redis/blobs/{digest}",
            headers={"Range": "bytes=5-", "If-Range": validator},
        )
        assert answer.status == status
        assert answer.body == (b"56789" if status == 206 else b"0123456789")


async def test_what_the_client_has_is_304(port: Port) -> None:
    manifest, blob = port.registry.add_manifest(MANIFEST, "7"), port.registry.add_blob(b"blob")
    for path, digest in [
        ("manifests/7", manifest),
        (f"manifests/{manifest}", manifest),
        (f"blobs/{blob}", blob),
    ]:
        for method in ("GET", "HEAD"):
            for tags in (f'"{digest}"', f'W/"{digest}"', f'"a", "{digest}" , "b"', "*"):
                answer = await port.get(
                    f"/v2/library/redis/{path}", method, {"If-None-Match": tags}
                )
                assert answer.status == 304
                assert answer.headers["etag"] == f'"{digest}"'
                assert "content-length" not in answer.headers
            for tags in ('"a"', str(digest), ""):
                answer = await port.get(
                    f"/v2/library/redis/{path}", method, {"If-None-Match": tags}
                )
                assert answer.status == 200
    asked = [call[0] for call in port.registry.asked]
    assert asked.count("blob") == 3, "a 304 fetched a blob"


async def test_if_none_match_is_read_in_all_its_lines(port: Port) -> None:
    digest = port.registry.add_manifest(MANIFEST, "7")
    wire = await port.connect()
    await wire.send(
        b"GET /v2/library/redis/manifests/7 HTTP/1.1\r\nHost: m\r\n"
        b'If-None-Match: "a"\r\nIf-None-Match: "%s"\r\n\r\n' % str(digest).encode()
    )
    assert (await wire.answer()).status == 304


@pytest.mark.parametrize(
    ("tag_outcome", "outcome", "cache_status"),
    [
        (Outcome.HIT, Outcome.HIT, "registry-mirror; hit"),
        (Outcome.HIT, Outcome.FILLED, "registry-mirror; fwd=miss"),
        (Outcome.HIT, Outcome.JOINED, "registry-mirror; fwd=miss; collapsed"),
        (Outcome.REVALIDATED, Outcome.HIT, "registry-mirror; fwd=stale; detail=unchanged"),
        (Outcome.FILLED, Outcome.HIT, "registry-mirror; fwd=miss"),
        (Outcome.STALE, Outcome.HIT, "registry-mirror; hit; detail=stale"),
        (Outcome.STALE, Outcome.FILLED, "registry-mirror; hit; detail=stale"),
    ],
)
async def test_an_answer_says_where_it_comes_from(
    port: Port, tag_outcome: Outcome, outcome: Outcome, cache_status: str
) -> None:
    port.registry.add_manifest(MANIFEST, "7", tag_outcome=tag_outcome, outcome=outcome, age=61.9)
    answer = await port.get("/v2/library/redis/manifests/7")
    assert answer.headers["cache-status"] == cache_status
    assert answer.headers["age"] == "61"
    stale = tag_outcome is Outcome.STALE
    assert ("warning" in answer.headers) == stale
    if stale:
        assert answer.headers["warning"].startswith('299 - "older than its TTL')
        assert "61 seconds" in answer.headers["warning"]


async def test_what_a_digest_names_has_no_age(port: Port) -> None:
    digest = port.registry.add_manifest(MANIFEST)
    answer = await port.get(f"/v2/library/redis/manifests/{digest}")
    assert "age" not in answer.headers


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        ("/v2/library/redis/manifests/7", REDIS),
        ("/v2/redis/manifests/7", REDIS),
        ("/v2/redis/manifests/7?ns=docker.io", REDIS),
        ("/v2/redis/manifests/7?ns=quay.io", Repository("quay.io", "redis")),
        ("/v2/a/b/manifests/7?ns=GHCR.io:443", Repository("ghcr.io", "a/b")),
        ("http://mirror:5000/v2/library/redis/manifests/7?ns=", REDIS),
        ("/v2/manifests/blobs/manifests/7", Repository("docker.io", "manifests/blobs")),
    ],
)
async def test_the_query_names_the_registry_else_the_default_is_meant(
    port: Port, path: str, repository: Repository
) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    assert (await port.get(path)).status == 200
    assert port.registry.asked[0] == ("resolve", repository, "7")


async def test_f64_a_namespace_that_is_no_registry_is_refused(port: Port) -> None:
    for namespace in ("../etc", "a%00b", "a%20b", "x" * 300, "http://evil", "host:99999"):
        answer = await port.get(f"/v2/library/redis/manifests/7?ns={namespace}")
        assert answer.status == 400
        assert json.loads(answer.body)["errors"][0]["code"] == "NAME_INVALID"
    assert port.registry.asked == []


@pytest.mark.parametrize("base", ["/v2", "/docker.io/v2", "/Index.docker.io:443/v2"])
async def test_a_registry_may_stand_before_v2(port: Port, base: str) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    for path in (base, f"{base}/"):
        answer = await port.get(path)
        assert (answer.status, answer.body) == (200, b"{}")
    answer = await port.get(f"{base}/library/redis/manifests/7?ns=docker.io")
    assert (answer.status, answer.body) == (200, MANIFEST)
    assert port.registry.asked[0] == ("resolve", REDIS, "7")


async def test_a_repository_may_be_called_as_the_api_is(port: Port) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    assert (await port.get("/v2/v2/app/manifests/7")).status == 200
    assert port.registry.asked[0] == ("resolve", Repository("docker.io", "v2/app"), "7")


@pytest.mark.parametrize("path", ["/", "/healthz", "/healthz?verbose", "http://mirror:5000/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_health_checker_is_answered(port: Port, path: str, method: str) -> None:
    answer = await port.get(path, method)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.body == (b"ok\n" if method == "GET" else b"")
    assert port.registry.asked == []
    assert port.told.answers == [("ping", "hit", 200)]


async def test_a_browser_is_told_what_this_is_and_how_it_is_used(port: Port) -> None:
    answer = await port.get("/", headers={"User-Agent": "Mozilla/5.0", "Host": "localhost:5000"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert b'{"registry-mirrors": ["http://localhost:5000"]}' in answer.body
    assert b"5001" not in answer.body
    assert (await port.get("/")).body == b"ok\n"


async def test_tags_are_listed_in_pages(port: Port) -> None:
    port.registry.add_manifest(MANIFEST, "1", "2", "3")
    whole = await port.get("/v2/redis/tags/list")
    assert json.loads(whole.body) == {"name": "redis", "tags": ["1", "2", "3"]}
    assert "link" not in whole.headers

    first = await port.get("/v2/library/redis/tags/list?n=2&ns=docker.io")
    assert json.loads(first.body)["tags"] == ["1", "2"]
    link = first.headers["link"]
    assert link == '</v2/library/redis/tags/list?n=2&last=2&ns=docker.io>; rel="next"'

    second = await port.get(link[1 : link.index(">")])
    assert json.loads(second.body)["tags"] == ["3"]
    assert "link" not in second.headers


async def test_a_page_leads_to_the_next_in_the_clients_own_words(port: Port) -> None:
    port.registry.add_manifest(MANIFEST, "1", "2", "3")
    first = await port.get("/v2/docker.io/library/redis/tags/list?n=2&ns=docker.io")
    link = first.headers["link"]
    assert link.startswith("</v2/docker.io/library/redis/tags/list?n=2&last=2&ns=docker.io>")
    second = await port.get(link[1 : link.index(">")])
    assert json.loads(second.body) == {"name": "docker.io/library/redis", "tags": ["3"]}
    assert port.registry.asked[1] == ("tags", REDIS, (2, "2"))


async def test_no_tags_are_listed_when_none_are_asked_for(port: Port) -> None:
    answer = await port.get("/v2/library/redis/tags/list?n=0")
    assert json.loads(answer.body)["tags"] == []
    assert "link" not in answer.headers


@pytest.mark.parametrize("query", ["n=-1", "n=x", "n=1e3", "last=%00", "last=" + "x" * 300])
async def test_words_of_a_page_that_make_no_sense_are_400(port: Port, query: str) -> None:
    assert (await port.get(f"/v2/library/redis/tags/list?{query}")).status == 400


async def test_referrers_say_whether_they_were_filtered(port: Port) -> None:
    subject = Digest.of(b"subject")
    path = f"/v2/library/redis/referrers/{subject}"
    whole = await port.get(path)
    assert whole.headers["content-type"] == OCI_INDEX
    assert "oci-filters-applied" not in whole.headers
    filtered = await port.get(f"{path}?artifactType=application/spdx%2Bjson")
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert port.registry.asked[1] == ("referrers", REDIS, (subject, "application/spdx+json"))
    assert (await port.get(f"{path}?artifactType=application/spdx+json")).status == 200
    assert port.registry.asked[2] == port.registry.asked[1]
    assert (await port.get(f"{path}?artifactType=no-type")).status == 400


async def test_requests_and_bytes_are_counted_by_kind_and_outcome(port: Port) -> None:
    port.registry.add_manifest(MANIFEST, "7", tag_outcome=Outcome.STALE)
    blob = port.registry.add_blob(b"0123456789", outcome=Outcome.JOINED)
    await port.get("/v2/")
    await port.get("/v2/library/redis/manifests/7")
    await port.get(f"/v2/library/redis/blobs/{blob}", headers={"Range": "bytes=0-4"})
    await port.get("/v2/library/redis/manifests/8")
    await eventually(lambda: len(port.told.answers) == 4)
    assert port.told.answers == [
        ("ping", "hit", 200),
        ("tag", "stale", 200),
        ("blob", "joined", 206),
        ("tag", "failed", 404),
    ]
    assert port.told.bytes["blob"] == 5


async def test_f60_credentials_are_counted_and_go_nowhere(port: Port) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    for header in ("Authorization", "Proxy-Authorization", "Cookie"):
        answer = await port.get("/v2/library/redis/manifests/7", headers={header: "hunter2"})
        assert answer.status == 200
    assert port.told.credentials == 3
    assert len(port.log) == 3
    assert "hunter2" not in str(port.lines)


async def test_the_log_has_one_line_a_request_without_what_is_not_ours_to_tell(
    port: Port,
) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    for _ in range(2):  # the second time in the response cache
        await port.get(
            "/v2/redis/manifests/7?ns=docker.io&token=hunter2",
            headers={"User-Agent": "docker/28.5.0 go/go1.24 hunter2"},
        )
    await port.get("/v2/redis/hunter2?hunter2")
    served, again, refused = port.log
    for line in (served, again):
        for name in ("first_byte", "last_byte"):
            assert line.pop(name) >= 0
        assert datetime.fromisoformat(line.pop("timestamp"))
    assert served.pop("request_id")
    assert served == again
    assert served == {
        "event": "request",
        "level": "info",
        "method": "GET",
        "kind": "tag",
        "registry": "docker.io",
        "repository": "library/redis",
        "reference": "7",
        "status": 200,
        "outcome": "hit",
        "bytes": len(MANIFEST),
        "agent": "docker/28.5.0",
        "client": "127.0.0.1",
    }
    assert (refused["status"], refused["kind"]) == (404, "other")
    assert refused["error"].startswith("NAME_UNKNOWN: ")
