"""Each request has an id, which its answer, its line in the log and its error's body all name."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from mirror.contracts.context import ANONYMOUS
from mirror.contracts.registry import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable

from ..waiting import eventually
from .conftest import Port

OWN = re.compile(r"[0-9a-f]{16}")
PATHS = {
    "ping": "/v2/",
    "health": "/healthz",
    "tags": "/v2/library/redis/tags/list",
    "referrers": f"/v2/library/redis/referrers/{Digest.of(b'{}')}",
    "manifest": f"/v2/library/redis/manifests/{Digest.of(b'{}')}",
    "blob": f"/v2/library/redis/blobs/{Digest.of(b'blob')}",
    "no endpoint": "/v2/nothing",
    "no tag": "/v2/library/redis/manifests/none",
}


@pytest.fixture(autouse=True)
def filled(port: Port) -> None:
    port.registry.add_manifest(b"{}", "7")
    port.registry.add_blob(b"blob", outcome=Outcome.FILLED)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
async def test_an_answer_and_its_line_in_the_log_have_one_id(port: Port, path: str) -> None:
    ids = []
    for _ in range(2):
        answer = await port.get(path, headers={"Range": "bytes=0-"})  # not in the response cache
        ids.append(answer.headers["x-request-id"])
        assert OWN.fullmatch(ids[-1])
    await eventually(lambda: len(port.log) == 2)
    assert [line["request_id"] for line in port.log] == ids
    assert len(set(ids)) == 2


@pytest.mark.parametrize("given", ["a", "A-z.0_9", "x" * 64])
async def test_a_client_s_own_id_is_taken(port: Port, given: str) -> None:
    answer = await port.get("/v2/library/redis/tags/list", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] == given
    await eventually(lambda: len(port.log) == 1)
    assert port.log[0]["request_id"] == given
    [context] = port.registry.contexts
    assert (context.request_id, context.client) == (given, "127.0.0.1")
    assert (context.principal, context.is_wanted) == (ANONYMOUS, True)


@pytest.mark.parametrize("given", ["x" * 65, "", "a b", 'a"', "a\\", "é", "a,b", "a%0a", "<a>"])
async def test_an_id_in_other_words_is_replaced(port: Port, given: str) -> None:
    wire = await port.connect()
    for path in ("/v2/", "/v2/library/redis/manifests/7", "/v2/library/redis/manifests/7"):
        head = f"GET {path} HTTP/1.1\r\nHost: mirror\r\nX-Request-Id: {given}\r\n\r\n"
        await wire.send(head.encode())
        assert OWN.fullmatch((await wire.answer()).headers["x-request-id"])
    await eventually(lambda: len(port.log) == 3)
    assert all(OWN.fullmatch(line["request_id"]) for line in port.log)


async def test_two_ids_are_none(port: Port) -> None:
    wire = await port.connect()
    for path in ("/v2/", "/v2/library/redis/manifests/7", "/v2/library/redis/manifests/7"):
        ids = "X-Request-Id: one\r\nX-Request-Id: two\r\n"
        await wire.send(f"GET {path} HTTP/1.1\r\nHost: mirror\r\n{ids}\r\n".encode())
        assert OWN.fullmatch((await wire.answer()).headers["x-request-id"])


async def test_an_error_s_body_names_the_request(port: Port) -> None:
    port.registry.failures["manifest"] = Unavailable("down")
    for given in ({}, {"X-Request-Id": "mine"}):
        answer = await port.get(PATHS["manifest"], headers=given)
        [error] = json.loads(answer.body)["errors"]
        assert error["detail"] == {"request_id": answer.headers["x-request-id"]}
        assert (error["code"], error["message"]) == ("UNAVAILABLE", "down")


async def test_what_is_no_http_has_an_id_too(port: Port) -> None:
    wire = await port.connect()
    await wire.send(b"nonsense\r\n\r\n")
    answer = await wire.answer()
    [error] = json.loads(answer.body)["errors"]
    assert OWN.fullmatch(error["detail"]["request_id"])
    assert answer.headers["x-request-id"] == error["detail"]["request_id"]


async def test_what_comes_while_it_is_sent_has_its_id_in_the_head(port: Port) -> None:
    blob = port.registry.grow_blob(bytes(300_000))
    asking = asyncio.create_task(port.get(f"/v2/library/redis/blobs/{blob.digest}"))
    blob.grow(300_000)
    blob.finish()
    assert OWN.fullmatch((await asking).headers["x-request-id"])


async def test_a_hot_answer_has_the_client_s_id_and_else_none(port: Port) -> None:
    path = PATHS["manifest"]
    assert "x-request-id" in (await port.get(path)).headers
    asked = len(port.registry.asked)
    plain = await port.get(path)
    mine = await port.get(path, headers={"X-Request-Id": "mine"})
    other = await port.get(path, headers={"X-Request-Id": "other"})
    etag = plain.headers["etag"]
    known = await port.get(path, headers={"X-Request-Id": "known", "If-None-Match": etag})
    assert len(port.registry.asked) == asked
    assert "x-request-id" not in plain.headers
    assert (mine.body, mine.headers) == (plain.body, {**plain.headers, "x-request-id": "mine"})
    assert (other.headers["x-request-id"], known.headers["x-request-id"]) == ("other", "known")
    await eventually(lambda: len(port.log) == 5)
    ids = [line.get("request_id") for line in port.log[1:]]
    assert ids == [None, "mine", "other", "known"]


async def test_the_hot_answer_to_a_client_s_id_is_the_ordinary_one_byte_for_byte(
    port: Port,
) -> None:
    path = PATHS["manifest"]
    answers = []
    for _ in range(2):
        wire = await port.connect()
        fields = "Host: mirror\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n"
        await wire.send(f"GET {path} HTTP/1.1\r\n{fields}".encode())
        answers.append(re.sub(rb"\r\nDate: [^\r]*", b"", await wire.rest()))
    assert answers[0] == answers[1]
    assert len(port.registry.asked) == 1
