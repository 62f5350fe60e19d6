"""The pictures of the page in docs/images, taken anew: make screenshots."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp.test_utils import TestServer
from playwright.async_api import async_playwright

from ..fakes.activity import FakeActivity
from ..fakes.images import FakeImages
from ..server.admin_port import Port
from . import scene

FOLDER = Path(__file__).parents[2] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}


def ordinary_day() -> Port:
    activity = FakeActivity(
        told=scene.status(),
        last_hour=scene.minutes(),
        under_way=scene.downloads(),
        last_pulls=scene.pulls(),
        happened=scene.happenings(),
    )
    return Port(activity, FakeImages(scene.images()))


async def take() -> None:
    FOLDER.mkdir(exist_ok=True)
    server = TestServer(ordinary_day().application())
    await server.start_server()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for scheme in ("light", "dark"):
            page = await browser.new_page(color_scheme=scheme, viewport=SIZE, timezone_id="UTC")
            await page.clock.set_fixed_time(scene.NOW)
            await page.goto(f"http://127.0.0.1:{server.port}/")
            await page.locator("#stream[data-state=on]").wait_for()
            await page.screenshot(path=FOLDER / f"page-{scheme}.png", full_page=True)
        await browser.close()
    await server.close()


if __name__ == "__main__":
    asyncio.run(take())
