"""/v1/: what docker and podman ask when somebody searches."""

from __future__ import annotations

import json
import time

import pytest

from mirror.contracts.hosted import Visibility

from .conftest import Door


@pytest.fixture
async def stocked(door: Door) -> Door:
    for name in ("team/app", "team/web", "team/app/worker"):
        await door.push_blob(name, b"x")
    await door.records.change("team/web", visibility=Visibility.PUBLIC, description="Frontend")
    await door.records.create("other/app", Visibility.PRIVATE, time.time(), "other")
    await door.records.create("other/apps", Visibility.PUBLIC, time.time(), "other")
    return door


async def names(door: Door, query: str, login: str | None) -> list[str]:
    status, _, body = await door.ask("GET", f"/v1/search?{query}", login=login)
    assert status == 200
    return [each["name"] for each in json.loads(body)["results"]]


async def found(door: Door, query: str) -> list[str]:
    return await names(door, query, "Basic dGVhbTpzZWNyZXQ=")


async def test_ping_says_that_a_search_may_show_a_login(stocked: Door) -> None:
    status, headers, _ = await stocked.ask("GET", "/v1/_ping", login=None)
    assert (status, headers["X-Docker-Registry-Standalone"]) == (200, "true")


async def test_a_result_has_what_docker_shows(stocked: Door) -> None:
    _, headers, body = await stocked.ask("GET", "/v1/search?q=front&n=25")
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "num_pages": 1,
        "num_results": 1,
        "page": 1,
        "page_size": 25,
        "query": "front",
        "results": [
            {
                "name": "team/web",
                "description": "Frontend",
                "star_count": 0,
                "is_official": False,
                "is_automated": False,
            }
        ],
    }


async def test_each_finds_what_may_be_pulled(stocked: Door) -> None:
    assert await found(stocked, "q=app") == ["other/apps", "team/app", "team/app/worker"]
    assert await names(stocked, "q=app", None) == ["other/apps"]
    assert await names(stocked, "q=", None) == ["other/apps", "team/web"]


async def test_in_pages(stocked: Door) -> None:
    assert await found(stocked, "q=app&n=2") == ["other/apps", "team/app"]
    assert await found(stocked, "q=app&n=2&page=2") == ["team/app/worker"]
    assert await found(stocked, "q=app&n=2&page=3") == []
    assert len(await found(stocked, "q=app&n=99999")) == 3


async def test_who_is_not_logged_in_and_finds_nothing_is_told_so(stocked: Door) -> None:
    """podman falls back to the catalog then, with its login."""
    status, headers, _ = await stocked.ask("GET", "/v1/search?q=worker", login=None)
    assert status == 401
    assert "registry:catalog:search" in headers["WWW-Authenticate"]
    assert await found(stocked, "q=nothing") == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/search?q=a&n=x", 400),
        ("GET", "/v1/search?q=a&page=-1", 400),
        ("GET", "/v1/repositories/team/app/images", 404),
        ("POST", "/v1/search", 405),
        ("GET", "/v1/search?q=%00%ff%27%25_", 200),
        ("HEAD", "/v1/_ping", 200),
    ],
)
async def test_other_words(stocked: Door, method: str, path: str, status: int) -> None:
    assert (await stocked.ask(method, path))[0] == status
