"""`/api/v1` of the admin port, as programs ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from mirror.contracts import activity, images
from mirror.contracts.activity import Happening, Why
from mirror.server.admin.console import Admission

from ..fakes.activity import NOW, pull_told, status_told
from ..fakes.images import image_told
from .admin_port import TOKEN, Port, proof_of

Client = Callable[[web.Application], Awaitable[TestClient[Any, Any]]]

WRITES = ("purge", "pin", "unpin", "warm", "reload", "sync")


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def writing(port: Port) -> Port:
    port.admission = Admission(write=True)
    return port


async def test_the_json_is_that_of_the_commands(port: Port, aiohttp_client: Client) -> None:
    port.activity.reasons["0123"] = Why("0123", (pull_told(),))
    client = await aiohttp_client(port.application())

    async def given(path: str) -> Any:
        answer = await client.get(f"/api/v1/{path}")
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"].startswith("application/json")
        return await answer.json()

    def same(told: dict[str, Any]) -> Any:
        return json.loads(json.dumps(told))

    assert await given("status") == same(activity.rendered(status_told()))
    assert await given("endpoints") == {"endpoints": (await given("status"))["endpoints"]}
    assert await given("pulls") == {"pulls": [same(activity.rendered(pull_told()))]}
    assert await given("pulls?like=torch&limit=5") == {"pulls": []}
    assert (await given("pulls/0123"))["pulls"][0]["image"] == "redis:7"
    assert await given("downloads") == {"downloads": []}
    assert await given("minutes") == {"minutes": []}
    assert set(await given("top")) >= {"downloads", "slowest", "busiest"}
    page = await given("images?pattern=redis:7&sort=size&limit=1")
    assert page["images"] == [same(images.rendered(image_told()))]
    detail = await given("images/docker.io/library/redis:7")
    assert detail["pieces"][1]["shared_with"] == ["a:1"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nothing", 404, "NOT_FOUND"),
        ("", 404, "NOT_FOUND"),
        ("pulls/unknown", 404, "UNKNOWN"),
        ("images/unknown", 404, "UNKNOWN_IMAGE"),
        ("images?sort=colour", 400, "INVALID"),
        ("images?limit=0", 400, "INVALID"),
        ("images?limit=x", 400, "INVALID"),
        ("pulls?limit=-1", 400, "INVALID"),
        ("pulls?limit=99999999999", 400, "INVALID"),
    ],
)
async def test_a_mistake_is_told_as_json(
    port: Port, aiohttp_client: Client, path: str, status: int, code: str
) -> None:
    client = await aiohttp_client(port.application())
    answer = await client.get(f"/api/v1/{path}")
    assert answer.status == status
    error = (await answer.json())["error"]
    assert error["code"] == code
    assert error["message"]


async def test_a_method_that_there_is_not_is_told_as_json(
    port: Port, aiohttp_client: Client
) -> None:
    client = await aiohttp_client(port.application())
    answer = await client.delete("/api/v1/status")
    assert answer.status == 405
    assert (await answer.json())["error"]["code"] == "METHOD_NOT_ALLOWED"
    assert "GET" in answer.headers["Allow"]


async def test_the_api_describes_itself(port: Port, aiohttp_client: Client) -> None:
    application = port.application()
    client = await aiohttp_client(application)
    document = await (await client.get("/api/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    described = {
        (method.upper(), f"/api/v1{path}")
        for path, methods in document["paths"].items()
        for method in methods
    }
    served = {
        (route.method, route.resource.canonical)
        for route in application.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/api/v1/")
    }
    served = {each for each in served if each[0] != "HEAD"}
    assert described == served - {("GET", "/api/v1/openapi.json")}
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert "default" in operation["responses"]


# What changes something.


@pytest.mark.parametrize("name", WRITES)
async def test_an_api_that_is_read_only_changes_nothing(
    port: Port, aiohttp_client: Client, name: str
) -> None:
    client = await aiohttp_client(port.application())
    answer = await client.post(f"/api/v1/{name}", json={"patterns": ["*"], "image": "redis:7"})
    assert answer.status == 403
    error = (await answer.json())["error"]
    assert error["code"] == "READ_ONLY"
    assert "admin: {write: true}" in error["message"]
    assert (port.images.purged, port.images.pinned, port.ran) == ([], [], [])


async def test_images_are_purged_pinned_and_warmed(writing: Port, aiohttp_client: Client) -> None:
    client = await aiohttp_client(writing.application())

    async def done(name: str, **body: Any) -> Any:
        answer = await client.post(f"/api/v1/{name}", json=body)
        assert answer.status == 200, await answer.text()
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        return lines if name == "warm" else lines[0]

    assert (await done("pin", image="redis:7"))["digest"].startswith("sha256:70c291fd")
    assert (await done("unpin", image="docker.io/library/redis:7"))["image"]
    assert [line["told"] for line in await done("warm", images=["a:1"], platforms=["all"])] == [
        "image_ended",
        "work_ended",
    ]
    assert writing.ran == [("warm", {"images": [("a:1", ["all"])]})]
    assert (await done("reload"))["result"] == "applied"
    tried = await done("purge", patterns=["redis:7", "none:1"], is_trial=True)
    assert tried["total"] == {
        "images": 1,
        "freed": 12_000_000,
        "shared": 29_000_000,
        "skipped": [],
        "unknown": ["none:1"],
    }
    assert writing.images.purged == []
    assert (await done("purge", patterns=["redis:7"]))["purged"][0]["image"] == "redis:7"
    assert writing.images.purged == ["docker.io/library/redis:7"]


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("purge", {}, 400),
        ("purge", {"patterns": "redis"}, 400),
        ("purge", {"patterns": [1]}, 400),
        ("purge", {"patterns": ["redis"], "dry_run": True}, 400),
        ("purge", {"used_before": True}, 400),
        ("purge", [], 400),
        ("pin", {"image": 7}, 400),
        ("pin", {"image": "unknown"}, 404),
        ("unpin", {"image": "unknown"}, 404),
        ("warm", {"images": []}, 400),
        ("warm", {"images": ["no/such"]}, 409),
        ("sync", {}, 501),
    ],
)
async def test_a_body_is_read_strictly(
    writing: Port, aiohttp_client: Client, name: str, body: object, status: int
) -> None:
    client = await aiohttp_client(writing.application())
    answer = await client.post(f"/api/v1/{name}", json=body)
    assert answer.status == status
    assert (await answer.json())["error"]["message"]
    assert writing.images.purged == []


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_is_refused(
    writing: Port, aiohttp_client: Client, body: bytes
) -> None:
    client = await aiohttp_client(writing.application())
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/api/v1/purge", data=body, headers=headers)
    assert answer.status == 400


async def test_pages_of_other_sites_change_nothing(writing: Port, aiohttp_client: Client) -> None:
    client = await aiohttp_client(writing.application())
    purge = {"patterns": ["redis:7"]}
    for headers in (
        {"Origin": "http://localhost:3000"},
        {"Origin": f"http://127.0.0.1:{client.port}"},  # its own, without the page's token
        {"Sec-Fetch-Site": "cross-site"},
    ):
        answer = await client.post("/api/v1/purge", json=purge, headers=headers)
        assert answer.status == 403
    form = await client.post("/api/v1/purge", data=b"{}", headers={"Content-Type": "text/plain"})
    assert form.status == 415
    assert writing.images.purged == []
    preflight = await client.options("/api/v1/purge")
    assert "Access-Control-Allow-Origin" not in preflight.headers
    page = proof_of(await (await client.get("/")).text())
    headers = {"Origin": f"http://127.0.0.1:{client.port}", "X-CSRF-Token": page}
    answer = await client.post("/api/v1/purge", json=purge, headers=headers)
    assert answer.status == 200


async def test_a_token_is_shown_as_a_bearers(port: Port, aiohttp_client: Client) -> None:
    port.admission = Admission(TOKEN, write=True)
    client = await aiohttp_client(port.application("0.0.0.0"))
    for path in ("status", "images", "events", "openapi.json"):
        answer = await client.get(f"/api/v1/{path}")
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await answer.json())["error"]["code"] == "UNAUTHORIZED"
    purge = {"patterns": ["redis:7"]}
    assert (await client.post("/api/v1/purge", json=purge)).status == 401
    right = {"Authorization": f"bearer {TOKEN}"}
    assert (await client.get("/api/v1/status", headers=right)).status == 200
    assert (await client.post("/api/v1/purge", json=purge, headers=right)).status == 200
    wrong = {"Authorization": f"Basic {TOKEN}"}
    assert (await client.get("/api/v1/status", headers=wrong)).status == 401


# Events.


async def events(answer: Any, count: int) -> list[dict[str, str]]:
    found = []
    async with asyncio.timeout(10):
        while len(found) < count:
            text = (await answer.content.readuntil(b"\n\n")).decode()
            assert text, "the stream has ended"
            fields = dict(line.partition(": ")[::2] for line in text.splitlines())
            found += [fields] if "data" in fields else []
    return found


async def test_events_are_told_as_they_come(port: Port, aiohttp_client: Client) -> None:
    first = Happening(1, NOW, "evicted", "info", "", "made room")
    second = Happening(2, NOW, "tag_moved", "info", "redis:7", "a line\nand another")
    port.activity.happened = (first,)
    client = await aiohttp_client(port.application())
    async with client.get("/api/v1/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        [old] = await events(answer, 1)
        assert (old["id"], old["event"]) == ("1", "evicted")
        port.activity.happened = (second, first)
        port.activity.now_is_new()
        [new] = await events(answer, 1)
        assert json.loads(new["data"])["words"] == "a line\nand another"
    async with client.get("/api/v1/events", headers={"Last-Event-ID": "1"}) as answer:
        assert (await events(answer, 1))[0]["id"] == "2"
    as_json = await client.get("/api/v1/events", headers={"Accept": "application/json"})
    assert [each["number"] for each in (await as_json.json())["events"]] == [2, 1]
