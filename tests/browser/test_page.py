"""The page, as its readers see and use it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from mirror.contracts.activity import Download, EndpointState, Happening, Minute
from mirror.server.admin.console import Admission

from ..fakes.activity import NOW, pull_told, status_told
from ..fakes.images import image_told
from ..server.admin_port import TOKEN, Port
from .conftest import Reader

# One process starts the browser, once.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("browser")]

DARK = {"color_scheme": "dark"}
HOSTILE = "\"'><script>document.title='hurt'</script><img src=x onerror=\"document.title='hurt'\">"


def busy(port: Port) -> None:
    """All of the page has something to show."""
    activity = port.activity
    activity.last_hour = [Minute(NOW - 60 * each, 20 + each, each, 1, 1) for each in range(60)]
    activity.under_way = (
        download(30),
        replace(download(0), id="2", image="app:v1", state="queued", queued=2.0),
        replace(download(5), id="3", size=None, readers=0),
    )
    activity.last_pulls = [
        pull_told(id=str(each), image=f"app{each}:1", summary="HIT 5/5") for each in range(12)
    ]
    activity.last_pulls[1] = pull_told(id="1", summary="STALE 1, MISS 2/6", failure="ghcr.io 401")
    activity.happened = (
        Happening(2, NOW, "login_refused", "error", "ghcr.io", "ghcr.io refuses the login me"),
        Happening(1, NOW, "evicted", "info", "", "evicted 14 pieces to make room", 14),
    )
    port.images.here = [
        image_told(f"app{each:02}:1", size=(each + 1) * 10**6, pulls=100 - each, used_at=NOW - each)
        for each in range(45)
    ]


def download(here: int) -> Download:
    digest = "sha256:" + "3a" * 32
    return Download(
        "1", "torch:2", "docker.io", "library/torch", digest, "running", here, 100, 84e6, 3, NOW
    )


async def findings(page: Page) -> list[str]:
    """What axe finds that hinders people seriously."""
    results = await Axe().run(page)
    return [
        f"{each['id']}: {[node['html'] for node in each['nodes']][:3]}"
        for each in results.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]


async def test_what_happens_is_seen_without_loading_again(port: Port, reader: Reader) -> None:
    busy(port)
    page = await reader.open(port.url)
    await expect(page.locator("[data-live=downloads]")).to_contain_text("30 %")
    first = page.locator("#pull-5")
    await first.locator("summary").click()
    await expect(first.get_by_role("table")).to_contain_text("never seen here")
    await page.locator("#pulls-like").focus()
    port.activity.under_way = (download(61),)
    port.activity.last_pulls = [pull_told(id="99", image="new:1"), *port.activity.last_pulls]
    port.activity.told = status_told(
        endpoints=(EndpointState("quay.io", "quay.io", "https://quay.io", "down", NOW - 5),)
    )
    port.activity.now_is_new()
    await expect(page.locator("[data-live=downloads]")).to_contain_text("61 %")
    await expect(page.locator("#pulls-list")).to_contain_text("new:1")
    await expect(page.locator("[data-live=upstreams]")).to_contain_text("down for 5")
    await expect(first.get_by_role("table")).to_contain_text("never seen here")
    await expect(page.locator("#pulls-like")).to_be_focused()


async def test_pulls_are_filtered_and_stay_live(port: Port, reader: Reader) -> None:
    busy(port)
    page = await reader.open(port.url)
    await page.locator("#pulls-like").fill("app7")
    rows = page.locator("#pulls-list li")
    await expect(rows).to_have_count(1)
    port.activity.last_pulls = [
        pull_told(id="100", image="app77:1"), pull_told(id="101", image="other:1"),
        *port.activity.last_pulls,
    ]  # fmt: skip
    port.activity.now_is_new()
    await expect(rows).to_have_count(2)
    await expect(page.locator("#pulls-list")).not_to_contain_text("other:1")


async def test_images_are_searched_sorted_and_turned_over(port: Port, reader: Reader) -> None:
    busy(port)
    page = await reader.open(port.url)
    first = page.locator("#images-list tbody tr").first
    await expect(first).to_contain_text("app00:1")
    await page.get_by_role("button", name="size").click()
    await expect(first).to_contain_text("app44:1")
    await expect(page.locator("#images-list th[aria-sort]")).to_contain_text("size")
    await page.get_by_role("button", name="next").click()
    await expect(first).to_contain_text("app24:1")
    await page.locator("#images-like").fill("app07")
    await expect(page.locator("#images-list tbody tr")).to_have_count(1)
    await page.get_by_role("button", name="app07:1", exact=True).click()
    dialog = page.get_by_role("dialog", name="app07:1")
    await expect(dialog).to_contain_text("linux/s390x")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("button", name="app07:1", exact=True)).to_be_focused()


async def test_an_image_is_purged_once_it_was_said_what_goes(port: Port, reader: Reader) -> None:
    busy(port)
    port.admission = Admission(write=True)
    page = await reader.open(port.url)
    await page.get_by_role("button", name="purge app00:1").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("1 image would go and 12 MB be freed")
    assert port.images.purged == []
    await dialog.get_by_role("button", name="Purge, free").click()
    await expect(page.get_by_role("status")).to_contain_text("1 image purged, 12 MB freed")
    await expect(dialog).to_be_hidden()
    await expect(page.locator("#images-list")).not_to_contain_text("app00:1")
    assert port.images.purged == ["docker.io/library/app00:1"]
    await page.locator("#warm-image").fill("torch:2")
    await page.get_by_role("button", name="warm", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("torch:2 is here")
    await page.get_by_role("button", name="app01:1", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="pin", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("app01:1 is pinned to")
    assert port.images.pinned == ["docker.io/library/app01:1"]


async def test_a_page_that_is_read_only_offers_nothing_else(port: Port, reader: Reader) -> None:
    busy(port)
    page = await reader.open(port.url)
    for name in ("purge", "pin", "warm", "reload"):
        await expect(page.get_by_role("button", name=name)).to_have_count(0)
    await expect(page.locator("footer")).to_contain_text("read-only")
    await page.get_by_role("button", name="app00:1", exact=True).click()
    await expect(page.get_by_role("dialog").get_by_role("button", name="purge")).to_have_count(0)


async def test_all_is_done_with_the_keyboard(port: Port, reader: Reader) -> None:
    busy(port)
    page = await reader.open(port.url)
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the last pulls")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.locator("#pulls-title")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#pulls-like")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    summary = page.locator("#pull-0 summary")
    if not await summary.evaluate("each => each === document.activeElement"):
        await summary.focus()
    outline = await summary.evaluate("each => getComputedStyle(each).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Enter")
    await expect(page.locator("#pull-0").get_by_role("table")).to_be_visible()
    await page.locator("#sort-pulls").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#images-list th[aria-sort]")).to_contain_text("pulls")
    await expect(page.locator("#sort-pulls")).to_be_focused()


@pytest.mark.parametrize("reader", [{}, DARK], indirect=True, ids=["light", "dark"])
async def test_nothing_hinders_people_seriously(port: Port, reader: Reader) -> None:
    busy(port)
    port.admission = Admission(write=True)
    page = await reader.open(port.url)
    await page.locator("#pull-1 summary").click()
    await expect(page.locator("#pull-1").get_by_role("table")).to_be_visible()
    assert await findings(page) == []
    await page.get_by_role("button", name="app00:1", exact=True).click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    assert await findings(page) == []


@pytest.mark.parametrize("reader", [{}, DARK], indirect=True, ids=["light", "dark"])
async def test_dark_and_light_follow_the_system_until_one_is_chosen(
    port: Port, reader: Reader
) -> None:
    page = await reader.open(port.url)

    async def brightness() -> int:
        script = "getComputedStyle(document.querySelector('main > section')).backgroundColor"
        return sum(int(part) for part in (await page.evaluate(script))[4:-1].split(",")[:3])

    before = await brightness()
    is_dark = await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (before < 200) == is_dark
    await page.get_by_role("button", name="Dark or light").click()
    assert (await brightness() < 200) != is_dark
    await page.reload()
    assert (await brightness() < 200) != is_dark


@pytest.mark.parametrize(
    "reader", [{"viewport": {"width": 360, "height": 700}}], indirect=True, ids=["narrow"]
)
async def test_a_narrow_screen_shows_all_of_it(port: Port, reader: Reader) -> None:
    busy(port)
    page = await reader.open(port.url)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await findings(page) == []


async def test_strangers_names_are_text(port: Port, reader: Reader) -> None:
    port.activity.last_pulls = [
        pull_told(image=HOSTILE, client=HOSTILE, agent=HOSTILE, summary=HOSTILE, failure=HOSTILE)
    ]
    port.activity.happened = (Happening(1, NOW, HOSTILE, "error", HOSTILE, HOSTILE),)
    port.images.here = [image_told(image=HOSTILE, state=HOSTILE)]
    page = await reader.open(port.url)
    port.activity.now_is_new()
    await page.locator("#pull-1 summary").click()
    await expect(page.locator("#pull-1").get_by_role("table")).to_be_visible()
    await page.locator("#images-list tbody th button").click()
    await expect(page.get_by_role("dialog")).to_contain_text("<script>")
    await expect(page).to_have_title("registry-mirror")
    assert await page.locator("img, script:not([src])").count() == 0


async def test_lines_for_clients_are_copied(port: Port, reader: Reader) -> None:
    await reader.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await reader.open(port.url)
    await page.get_by_role("button", name="copy daemon.json").click()
    await expect(page.get_by_role("status")).to_contain_text("copied")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith('{"registry-mirrors": ["http://')


async def test_the_token_is_shown_in_a_form(port: Port, reader: Reader) -> None:
    port.admission = Admission(TOKEN, write=True)
    await reader.page.goto(port.url)
    assert await findings(reader.page) == []
    await reader.page.get_by_label("Token of this mirror").fill(TOKEN)
    await reader.page.get_by_role("button", name="Log in").click()
    await reader.page.locator("#stream[data-state=on]").wait_for()
    await expect(reader.page.locator("#pulls-list")).to_contain_text("redis:7")
    await reader.page.get_by_role("button", name="log out").click()
    await expect(reader.page.get_by_label("Token of this mirror")).to_be_visible()
