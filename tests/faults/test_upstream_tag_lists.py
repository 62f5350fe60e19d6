"""Tag lists in pages, as registries write them: every client that follows the mirror's own links
ends with all tags, each once."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin

import pytest
from aiohttp import web

from ..e2e.programs import needs
from ..fakes.hub import Hub, status
from ..waiting import eventually
from .client import SKOPEO, fetch
from .house import House, Mirror

MANY = 100_000
NAME = "library/redis"
PATH = f"/v2/{NAME}/tags/list"
TAGS = [f"v{number:05}" for number in range(730)]
LINK = re.compile(r'<([^>]*)>; rel="next"')


@dataclass
class Shop:
    """A registry whose pages have words of their own for where they go on: `state`, which is good
    there alone, and `link`, which writes them into a Link header."""

    tags: list[str] = field(default_factory=lambda: list(TAGS))
    page: int = 50
    key: str = "next_page"
    link: Callable[[str, str], str] = lambda path, query: f'<{path}?{query}>; rel="next"'
    most: int | None = None  # refuses more, with this status
    refuses: int = 400
    secret: str = "gAAAA"
    before: Callable[[web.Request], web.Response | None] = lambda request: None

    def stand_in(self, hub: Hub) -> None:
        hub.challenge = "none"
        hub.fail("registry", self.answer, MANY)

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith("/tags/list"):
            return None
        odd = self.before(request)
        if odd is not None:
            return odd
        query = request.query
        count = query.get("n")
        if self.most is not None and count is not None and int(count) > self.most:
            return web.json_response({"errors": [{"code": "UNSUPPORTED"}]}, status=self.refuses)
        size = min(int(count or self.page), self.page)
        start = 0
        if self.key in query:
            try:
                told = base64.b64decode(query[self.key], validate=True).decode()
                secret, number = told.split(":")
            except ValueError:
                return web.Response(status=405)
            if secret != self.secret:
                return web.Response(status=405)
            start = int(number)
        headers = {}
        if start + size < len(self.tags):
            state = base64.b64encode(f"{self.secret}:{start + size}".encode()).decode()
            query_text = f"{self.key}={quote(state, safe='')}"
            if self.most != 0:
                query_text += f"&n={size}"
            headers["Link"] = self.link(request.path, query_text)
        return web.json_response(
            {"name": NAME, "tags": self.tags[start : start + size]}, headers=headers
        )


async def listed(
    mirror: Mirror,
    path: str = PATH,
    headers: Mapping[str, str] | None = None,
    most: int = 1000,
) -> list[str]:
    """All tags, as a client gathers them that follows the links it is given."""
    url, found = urljoin(mirror.url, path), list[str]()
    for _ in range(most):
        answer = await fetch(url, headers=headers)
        assert answer.status == 200, answer.body
        found += json.loads(answer.body)["tags"]
        link = answer.headers.get("Link")
        if link is None:
            return found
        match = LINK.fullmatch(link)
        assert match is not None, link
        assert match[1].startswith("/"), link
        url = urljoin(url, match[1])
    raise AssertionError("a list without end")


LINKS: dict[str, Callable[[str, str], str]] = {
    "absolute path": lambda path, query: f'<{path}?{query}>; rel="next"',
    "relative": lambda path, query: f'<list?{query}>; rel="next"',
    "a query": lambda path, query: f'<?{query}>; rel="next"',
    "another host": lambda path, query: (
        f'<https://internal.example:8443{path}?{query}>; rel="next"'
    ),
    "another path": lambda path, query: f'</artifactory/api{path}?{query}>; rel="next"',
    "no quotes": lambda path, query: f"<{path}?{query}>;rel=next",
    "several": lambda path, query: (
        f'<{path}>; rel="first", <{path}?{query}>; title="a, b"; rel="last next"'
    ),
    "long": lambda path, query: f'<{path}?{query}&cursor={"c" * 4500}>; rel="next"',
}


@pytest.mark.parametrize("link", LINKS)
async def test_a_link_of_the_registrys_own_words_is_followed(house: House, link: str) -> None:
    Shop(link=LINKS[link]).stand_in(house.hub)
    mirror = await house.mirror()
    assert await listed(mirror) == TAGS
    assert await listed(mirror, f"{PATH}?n=20") == TAGS
    assert len({one.path for one in house.hub.requests}) == 1


@pytest.mark.parametrize("key", ["next_page", "last", "marker", "token"])
async def test_whatever_the_registry_calls_it(house: House, key: str) -> None:
    Shop(key=key).stand_in(house.hub)
    assert await listed(await house.mirror()) == TAGS


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"{PATH}?ns=docker.io", {}),
        (f"/v2/docker.io/{NAME}/tags/list?n=30", {}),
        (f"/docker.io/v2/{NAME}/tags/list", {}),
        (PATH, {"Host": "docker.io"}),
    ],
)
async def test_links_lead_to_the_mirror_as_the_client_named_the_registry(
    house: House, path: str, headers: dict[str, str]
) -> None:
    Shop().stand_in(house.hub)
    mirror = await house.mirror(registries={"ghcr.io": {"endpoints": [{"url": "http://[::1]:1"}]}})
    assert await listed(mirror, path, headers) == TAGS


async def test_any_worker_goes_on_with_a_list(house: House) -> None:
    Shop(page=10).stand_in(house.hub)
    mirror = await house.mirror(workers=2)
    assert await listed(mirror) == TAGS


async def test_an_unsorted_list_with_empty_pages_and_none_is_whole(house: House) -> None:
    shuffled = random.Random(1).sample(TAGS, len(TAGS))
    shop = Shop(tags=shuffled)
    calls = 0

    def sometimes_empty(request: web.Request) -> web.Response | None:
        nonlocal calls
        calls += 1
        if calls % 4 or "next_page" not in request.query or "again" in request.query:
            return None
        link = f'<{request.path}?{request.query_string}&again=1>; rel="next"'
        body = {"name": NAME, "tags": None if calls % 8 else []}
        return web.json_response(body, headers={"Link": link})

    shop.before = sometimes_empty
    shop.stand_in(house.hub)
    assert await listed(await house.mirror()) == shuffled


@pytest.mark.parametrize("refuses", [400, 405, 422])
@pytest.mark.parametrize("most", [1000, 100, 0])
async def test_a_registry_that_refuses_so_many_is_asked_for_less(
    house: House, refuses: int, most: int
) -> None:
    Shop(most=most, refuses=refuses).stand_in(house.hub)
    mirror = await house.mirror()
    assert await listed(mirror, f"{PATH}?n=10000") == TAGS
    assert await listed(mirror, f"{PATH}?n=500") == TAGS


async def test_a_client_that_goes_on_after_the_last_tag_by_itself_gets_all(house: House) -> None:
    """As curl with n and last; the registry gives 100 at most, and no Link."""

    async def capped(request: web.Request) -> web.StreamResponse:
        after = [tag for tag in TAGS if tag > request.query.get("last", "")]
        count = min(100, int(request.query.get("n", 100)))
        return web.json_response({"name": NAME, "tags": after[:count]})

    house.hub.challenge = "none"
    house.hub.fail("registry", capped, MANY)
    mirror = await house.mirror()
    found: list[str] = []
    while True:
        last = f"&last={found[-1]}" if found else ""
        answer = await mirror.ask(f"{PATH}?n=1000{last}")
        tags = json.loads(answer.body)["tags"]
        if not tags:
            break
        found += tags
    assert found == TAGS


def _to_itself(path: str, query: str) -> str:
    return f'<{path}?next_page=same>; rel="next"'


def _by_last(path: str, query: str) -> str:
    return f'<{path}?last={TAGS[-1]}&n=1000>; rel="next"'


@pytest.mark.parametrize("link", [_to_itself, _by_last])
async def test_a_page_that_leads_to_itself_is_the_last(
    house: House, link: Callable[[str, str], str]
) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        tags = TAGS[-3:] if not request.query.keys() & {"last", "next_page"} else []
        return web.json_response({"tags": tags}, headers={"Link": link(request.path, "")})

    house.hub.challenge = "none"
    house.hub.fail("registry", page, MANY)
    mirror = await house.mirror()
    assert await listed(mirror) == TAGS[-3:]
    await eventually(lambda: mirror.events("tag_list_leads_to_itself"), 5)


async def test_pages_that_lead_round_in_a_circle_end(house: House) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        number = (int(request.query.get("p", 0)) + 1) % 7
        link = f'<{request.path}?p={number}>; rel="next"'
        return web.json_response({"tags": [f"v{number}"]}, headers={"Link": link})

    house.hub.challenge = "none"
    house.hub.fail("registry", page, MANY)
    mirror = await house.mirror()
    url = urljoin(mirror.url, PATH)
    for _ in range(60):
        answer = await fetch(url)
        if answer.status != 200:
            break
        match = LINK.fullmatch(answer.headers["Link"])
        assert match is not None
        url = urljoin(url, match[1])
    assert (answer.status, "round in a circle" in answer.message) == (502, True)


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_page_in_the_middle_that_fails_for_a_moment_is_asked_for_again(
    house: House, code: int
) -> None:
    shop, failed = Shop(), list[str]()

    def fails_once(request: web.Request) -> web.Response | None:
        if "next_page" not in request.query or request.query_string in failed or len(failed) > 2:
            return None
        failed.append(request.query_string)
        return web.Response(status=code, headers={"Retry-After": "1"})

    shop.before = fails_once
    shop.stand_in(house.hub)
    assert await listed(await house.mirror()) == TAGS


async def test_a_limit_on_lists_is_told_those_who_wait_for_it(house: House) -> None:
    shop = Shop()
    shop.before = lambda request: web.Response(status=429, headers={"Retry-After": "30"})
    shop.stand_in(house.hub)
    mirror = await house.mirror()
    answer = await mirror.ask(PATH, headers=SKOPEO)
    assert answer.status == 429
    assert 20 <= int(answer.headers["Retry-After"]) <= 30
    assert (await mirror.ask(PATH)).status == 503


async def test_each_endpoint_goes_on_with_its_own_list(house: House) -> None:
    other = await house.another_hub()
    Shop(secret="one").stand_in(house.hub)
    Shop(secret="two", tags=TAGS[:100]).stand_in(other)
    mirror = await house.mirror(house.hub, other)
    first = await mirror.ask(PATH)
    assert json.loads(first.body)["tags"] == TAGS[:50]
    match = LINK.fullmatch(first.headers["Link"])
    assert match is not None
    house.hub.mend()
    house.hub.fail("registry", status(503), MANY)
    assert (await mirror.ask(match[1])).status == 503  # and no tags of another list
    begun_anew = await listed(mirror)
    assert begun_anew == TAGS[:100]


@pytest.mark.parametrize("last", ["~", "~0", "~00000000.1.00000000.YT0x", "~" + "a" * 7000])
async def test_a_marker_of_nobodys_is_refused_and_asks_nobody(house: House, last: str) -> None:
    Shop().stand_in(house.hub)
    mirror = await house.mirror()
    answer = await mirror.ask(f"{PATH}?last={quote(last, safe='')}")
    assert (answer.status, "begin" in answer.message) == (400, True)
    assert house.hub.requests == []


async def test_a_list_of_two_hundred_thousand_tags_is_whole(house: House) -> None:
    tags = [f"build-{number:06}" for number in range(200_000)]
    Shop(tags=tags, page=1000).stand_in(house.hub)
    assert await listed(await house.mirror()) == tags
    whole = Shop(tags=tags, page=200_000)
    house.hub.mend()
    whole.stand_in(house.hub)
    assert await listed(await house.mirror()) == tags


@pytest.mark.parametrize("key", ["next_page", "last"])
async def test_skopeo_lists_all_tags(house: House, key: str) -> None:
    needs("skopeo")
    Shop(key=key).stand_in(house.hub)
    mirror = await house.mirror()
    process = await asyncio.create_subprocess_exec(
        *("skopeo", "list-tags", "--tls-verify=false"),
        f"docker://{mirror.url.partition('://')[2]}/{NAME}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, told
    assert json.loads(told)["Tags"] == TAGS
