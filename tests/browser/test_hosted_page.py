"""The page of hosted names, as a team uses it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from mirror.contracts.hosted import Visibility
from mirror.contracts.identity import Role

from ..server.hosted_port import HostedPort, password_of
from .conftest import Reader

# One process starts the browser, once.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("browser")]

DARK = {"color_scheme": "dark"}
NARROW = {"viewport": {"width": 360, "height": 700}}
HOSTILE = "\"'><script>document.title='hurt'</script><img src=x onerror=\"document.title='hurt'\">"


@pytest_asyncio.fixture(loop_scope="module")
async def port() -> AsyncIterator[HostedPort]:
    found = await HostedPort().settle()
    server = found.server()
    await server.start_server()
    found.url = f"http://127.0.0.1:{server.port}"
    yield found
    await server.close()


async def signed_in(reader: Reader, port: HostedPort, name: str, path: str = "/") -> Page:
    page = reader.page
    await page.goto(f"{port.url}/login?next={path}")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password_of(name))
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("button", name="sign out")).to_be_visible()
    return page


async def findings(page: Page) -> list[str]:
    """What axe finds that hinders people."""
    results = await Axe().run(page)
    return [
        f"{each['id']}: {[node['html'] for node in each['nodes']][:3]}"
        for each in results.response["violations"]
        if each["impact"] in ("moderate", "serious", "critical")
    ]


async def test_a_maintainer_finds_an_image_and_deletes_it(port: HostedPort, reader: Reader) -> None:
    await reader.page.goto(port.url)
    await expect(reader.page.get_by_role("table")).to_contain_text("acme/site")
    await expect(reader.page.get_by_role("table")).not_to_contain_text("acme/app")
    page = await signed_in(reader, port, "ada")
    await page.get_by_role("searchbox").fill("app")
    await page.keyboard.press("Enter")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(1)
    await page.get_by_role("link", name="acme/app").click()
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("linux/amd64")
    await reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.get_by_role("button", name="copy: docker pull acme/app:v2").click()
    await expect(page.locator("#said")).to_contain_text("copied")
    host = port.url.removeprefix("http://")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == f"docker pull {host}/acme/app:v2"
    await page.get_by_role("link", name="v1", exact=True).click()
    await expect(page.get_by_role("region", name="Layers").get_by_role("row")).to_have_count(3)
    await page.get_by_role("link", name="delete the tag").click()
    await expect(page.get_by_role("heading")).to_contain_text("Delete the tag v1?")
    assert "v1" in port.records.there["acme/app"].tags
    await page.get_by_role("button", name="Delete the tag").click()
    await expect(page.get_by_role("status").first).to_contain_text("Deleted")
    await expect(rows).to_have_count(1)
    assert set(port.records.there["acme/app"].tags) == {"v2"}


async def test_members_and_robots_are_made_and_a_secret_is_seen_once(
    port: HostedPort, reader: Reader
) -> None:
    page = await signed_in(reader, port, "ada", "/o/acme")
    await page.get_by_label("User").fill("bo")
    await page.get_by_label("Role").select_option("writer")
    await page.get_by_role("button", name="Make a member").click()
    await expect(page.get_by_role("region", name="Members")).to_contain_text("bo")
    assert ("acme", Role.WRITER) in await port.identity.memberships("bo")
    await page.get_by_role("button", name="remove bo").click()
    await expect(page.get_by_role("region", name="Members")).not_to_contain_text("bo")
    await page.locator("#robot").fill("ci")
    await page.locator("#patterns").fill("app, tools/*")
    await page.locator("#right").select_option("push")
    await page.get_by_role("button", name="Make a robot").click()
    secret = await page.locator("#secret code").inner_text()
    assert secret.startswith("rmr_")
    await page.get_by_role("link", name="Done").click()
    await expect(page.get_by_role("region", name="Robots")).to_contain_text("push acme/tools/*")
    assert secret not in await page.content()


async def test_a_webhook_has_a_log_from_which_it_is_told_again(
    port: HostedPort, reader: Reader
) -> None:
    page = await signed_in(reader, port, "ada", "/webhooks/acme")
    await page.get_by_label("Address").fill("https://ci.example/hook")
    await page.get_by_role("button", name="Make it").click()
    await page.get_by_role("link", name="Done").click()
    await page.get_by_role("button", name="try it").click()
    log = page.get_by_role("region", name="Deliveries")
    await expect(log).to_contain_text("ping")
    await page.get_by_role("button", name="deliver ping").click()
    await expect(page.get_by_role("status").first).to_contain_text("on its way")


async def test_one_organisation_sees_nothing_of_another(port: HostedPort, reader: Reader) -> None:
    page = await signed_in(reader, port, "bo")
    await expect(page.get_by_role("table")).to_contain_text("other/secret")
    await page.get_by_role("searchbox").fill("acme")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(1)  # the public one
    for path in ("/r/acme/app", "/r/acme/app/-/tags/v1", "/o/acme", "/webhooks/acme"):
        answer = await page.goto(port.url + path)
        assert answer is not None
        assert answer.status == 404
        await expect(page.get_by_role("heading")).to_contain_text("no such thing")
    expected_of_404s(reader)
    said = await page.evaluate(
        "fetch('/api/v1/repositories/acme/app').then((answer) => answer.status)"
    )
    assert said == 404
    expected_of_404s(reader)


def expected_of_404s(reader: Reader) -> None:
    """What Chromium's console says of each page that was refused."""
    reader.complaints[:] = [each for each in reader.complaints if "404" not in each]


