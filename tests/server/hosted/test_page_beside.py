"""The page beside the registry, at one port."""

from __future__ import annotations

import pytest

from mirror.server.http.sending import Sender

from ..hosted_port import HostedPort, password_of
from .conftest import hosted

BROWSER = {"User-Agent": "Mozilla/5.0", "Accept-Language": "en"}


@pytest.mark.parametrize(
    ("path", "headers", "begins"),
    [
        ("/", BROWSER, b"<!doctype html>"),
        ("/", {}, b"ok"),
        ("/healthz", BROWSER, b"ok"),
        ("/v2/", {}, b"{}"),
        ("/v2/a/b/tags/list", {}, b'{"errors"'),
        ("/v1/_ping", {}, b""),
        ("/static/page.css", {}, b"/*"),
        ("/v2x", {}, b"<!doctype html>"),
        ("/api/v1/nothing", {}, b'{"error"'),
    ],
)
async def test_each_path_means_the_page_or_the_registry(
    sender: Sender, path: str, headers: dict[str, str], begins: bytes
) -> None:
    people = await HostedPort().settle()
    async with hosted(sender, page=people.page) as door:
        status, _, body = await door.ask("GET", path, headers=headers)
        assert body.startswith(begins)
        again, _, nothing = await door.ask("HEAD", path, headers=headers)
        assert (again, nothing) == (status, b"")


async def test_people_sign_in_at_the_registrys_port(sender: Sender) -> None:
    people = await HostedPort().settle()
    async with hosted(sender, page=people.page) as door:
        form = {"name": "ada", "password": password_of("ada")}
        async with door.client.post(
            f"{door.url}/login", data=form, allow_redirects=False
        ) as answer:
            assert answer.status == 303
            cookie, _, attributes = answer.headers["Set-Cookie"].partition(";")
            assert "HttpOnly" in attributes
        async with door.client.get(f"{door.url}/r/acme/app", headers={"Cookie": cookie}) as answer:
            assert answer.status == 200
            assert f"docker pull {door.url.removeprefix('http://')}/acme/app:v1" in (
                await answer.text()
            )


async def test_without_a_page_there_is_none(sender: Sender) -> None:
    async with hosted(sender) as door:
        assert (await door.ask("GET", "/", headers=BROWSER))[2] == b"ok\n"
        assert (await door.ask("GET", "/login"))[0] == 404
