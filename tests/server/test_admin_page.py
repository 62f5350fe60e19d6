"""The page at the admin port's /, as browsers and strangers ask for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from mirror.contracts.activity import Download, EndpointState, Happening, Limit
from mirror.server.admin import live
from mirror.server.admin.console import Admission

from ..fakes.activity import NOW, pull_told, request_told, status_told
from ..fakes.images import image_told
from .admin_port import TOKEN, Port, proof_of

Client = Callable[[web.Application], Awaitable[TestClient[Any, Any]]]

ACTIONS = ("purge/trial", "purge", "pin", "unpin", "warm", "reload")
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}\u2028"


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def writing(port: Port) -> Port:
    port.admission = Admission(write=True)
    return port


async def browser(client: TestClient[Any, Any]) -> dict[str, str]:
    """What the page's script sends with what it has done."""
    page = await (await client.get("/")).text()
    origin = f"http://127.0.0.1:{client.port}"
    return {"X-CSRF-Token": proof_of(page), "Origin": origin, "Sec-Fetch-Site": "same-origin"}


# What is shown.


async def test_the_page_shows_the_mirror_at_a_glance(port: Port, aiohttp_client: Client) -> None:
    port.activity.happened = (
        Happening(1, NOW, "evicted", "info", "", "evicted 14 pieces to make room", 14),
    )
    port.activity.under_way = (
        Download(
            "1", "torch:2", "docker.io", "library/torch", "sha256:" + "3a" * 32, "running",
            61, 100, 84e6, 3, NOW,
        ),
    )  # fmt: skip
    client = await aiohttp_client(port.application())
    answer = await client.get("/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    text = " ".join((await answer.text()).split())
    for words in (
        "up 3 d", "2 workers", "config ok", "97 %", "401 GB", "312 MB/s", "41 GiB", "61 GiB",
        "78 of 200 pulls left (me)", "login refused for 30 m", "torch:2", "84 MB/s", "3 readers",
        "MISS 1/5", "redis:7", "evicted 14 pieces to make room",
        "registry-mirrors",
    ):  # fmt: skip
        assert words in text, words


async def test_the_page_is_answered_to_head(port: Port, aiohttp_client: Client) -> None:
    client = await aiohttp_client(port.application())
    for path in ("/", "/images", "/pulls", "/api/v1/status", "/static/page.css"):
        answer = await client.head(path)
        assert answer.status == 200
        assert await answer.read() == b""


async def test_a_pull_opens_to_its_requests(port: Port, aiohttp_client: Client) -> None:
    port.activity.last_pulls = (
        pull_told(id="7", requests=(request_told(why="evicted 2 d ago", queued=0.5),)),
    )
    client = await aiohttp_client(port.application())
    text = await (await client.get("/pulls/7")).text()
    for words in ("evicted 2 d ago", "registry-1.docker.io", "0.50 s", "0123456789abcdef"):
        assert words in text
    assert "not known any more" in await (await client.get("/pulls/8")).text()


async def test_pulls_are_filtered(port: Port, aiohttp_client: Client) -> None:
    port.activity.last_pulls = (pull_told(), pull_told(id="2", image="torch:2"))
    client = await aiohttp_client(port.application())
    text = await (await client.get("/pulls?pulls=torch")).text()
    assert "torch:2" in text
    assert "redis:7" not in text
    assert "No pull has" in await (await client.get("/pulls?pulls=nothing")).text()


async def test_images_are_searched_sorted_and_paged(port: Port, aiohttp_client: Client) -> None:
    port.images.here = [image_told(f"app{each:02}:1", size=each) for each in range(45)]
    client = await aiohttp_client(port.application())
    by_size = await (await client.get("/images?sort=size")).text()
    assert "app44:1" in by_size
    assert "app24:1" not in by_size
    assert 'aria-sort="descending"' in by_size
    assert "after=20" in by_size
    assert "app24:1" in await (await client.get("/images?sort=size&after=20")).text()
    found = await (await client.get("/images?images=app07&sort=nonsense")).text()
    assert "app07:1" in found
    assert "app08:1" not in found
    detail = await (await client.get("/images/detail?image=app07:1")).text()
    assert "linux/s390x" in detail
    assert "not here" in await (await client.get("/images/detail?image=x")).text()


# Names are strangers'.


async def test_names_are_text_whatever_is_in_them(port: Port, aiohttp_client: Client) -> None:
    port.activity.told = status_told(
        listen=(HOSTILE,),
        endpoints=(
            EndpointState(
                HOSTILE, HOSTILE, HOSTILE, "login_refused", NOW, HOSTILE, 0.1, (HOSTILE,),
                (Limit(HOSTILE, 1, 1, NOW),),
            ),
        ),
    )  # fmt: skip
    request = request_told(
        request_id=HOSTILE, agent=HOSTILE, client=HOSTILE, reference=HOSTILE, why=HOSTILE,
        error=HOSTILE, endpoint=HOSTILE, method=HOSTILE, kind=HOSTILE, outcome=HOSTILE,
    )  # fmt: skip
    port.activity.last_pulls = (
        pull_told(
            id="1", client=HOSTILE, agent=HOSTILE, image=HOSTILE, registry=HOSTILE,
            repository=HOSTILE, reference=HOSTILE, summary=HOSTILE, failure=HOSTILE,
            requests=(request,),
        ),
    )  # fmt: skip
    port.activity.under_way = (
        Download("1", HOSTILE, HOSTILE, HOSTILE, HOSTILE, "running", 1, 2, 3.0, 1, NOW),
    )
    port.activity.happened = (Happening(1, NOW, HOSTILE, "error", HOSTILE, HOSTILE),)
    port.images.here = (
        image_told(image=HOSTILE, digest=HOSTILE, platforms=(HOSTILE,), state=HOSTILE),
    )
    port.admission = Admission(write=True)
    client = await aiohttp_client(port.application())
    asked = {"image": HOSTILE}
    pages = [
        await client.get("/"),
        await client.get("/", params={"pulls": HOSTILE, "images": HOSTILE, "after": ""}),
        await client.get("/pulls"),
        await client.get("/pulls/1"),
        await client.get("/images"),
        await client.get("/images/detail", params=asked),
        await client.post("/actions/purge/trial", data=asked, headers=await browser(client)),
        await client.post("/actions/pin", data=asked, headers=await browser(client)),
    ]
    for answer in pages:
        assert answer.status in (200, 204)
        text = await answer.text()
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "49" not in text.partition(HOSTILE[:5])[2][:200]
    async with client.get("/live") as answer:
        told = (await answer.content.readuntil(b"event: events")).decode()
        told += (await answer.content.readuntil(b"\n\n")).decode()
    assert "alert(1)" in told
    assert "<script>alert" not in told
    assert "<img" not in told


async def test_only_files_of_the_mirror_are_shown_by_a_browser(
    port: Port, aiohttp_client: Client
) -> None:
    client = await aiohttp_client(port.application())
    paths = ("/", "/images", "/static/page.js", "/api/v1/status", "/nothing", "/api/v1/nothing")
    for path in paths:
        headers = (await client.get(path)).headers
        policy = dict(
            each.strip().partition(" ")[::2]
            for each in headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "Set-Cookie" not in headers
    text = await (await client.get("/")).text()
    assert "style=" not in text
    assert " on" + "click" not in text


async def test_scrapers_and_probes_are_answered_as_ever(port: Port, aiohttp_client: Client) -> None:
    port.admission = Admission(TOKEN, write=True)
    client = await aiohttp_client(port.application())
    for path in ("/metrics", "/healthz", "/readyz"):
        answer = await client.get(path)
        assert answer.status == 200
        assert set(answer.headers) == {"Content-Type", "Content-Length", "Date", "Server"}


# Files.


async def test_files_are_kept_by_browsers_for_as_long_as_they_are_the_same(
    port: Port, aiohttp_client: Client
) -> None:
    client = await aiohttp_client(port.application())
    page = await (await client.get("/")).text()
    url = next(each for each in page.split('"') if each.startswith("/static/page.css?v="))
    answer = await client.get(url)
    assert "immutable" in answer.headers["Cache-Control"]
    tag = answer.headers["ETag"]
    again = await client.get(url, headers={"If-None-Match": tag})
    assert again.status == 304
    assert await again.read() == b""
    old = await client.get("/static/page.css?v=older")
    assert old.headers["Cache-Control"] == "no-cache"
    assert page.count("/static/") >= 6
    for path in ("/static/none.js", "/static/VENDORED.toml", "/static/..%2fpage.py", "/static/"):
        assert (await client.get(path)).status == 404


# Who may change something.


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_port_that_is_read_only_changes_nothing(
    port: Port, aiohttp_client: Client, action: str
) -> None:
    client = await aiohttp_client(port.application())
    for headers in ({}, await browser(client)):
        answer = await client.post(f"/actions/{action}", data={"image": "redis:7"}, headers=headers)
        assert answer.status == 403
        assert "admin: {write: true}" in await answer.text()
    assert (port.images.purged, port.images.pinned, port.ran) == ([], [], [])
    assert "purge" not in (await (await client.get("/")).text()).partition("<footer")[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"X-CSRF-Token": "x" * 43},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "é"},
        {"Origin": "http://localhost:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
async def test_only_the_page_itself_changes_something(
    writing: Port, aiohttp_client: Client, wrong: dict[str, str]
) -> None:
    client = await aiohttp_client(writing.application())
    headers = {**await browser(client), **wrong}
    answer = await client.post("/actions/purge", data={"image": "redis:7"}, headers=headers)
    assert answer.status == 403
    assert writing.images.purged == []


async def test_a_form_of_another_site_changes_nothing(
    writing: Port, aiohttp_client: Client
) -> None:
    client = await aiohttp_client(writing.application())
    answer = await client.post("/actions/purge", data={"image": "redis:7"})
    assert answer.status == 415
    assert writing.images.purged == []


async def test_a_purge_says_first_what_would_go(writing: Port, aiohttp_client: Client) -> None:
    writing.images.here = (image_told(), image_told("redis:8", pinned="command"))
    client = await aiohttp_client(writing.application())
    headers = await browser(client)
    asked = {"image": "docker.io/library/redis:*"}
    text = await (await client.post("/actions/purge/trial", data=asked, headers=headers)).text()
    assert "1 image</strong> would go" in text
    assert "12 MB" in text
    assert "Pinned, so they stay: redis:8" in text
    assert writing.images.purged == []
    answer = await client.post("/actions/purge", data=asked, headers=headers)
    assert json.loads(answer.headers["HX-Trigger"])["said"]["text"] == "1 image purged, 12 MB freed"
    assert writing.images.purged == ["docker.io/library/redis:7"]


async def test_images_are_pinned_warmed_and_the_configuration_read_again(
    writing: Port, aiohttp_client: Client
) -> None:
    client = await aiohttp_client(writing.application())
    headers = await browser(client)

    async def said(action: str, image: str) -> str:
        answer = await client.post(f"/actions/{action}", data={"image": image}, headers=headers)
        assert answer.status == 204
        text: str = json.loads(answer.headers["HX-Trigger"])["said"]["text"]
        return text

    assert "is pinned to sha256:70c291fd" in await said("pin", "redis:7")
    assert "pinned no more" in await said("unpin", "docker.io/library/redis:7")
    assert "is not pinned" in await said("unpin", "docker.io/library/redis:7")
    assert "torch:2 is here" in await said("warm", "torch:2")
    assert "no such image" in await said("warm", "no/such")
    assert "say which image" in await said("warm", " ")
    assert await said("reload", "") == "configuration applied"
    assert writing.ran[-1] == ("reload", {})


# Who may look.


async def test_a_token_is_asked_for_in_a_form(port: Port, aiohttp_client: Client) -> None:
    port.admission = Admission(TOKEN)
    client = await aiohttp_client(port.application("0.0.0.0"))
    for path in ("/images", "/pulls", "/pulls/1", "/live", "/images/detail"):
        assert (await client.get(path)).status == 401
    form = await (await client.get("/")).text()
    assert 'name="token"' in form
    assert "redis:7" not in form
    wrong = await client.post("/login", data={"token": "wrong"})
    assert wrong.status == 403
    assert "not the token" in await wrong.text()
    right = await client.post("/login", data={"token": TOKEN}, allow_redirects=False)
    assert right.status == 303
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert "redis:7" in await (await client.get("/")).text()
    port.admission = Admission(TOKEN[::-1])  # another one, by a reload
    assert 'name="token"' in await (await client.get("/")).text()


async def test_who_has_logged_in_may_log_out(port: Port, aiohttp_client: Client) -> None:
    port.admission = Admission(TOKEN)
    client = await aiohttp_client(port.application())
    await client.post("/login", data={"token": TOKEN})
    assert (await client.get("/pulls")).status == 200
    await client.post("/logout")
    assert (await client.get("/pulls")).status == 401


@pytest.mark.parametrize(
    "value", ["", "1.2", "99999999999.", "x.y", f"99999999999.{'0' * 64}", "é"]
)
async def test_a_cookie_that_is_not_the_mirrors_shows_nothing(
    port: Port, aiohttp_client: Client, value: str
) -> None:
    port.admission = Admission(TOKEN)
    client = await aiohttp_client(port.application())
    headers = {"Cookie": f"registry_mirror_session={value}"}
    assert (await client.get("/pulls", headers=headers)).status == 401


async def test_tokens_are_not_guessed(port: Port, aiohttp_client: Client) -> None:
    port.admission = Admission(TOKEN)
    client = await aiohttp_client(port.application())
    for number in range(10):
        headers = {"Authorization": f"Bearer {number}"}
        assert (await client.get("/pulls", headers=headers)).status == 401
    refused = await client.get("/pulls", headers={"Authorization": f"Bearer {TOKEN}"})
    assert refused.status == 429
    assert refused.headers["Retry-After"] == "60"
    assert (await client.post("/login", data={"token": TOKEN})).status == 429


async def test_writing_takes_the_token_too(writing: Port, aiohttp_client: Client) -> None:
    client = await aiohttp_client(writing.application())
    headers = await browser(client)
    writing.admission = Admission(TOKEN, write=True)
    asked = {"image": "redis:7"}
    answer = await client.post("/actions/purge", data=asked, headers=headers)
    assert answer.status == 401
    await client.post("/login", data={"token": TOKEN})
    answer = await client.post("/actions/purge", data=asked, headers=headers)
    assert answer.status == 204
    assert writing.images.purged


# What is live.


async def parts(answer: Any, *names: str) -> dict[str, str]:
    """The first part of each of these names that comes."""
    found: dict[str, str] = {}
    async with asyncio.timeout(10):
        while not set(names) <= set(found):
            event = (await answer.content.readuntil(b"\n\n")).decode()
            assert event, "the stream has ended"
            lines = [line.partition(": ")[::2] for line in event.splitlines()]
            text = "\n".join(value for key, value in lines if key == "data")
            found.update({value: text for key, value in lines if key == "event"})
    return found


async def test_the_page_is_told_what_has_changed(port: Port, aiohttp_client: Client) -> None:
    client = await aiohttp_client(port.application())
    async with client.get("/live") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        first = await parts(answer, "head", "figures", "upstreams", "downloads", "pulls", "events")
        assert "redis:7" in first["pulls"]
        port.activity.last_pulls = ()
        port.activity.now_is_new()
        assert "Nobody has pulled yet" in (await parts(answer, "pulls"))["pulls"]
        port.activity.last_pulls = (pull_told(id="2", image="torch:2"),)
        port.activity.now_is_new()
        second = await parts(answer, "pulls")
        assert set(second) == {"pulls"}, "what has not changed is not told"
        assert "torch:2" in second["pulls"]


async def test_nothing_is_made_while_nobody_looks(port: Port, aiohttp_client: Client) -> None:
    asked = 0
    status = port.activity.status

    async def counted() -> Any:
        nonlocal asked
        asked += 1
        return await status()

    port.activity.status = counted  # type: ignore[method-assign]
    client = await aiohttp_client(port.application())
    answers = [await client.get("/live") for _ in range(5)]
    for answer in answers:
        await parts(answer, "events")
    assert asked == 1, "one picture is shared by all"
    for answer in answers:
        answer.close()
    async with client.get("/live") as answer:
        await parts(answer, "events")
    assert asked == 2


async def test_streams_are_bounded_and_their_places_given_back(
    port: Port, aiohttp_client: Client
) -> None:
    client = await aiohttp_client(port.application())
    open_ones = [await client.get("/live") for _ in range(live.MOST_OF_ONE)]
    refused = await client.get("/live")
    assert refused.status == 503
    assert refused.headers["Retry-After"]
    for answer in open_ones:
        answer.close()
    async with asyncio.timeout(10):
        while (answer := await client.get("/live")).status != 200:
            await asyncio.sleep(0.01)
    answer.close()


async def test_a_stream_without_news_lives_and_ends_when_the_mirror_stops(
    port: Port, aiohttp_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_BEAT", 0.05)
    client = await aiohttp_client(port.application())
    async with client.get("/live") as answer:
        await parts(answer, "events")
        async with asyncio.timeout(10):
            assert await answer.content.readuntil(b"\n\n") == b":\n\n"
            await client.server.close()
            while await answer.content.readany():
                pass


async def test_a_browser_that_does_not_read_holds_up_nobody(
    port: Port, aiohttp_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_AT_LEAST", 0.0)
    monkeypatch.setattr(live, "_PATIENCE", 0.2)
    big = "x" * 200_000
    client = await aiohttp_client(port.application())
    slow = await client.get("/live")
    slow.content._low_water = slow.content._high_water = 0  # type: ignore[union-attr]
    async with client.get("/live") as quick:
        for number in range(60):
            words = f"{number} {big}"
            port.activity.happened = (Happening(number, NOW, "evicted", "info", "", words),)
            port.activity.now_is_new()
            while f"{number} x" not in (await parts(quick, "events"))["events"]:
                pass
    slow.close()


async def test_other_machines_names_are_refused_on_a_loopback_address(
    port: Port, aiohttp_client: Client
) -> None:
    client = await aiohttp_client(port.application())
    for path in ("/", "/api/v1/status", "/static/page.css", "/live"):
        answer = await client.get(path, headers={"Host": "evil.example.org:5001"})
        assert answer.status == 403
    elsewhere = await client.get("/live", headers={"Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status == 403


@pytest.mark.parametrize(
    "form",
    [
        "multipart/form-data",
        f"multipart/form-data; boundary={'x' * 100}",
        "application/x-www-form-urlencoded; charset=none",
    ],
)
async def test_a_form_that_cannot_be_read_is_refused(
    port: Port, aiohttp_client: Client, form: str
) -> None:
    client = await aiohttp_client(port.application())
    answer = await client.post("/login", data=b"--x\r\n", headers={"Content-Type": form})
    assert answer.status == 400
    assert "no form" in await answer.text()