async def test_a_reader_has_nothing_to_press(port: HostedPort, reader: Reader) -> None:
    page = await signed_in(reader, port, "rita", "/r/acme/app")
    main = page.get_by_role("main")
    await expect(main).to_contain_text("v1")
    for name in ("delete", "settings", "remove"):
        await expect(main.get_by_role("link", name=name)).to_have_count(0)
        await expect(main.get_by_role("button", name=name)).to_have_count(0)
    await page.goto(f"{port.url}/o/acme")
    await expect(main.get_by_role("button")).to_have_count(0)


async def test_a_form_of_a_session_that_is_over_is_refused(
    port: HostedPort, reader: Reader
) -> None:
    page = await signed_in(reader, port, "ada", "/r/acme/app/-/tags/v1/delete")
    port.sessions.there.clear()
    await page.get_by_role("button", name="Delete the tag").click()
    await expect(page.get_by_role("alert").first).to_contain_text("not signed in any more")
    assert "v1" in port.records.there["acme/app"].tags
    reader.complaints[:] = [each for each in reader.complaints if "403" not in each]


async def test_a_link_on_another_site_finds_who_is_signed_in(
    port: HostedPort, reader: Reader
) -> None:
    """Although the cookie does not come with it."""
    page = await signed_in(reader, port, "ada")
    other = port.url.replace("127.0.0.1", "localhost")
    await page.route(
        f"{other}/chat",
        lambda route: route.fulfill(
            content_type="text/html", body=f'<a href="{port.url}/r/acme/app">look</a>'
        ),
    )
    await page.goto(f"{other}/chat")
    assert await page.evaluate("document.cookie") == ""  # which is HttpOnly
    await page.get_by_role("link", name="look").click()
    await expect(page.get_by_role("table")).to_contain_text("v1")
    reader.complaints[:] = [each for each in reader.complaints if "favicon" not in each]


PAGES = (
    "/",
    "/new",
    "/r/acme/app",
    "/r/acme/app/-/tags/v1",
    "/r/acme/app/-/tags/v1/delete",
    "/r/acme/app/-/settings",
    "/r/acme/app/-/retention",
    "/organisations",
    "/o/acme",
    "/webhooks/acme",
    "/account",
    "/users",
    "/users/ada",
    "/audit",
)


async def furnish(port: HostedPort) -> None:
    """All of the page has something to show."""
    await port.records.change("acme/app", immutable=["v1"], description="The app. " * 20)
    subject = port.records.there["acme/app"].tags["v1"].digest
    await port.push("acme/app", artifact_type="application/spdx+json", subject=subject)
    await port.push("acme/app", "a-tag-with-a-very-long-name-" + "x" * 90, by="ada")
    await port.push("acme/" + "long-name-" * 12 + "x", "1", visibility=Visibility.PUBLIC)


async def test_nothing_hinders_people(port: HostedPort, reader: Reader) -> None:
    await furnish(port)
    await reader.page.goto(f"{port.url}/login")
    assert await findings(reader.page) == []
    page = await signed_in(reader, port, "root")
    for path in PAGES:
        await page.goto(port.url + path)
        assert await findings(page) == [], path


@pytest.mark.parametrize("reader", [DARK], indirect=True, ids=["dark"])
async def test_nothing_hinders_people_in_the_dark(port: HostedPort, reader: Reader) -> None:
    await furnish(port)
    page = await signed_in(reader, port, "root")
    for path in ("/", "/r/acme/app", "/r/acme/app/-/tags/v1/delete", "/o/acme"):
        await page.goto(port.url + path)
        assert await findings(page) == [], path


@pytest.mark.parametrize("reader", [NARROW], indirect=True, ids=["narrow"])
async def test_a_narrow_screen_shows_all_of_it(port: HostedPort, reader: Reader) -> None:
    await furnish(port)
    page = await signed_in(reader, port, "root")
    for path in PAGES:
        await page.goto(port.url + path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path


async def test_all_is_done_with_the_keyboard(port: HostedPort, reader: Reader) -> None:
    page = await signed_in(reader, port, "ada", "/r/acme/app")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="settings")).to_be_focused()
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Settings")


@pytest.mark.parametrize(
    "reader", [{"java_script_enabled": False}], indirect=True, ids=["without scripts"]
)
async def test_it_works_without_scripts(port: HostedPort, reader: Reader) -> None:
    page = await signed_in(reader, port, "ada", "/r/acme/app/-/settings")
    await page.get_by_label("everybody").check()
    await page.get_by_label("Description").fill("made without scripts")
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("status").first).to_contain_text("Saved")
    record = port.records.there["acme/app"].record
    assert (record.visibility, record.description) == (Visibility.PUBLIC, "made without scripts")
    await page.get_by_role("button", name="sign out").click()
    await expect(page.get_by_role("link", name="sign in")).to_be_visible()


async def test_strangers_words_are_text(port: HostedPort, reader: Reader) -> None:
    await port.records.change("acme/site", description=HOSTILE)
    await port.push(
        "acme/site", "evil", by=HOSTILE, annotations={HOSTILE: HOSTILE}, artifact_type=HOSTILE
    )
    page = reader.page
    for path in ("/", "/r/acme/site", "/r/acme/site/-/tags/evil"):
        await page.goto(port.url + path)
        await expect(page.get_by_role("main")).to_contain_text("<script>")
        assert not re.search("hurt", await page.title())
        assert await page.locator("main img, script:not([src])").count() == 0
