"""Hosted names, request by request: what is pushed, read and deleted, and what is told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from mirror.contracts.hosted import Visibility
from mirror.server.door import is_hosted

from .conftest import LOGIN, OCI, Door, digest_of

EMPTY = digest_of(b"")


async def test_the_root_challenges_who_has_not_logged_in(door: Door) -> None:
    status, headers, body = await door.ask("GET", "/v2/", login=None)
    assert status == 401
    assert headers["WWW-Authenticate"] == f'Basic realm="{door.url}"'
    assert headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED"
    assert (await door.ask("GET", "/v2/"))[0] == 200
    assert (await door.ask("HEAD", "/v2/"))[0] == 200


async def test_a_login_that_fails_too_often_waits(door: Door) -> None:
    status, headers, _ = await door.ask("GET", "/v2/", login="Basic slow")
    assert (status, headers["Retry-After"]) == (429, "7")


async def test_a_challenge_says_what_a_token_has_to_be_for(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/", login=None)
    assert 'scope="repository:team/app:pull,push"' in headers["WWW-Authenticate"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_session_from_its_beginning_to_its_end(door: Door, slash: str) -> None:
    status, headers, _ = await door.ask("POST", f"/v2/team/app/blobs/uploads{slash}")
    session = headers["Location"]
    assert status == 202
    assert session == f"/v2/team/app/blobs/uploads/{headers['Docker-Upload-UUID']}"
    assert headers["Range"] == "0-0"
    status, headers, _ = await door.ask(
        "PATCH", session, data=b"hello ", headers={"Content-Range": "0-5"}
    )
    assert (status, headers["Range"], headers["Location"]) == (202, "0-5", session)
    status, headers, body = await door.ask("GET", session)
    assert (status, headers["Range"], headers["Location"], body) == (204, "0-5", session, b"")
    digest = digest_of(b"hello world")
    status, headers, _ = await door.ask("PUT", f"{session}?digest={digest}", data=b"world")
    assert (status, headers["Location"]) == (201, f"/v2/team/app/blobs/{digest}")
    assert headers["Docker-Content-Digest"] == digest
    status, headers, body = await door.ask("GET", f"/v2/team/app/blobs/{digest}")
    assert (status, body) == (200, b"hello world")
    assert await door.code("GET", session) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_a_chunk_out_of_order_is_told_where_to_go_on(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    session = headers["Location"]
    await door.ask("PATCH", session, data=b"0123", headers={"Content-Range": "0-3"})
    for method, start in (("PATCH", 9), ("PATCH", 2), ("PUT", 9)):
        status, headers, body = await door.ask(
            method,
            f"{session}?digest={digest_of(b'0123')}",
            data=b"ab",
            headers={"Content-Range": f"{start}-{start + 1}"},
        )
        assert (status, headers["Range"], headers["Location"]) == (416, "0-3", session)
        assert json.loads(body)["errors"][0]["code"] == "BLOB_UPLOAD_INVALID"
    assert (await door.ask("PUT", f"{session}?digest={digest_of(b'0123')}"))[0] == 201


@pytest.mark.parametrize(
    ("content_range", "status", "code"),
    [
        ("4-1", 400, "UNKNOWN"),
        ("x", 400, "UNKNOWN"),
        ("0-9", 400, "SIZE_INVALID"),
        ("bytes 0-3/*", 202, ""),
    ],
)
async def test_content_ranges(door: Door, content_range: str, status: int, code: str) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    found = await door.code(
        "PATCH", headers["Location"], data=b"0123", headers={"Content-Range": content_range}
    )
    assert found == (status, code)


@pytest.mark.parametrize("sent", [b"0123456789" * 2, b"0123"])
async def test_a_chunk_of_another_length_than_its_range_leaves_nothing(
    door: Door, sent: bytes
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield sent[:3]
        yield sent[3:]

    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    session = headers["Location"]
    for start in (0, 10):
        announced = {"Content-Range": f"{start}-{start + 9}"}
        refused = await door.code("PATCH", session, data=pieces(), headers=announced)
        assert refused == (400, "SIZE_INVALID")
        status, *_ = await door.ask("PATCH", session, data=b"0123456789", headers=announced)
        assert status == 202


async def test_a_chunk_may_come_without_a_length(door: Door) -> None:
    async def pieces():
        yield b"one "
        yield b"two"

    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    session = headers["Location"]
    _, headers, _ = await door.ask("PATCH", session, data=pieces())
    assert headers["Range"] == "0-6"
    digest = digest_of(b"one two")
    assert (await door.ask("PUT", f"{session}?digest={digest}"))[0] == 201


async def test_a_session_that_is_cancelled_is_gone(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    session = headers["Location"]
    assert (await door.ask("DELETE", session))[0] == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert await door.code(method, session) == (404, "BLOB_UPLOAD_UNKNOWN")
    missing = f"{session}?digest={EMPTY}"
    assert await door.code("PUT", missing) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_a_session_is_of_one_repository(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    elsewhere = headers["Location"].replace("team/app", "team/other")
    assert await door.code("GET", elsewhere) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "DIGEST_INVALID"),
        ("?digest=", "DIGEST_INVALID"),
        ("?digest=sha256:0", "DIGEST_INVALID"),
    ],
)
async def test_an_upload_ends_with_a_digest(door: Door, query: str, code: str) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    assert await door.code("PUT", headers["Location"] + query, data=b"x") == (400, code)


async def test_bytes_that_are_another_are_refused_and_the_session_ends(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    wrong = f"{headers['Location']}?digest={EMPTY}"
    assert await door.code("PUT", wrong, data=b"x") == (400, "DIGEST_INVALID")
    assert door.uploads.sessions == {}
    assert door.held.here == {}


async def test_a_blob_in_one_request(door: Door) -> None:
    for data, algorithm in ((b"all of it", "sha256"), (b"all of it", "sha512"), (b"", "sha256")):
        digest = await door.push_blob("team/app", data, algorithm)
        status, headers, body = await door.ask("GET", f"/v2/team/app/blobs/{digest}")
        assert (status, body, headers["Docker-Content-Digest"]) == (200, data, digest)
        status, headers, _ = await door.ask("HEAD", f"/v2/team/app/blobs/{digest}")
        assert (status, headers["Content-Length"]) == (200, str(len(data)))
    wrong = "/v2/team/app/blobs/uploads/?digest=" + EMPTY
    assert await door.code("POST", wrong, data=b"x") == (400, "DIGEST_INVALID")
    assert door.uploads.sessions == {}


async def test_mounts(door: Door) -> None:
    digest = await door.push_blob("team/app", b"shared")
    uploads = "/v2/team/other/blobs/uploads/"
    for query in (f"mount={digest}&from=team/app", f"mount={digest}"):
        status, headers, _ = await door.ask(
            "POST", f"{uploads}?{query}", headers={"Content-Type": "application/json"}
        )
        assert (status, headers["Location"]) == (201, f"/v2/team/other/blobs/{digest}")
        assert headers["Docker-Content-Digest"] == digest
        await door.ask("DELETE", f"/v2/team/other/blobs/{digest}")
    for query in (f"mount={EMPTY}&from=team/app", f"mount={EMPTY}", f"mount={digest}&from=team/no"):
        status, headers, _ = await door.ask("POST", f"{uploads}?{query}")
        assert status == 202
        assert headers["Location"].startswith(uploads)
    assert await door.code("POST", f"{uploads}?mount=sha256:1") == (400, "DIGEST_INVALID")
    bad = f"{uploads}?mount={digest}&from=UPPER"
    assert await door.code("POST", bad) == (400, "NAME_INVALID")


async def test_what_somebody_may_not_pull_is_not_mounted(door: Door) -> None:
    digest = await door.push_blob("team/app", b"secret layer")
    other = "Basic b3RoZXI6c2VjcmV0"  # other:secret
    for query in (f"mount={digest}&from=team/app", f"mount={digest}"):
        status, *_ = await door.ask("POST", f"/v2/other/x/blobs/uploads/?{query}", login=other)
        assert status == 202
    assert (await door.ask("GET", f"/v2/other/x/blobs/{digest}", login=other))[0] == 404


async def test_a_token_that_is_not_for_the_source_of_a_mount_is_to_be_another(door: Door) -> None:
    digest = await door.push_blob("team/base", b"a base")
    path = f"/v2/team/one/blobs/uploads/?mount={digest}&from=team/base"
    wanted = 'scope="repository:team/one:pull,push repository:team/base:pull"'
    for login in (None, "Bearer team/one"):  # the first challenge is all that some clients follow
        status, headers, _ = await door.ask("POST", path, login=login)
        assert (status, wanted in headers["WWW-Authenticate"]) == (401, True)
    assert (await door.ask("POST", path, login="Bearer team/one,team/base"))[0] == 201


async def test_of_a_mount_that_names_no_source_a_token_says_which_may_be_taken(door: Door) -> None:
    digest = await door.push_blob("team/base", b"a base")
    path = f"/v2/team/two/blobs/uploads/?mount={digest}"
    assert (await door.ask("POST", path, login="Bearer team/two"))[0] == 202
    assert (await door.ask("POST", path, login="Bearer team/two,team/base"))[0] == 201


async def test_an_image_by_tag_and_by_digest(door: Door) -> None:
    digest = await door.push_image("team/app", "1")
    for reference in ("1", digest):
        for method in ("GET", "HEAD"):
            status, headers, body = await door.ask(method, f"/v2/team/app/manifests/{reference}")
            assert (status, headers["Docker-Content-Digest"]) == (200, digest)
            assert headers["Content-Type"] == OCI
            assert method == "HEAD" or digest_of(body) == digest
    status, headers, _ = await door.ask("DELETE", "/v2/team/app/manifests/1")
    assert status == 202
    assert await door.code("GET", "/v2/team/app/manifests/1") == (404, "MANIFEST_UNKNOWN")
    assert (await door.ask("GET", f"/v2/team/app/manifests/{digest}"))[0] == 200
    assert (await door.ask("DELETE", f"/v2/team/app/manifests/{digest}"))[0] == 202
    assert (await door.ask("GET", f"/v2/team/app/manifests/{digest}"))[0] == 404


async def test_a_manifest_is_of_four_mebibytes_at_most(door: Door) -> None:
    path, headers = "/v2/team/app/manifests/big", {"Content-Type": OCI}
    big = b"{" + b" " * (4 << 20) + b"}"

    async def pieces():
        for start in range(0, len(big), 1 << 20):
            yield big[start : start + (1 << 20)]

    assert await door.code("PUT", path, data=big, headers=headers) == (413, "SIZE_INVALID")
    assert await door.code("PUT", path, data=pieces(), headers=headers) == (413, "SIZE_INVALID")


async def test_tags_in_pages(door: Door) -> None:
    for tag in ("b", "a", "C", "d"):
        await door.push_image("team/app", tag)
    status, headers, body = await door.ask("GET", "/v2/team/app/tags/list")
    assert (status, json.loads(body)) == (200, {"name": "team/app", "tags": ["C", "a", "b", "d"]})
    assert "Link" not in headers
    _, headers, body = await door.ask("GET", "/v2/team/app/tags/list?n=2")
    assert json.loads(body)["tags"] == ["C", "a"]
    assert headers["Link"] == '</v2/team/app/tags/list?n=2&last=a>; rel="next"'
    _, headers, body = await door.ask("GET", "/v2/team/app/tags/list?n=2&last=a")
    assert (json.loads(body)["tags"], "Link" in headers) == (["b", "d"], False)
    _, headers, body = await door.ask("GET", "/v2/team/app/tags/list?n=0")
    assert (json.loads(body)["tags"], "Link" in headers) == ([], False)
    assert await door.code("GET", "/v2/team/none/tags/list") == (404, "NAME_UNKNOWN")


async def test_the_catalog(door: Door) -> None:
    for name in ("team/b", "team/a", "team/c"):
        await door.push_blob(name, b"x")
    _, headers, body = await door.ask("GET", "/v2/_catalog?n=2")
    assert json.loads(body) == {"repositories": ["team/a", "team/b"]}
    assert headers["Link"] == '</v2/_catalog?n=2&last=team%2Fb>; rel="next"'
    _, headers, body = await door.ask("GET", "/v2/_catalog?n=2&last=team/b")
    assert (json.loads(body), "Link" in headers) == ({"repositories": ["team/c"]}, False)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/team/app/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("GET", f"/v2/team/app/blobs/{EMPTY}", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/Team/App/manifests/1", 400, "NAME_INVALID"),
        ("PUT", "/v2/team/app/manifests/-bad", 400, "TAG_INVALID"),
        ("DELETE", "/v2/team/app/manifests/-bad", 400, "TAG_INVALID"),
        ("GET", "/v2/team/app/manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"),
        ("POST", "/v2/UPPER/blobs/uploads/", 400, "NAME_INVALID"),
        ("DELETE", f"/v2/team/app/blobs/{EMPTY}", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/team/app/blobs/uploads/..%2f", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/team/app/nothing", 404, "NAME_UNKNOWN"),
        ("GET", "/registry/v2/team/app/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/elsewhere", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/team/app/manifests/1", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/", 405, "UNSUPPORTED"),
        ("GET", "/v2/team/app/blobs/uploads/", 405, "UNSUPPORTED"),
    ],
)
async def test_what_is_wrong_has_the_status_and_code_of_the_specification(
    door: Door, method: str, path: str, status: int, code: str
) -> None:
    assert await door.code(method, path) == (status, code)


async def test_a_method_that_an_endpoint_does_not_know_is_told_which_it_does(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/manifests/1")
    assert headers["Allow"] == "GET, HEAD, PUT, DELETE"


async def test_public_answers_are_given_again_until_something_changes(door: Door) -> None:
    """Told by the log: an answer of the response cache has no request id of its own."""
    digest = await door.push_image("team/app", "1")
    await door.records.change("team/app", visibility=Visibility.PUBLIC)

    url = f"{door.url}/v2/team/app/manifests/{digest}"
    async with aiohttp.ClientSession() as client:  # whose connection has had no body yet

        async def asked() -> tuple[int, bool]:
            async with client.get(url) as answer:
                return answer.status, "X-Request-Id" in answer.headers

        assert await asked() == (200, True)
        assert await asked() == (200, False)
        await door.records.change("team/app", visibility=Visibility.PRIVATE)
        door.marks.changed("team/app")
        assert await asked() == (401, True)


async def test_answers_to_a_login_are_given_to_nobody_else(door: Door) -> None:
    digest = await door.push_image("team/app", "1")
    path = f"/v2/team/app/manifests/{digest}"
    for _ in range(2):
        async with door.client.get(door.url + path, headers={"Authorization": LOGIN}) as answer:
            assert (answer.status, "X-Request-Id" in answer.headers) == (200, True)
    assert (await door.ask("GET", path, login=None))[0] == 401


async def test_a_client_that_waits_for_a_word_to_send_its_body_gets_it(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    host, port = door.listener.addresses[0]
    reader, writer = await asyncio.open_connection(host, port)
    head = (
        f"PATCH {headers['Location']} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n"
        f"Authorization: {LOGIN}\r\nExpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
    writer.close()


@pytest.mark.parametrize(
    ("host", "is_its"),
    [("registry.lan", True), ("REGISTRY.lan.:5000", True), ("other.lan", False), ("", False)],
)
def test_the_door_looks_at_the_host_alone(host: str, is_its: bool) -> None:
    assert is_hosted(host, {"registry.lan"}) is is_its


async def test_uploads_that_are_not_finished_count_as_what_is_there(door: Door) -> None:
    door.records.quotas["team"] = 100

    async def begun() -> str:
        return (await door.ask("POST", "/v2/team/app/blobs/uploads/"))[1]["Location"]

    one, other = await begun(), await begun()
    assert (await door.ask("PATCH", one, data=b"x" * 60))[0] == 202
    assert await door.code("PATCH", other, data=b"y" * 60) == (403, "DENIED")
    assert (await door.ask("DELETE", one))[0] == 204
    assert (await door.ask("PATCH", other, data=b"y" * 60))[0] == 202
    digest = digest_of(b"y" * 60)
    assert (await door.ask("PUT", f"{other}?digest={digest}"))[0] == 201


async def test_what_is_beyond_a_quota_is_not_kept(door: Door) -> None:
    door.records.quotas["team"] = 100
    path = "/v2/team/app/blobs/uploads/?digest=" + digest_of(b"x" * 101)
    assert await door.code("POST", path, data=b"x" * 101) == (403, "DENIED")
    assert door.held.here == {}


async def test_a_blob_that_is_larger_than_any_that_is_taken_is_refused_at_once(door: Door) -> None:
    _, headers, _ = await door.ask("POST", "/v2/team/app/blobs/uploads/")
    reader, writer = await asyncio.open_connection(*door.url.rpartition("/")[2].split(":"))
    head = (
        f"PATCH {headers['Location']} HTTP/1.1\r\nHost: x\r\nAuthorization: {LOGIN}\r\n"
        f"Content-Length: {1 << 62}\r\n\r\nabc"
    )
    writer.write(head.encode())
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_an_upload_that_is_refused_for_the_quota_does_not_count_any_more(door: Door) -> None:
    door.records.quotas["team"] = 100
    place = (await door.ask("POST", "/v2/team/app/blobs/uploads/"))[1]["Location"]

    async def unsaid() -> AsyncIterator[bytes]:
        yield b"x" * 101

    assert (await door.ask("PATCH", place, data=unsaid()))[0] == 202
    finish = f"{place}?digest={digest_of(b'x' * 101)}"
    assert await door.code("PUT", finish) == (403, "DENIED")
    other = (await door.ask("POST", "/v2/team/other/blobs/uploads/"))[1]["Location"]
    assert (await door.ask("PATCH", other, data=b"y"))[0] == 202
