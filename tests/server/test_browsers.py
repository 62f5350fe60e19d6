"""A web page that asks here by its reader's browser is refused; clients and proxies are not."""

from __future__ import annotations

import doctest
import json
from collections.abc import Mapping

import pytest

from mirror.server.http import browsers as pages

from .conftest import Port

MANIFEST = b"{}"
PATH = "/v2/library/redis/manifests/7"
LOOPBACK = (
    "localhost",
    "localhost:5000",
    "LOCALHOST.:5000",
    "127.0.0.1:5000",
    "127.8.9.1",
    "[::1]:5",
)
ELSEWHERE = (
    "evil.example",
    "evil.example:5000",
    "localhost.evil.example",
    "10.0.0.7",
    "127.1",
    "[::2]",
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"

BY_ANOTHER_SITE: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:5000"},
    {"Origin": "null"},
    {"origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"sec-fetch-site": "CROSS-SITE"},
]
BY_A_BROWSER: list[dict[str, str]] = [
    {"Accept-Language": "en-US,en;q=0.5"},
    {"Accept-Language": "*", "User-Agent": "curl/8.0"},
    {"User-Agent": FIREFOX},
    {"User-Agent": FIREFOX, "Sec-Fetch-Site": "same-origin"},
    {"User-Agent": FIREFOX, "Accept-Language": "de", "X-Forwarded-For": "10.0.0.7"},
]
BY_CLIENTS: list[dict[str, str]] = [
    {},
    {"User-Agent": "docker/28.5.2 go/go1.24.4 UpstreamClient(Docker-Client/28.5.2 \\(linux\\))"},
    {"User-Agent": "containerd/2.1.4", "Accept-Encoding": "zstd;q=1.0, gzip;q=0.8"},
    {"User-Agent": "skopeo/1.22.0", "X-Forwarded-For": "10.0.0.7", "Via": "1.1 proxy"},
    {"User-Agent": "curl/8.0", "Sec-Fetch-Site": "none"},
]


async def ask(port: Port, headers: Mapping[str, str], path: str = PATH) -> int:
    """The status of a GET, its code checked."""
    wire = await port.connect()
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    await wire.send(f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
    answer = await wire.answer()
    if answer.status != 200:
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (403, "DENIED")
    return answer.status


@pytest.mark.parametrize("path", [PATH, "/v2/", "/", "/healthz", "/nowhere"])
@pytest.mark.parametrize("headers", BY_ANOTHER_SITE)
async def test_a_page_of_another_site_is_refused_wherever_it_asks(
    port: Port, headers: dict[str, str], path: str
) -> None:
    for host in ("localhost", "mirror.lan"):
        assert await ask(port, {"Host": host, **headers}, path) == 403
    assert port.registry.asked == []


@pytest.mark.parametrize("headers", BY_A_BROWSER)
async def test_a_browser_on_this_machine_asks_by_its_own_name_only(
    port: Port, headers: dict[str, str]
) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    for host in ELSEWHERE:
        assert await ask(port, {"Host": host, **headers}) == 403
    assert port.registry.asked == []
    for host in LOOPBACK:
        assert await ask(port, {"Host": host, **headers}) == 200


@pytest.mark.parametrize("headers", BY_CLIENTS)
async def test_clients_and_proxies_may_use_any_name(port: Port, headers: dict[str, str]) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    for host in (*LOOPBACK, *ELSEWHERE, "mirror.lan"):
        assert await ask(port, {"Host": host, **headers}) == 200


@pytest.mark.parametrize("headers", [*BY_ANOTHER_SITE, *BY_A_BROWSER])
async def test_what_clients_were_just_given_is_no_way_round(
    port: Port, headers: dict[str, str]
) -> None:
    port.registry.add_manifest(MANIFEST, "7")
    host = {"Host": "evil.example"}
    for _ in range(3):  # it is in the response cache by now
        assert await ask(port, host) == 200
    assert len(port.registry.asked) < 6
    assert await ask(port, {**host, **headers}) == 403
    wire = await port.connect()
    await wire.ask(PATH)
    assert (await wire.answer()).status == 200
    await wire.ask(PATH, headers={"Origin": "http://evil.example"})
    assert (await wire.answer()).status == 403


def test_at_another_address_than_loopback_a_name_says_nothing() -> None:
    headers = {"Host": "mirror.lan:5000", "User-Agent": FIREFOX, "Accept-Language": "de"}
    for address in ("10.0.0.7", "2001:db8::1", ""):
        pages.refuse_pages(headers, address)
    for address in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"):
        with pytest.raises(pages.Denied):
            pages.refuse_pages(headers, address)


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(pages).failed == 0
