"""The page of a mirror that runs, while a real client pulls through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import expect

from ..e2e.programs import needs
from ..fakes.servers import Fault
from ..faults.house import House
from .conftest import Reader

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("browser")]

LAYER = os.urandom(4 << 20)


def slow_after_half(digest: str, released: asyncio.Event) -> Fault:
    """The second half of this blob comes when the event has; until then so little of it that the
    connection is not silent. Other blobs come as they should."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if digest not in request.path:
            return None
        response = web.StreamResponse()
        response.content_length = len(LAYER)
        await response.prepare(request)
        sent = len(LAYER) // 2
        await response.write(LAYER[:sent])
        while not released.is_set():
            await response.write(LAYER[sent : sent + 64])
            sent += 64
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(released.wait(), 0.05)
        with contextlib.suppress(ConnectionError):  # the mirror has asked for the rest elsewhere
            await response.write(LAYER[sent:])
        return response

    return fault


async def test_a_pull_is_seen_while_it_goes_on_and_its_image_purged(
    reader: Reader, tmp_path: Path
) -> None:
    """By two workers: the page is their parent's, which knows of pulls what they tell it."""
    needs("skopeo")
    async with House(tmp_path) as house:
        house.hub.add_image("library/demo", "1", LAYER)
        released = asyncio.Event()
        digest = house.hub.add_blob(LAYER)
        house.hub.fail("blobs", slow_after_half(digest, released), times=4)
        mirror = house.prepare(workers=2, admin={"write": True})
        await mirror.start()
        page = await reader.open(f"{mirror.admin}/")
        await expect(page.locator("[data-live=downloads]")).to_contain_text("Nothing is being")
        await expect(page.locator("[data-live=upstreams]")).to_contain_text("docker.io")

        skopeo = await asyncio.create_subprocess_exec(
            *("skopeo", "copy", "--quiet", "--src-tls-verify=false"),
            *(f"docker://{mirror.address}:5000/library/demo:1", f"dir:{tmp_path / 'copy'}"),
        )
        with contextlib.suppress(ProcessLookupError):
            going = page.locator("[data-live=downloads] li")
            await expect(going).to_contain_text("demo")
            await expect(going).to_contain_text("50 %")
            await expect(going).to_contain_text("reader")
            released.set()
            async with asyncio.timeout(30):
                assert await skopeo.wait() == 0
        await expect(page.locator("[data-live=downloads]")).to_contain_text("Nothing is being")

        pull = page.locator("#pulls-list li", has_text="demo:1")
        await expect(pull).to_contain_text("MISS")
        await pull.locator("summary").click()
        await expect(pull.get_by_role("table")).to_contain_text("GET blob")

        await page.locator("#images-like").fill("demo")
        image = page.locator("#images-list tbody tr", has_text="demo:1")
        async with asyncio.timeout(15):  # the catalogue is noted a second later
            while not await image.count():
                await page.get_by_role("button", name="size").click()
                await asyncio.sleep(0.2)
        await image.get_by_role("button", name="purge demo:1").click()
        await expect(page.get_by_role("dialog")).to_contain_text("1 image would go")
        await page.get_by_role("button", name="Purge, free").click()
        await expect(page.get_by_role("status")).to_contain_text("1 image purged")
        await expect(image).to_have_count(0)
        await page.locator("#warm-image").fill("demo:1")
        await page.get_by_role("button", name="warm", exact=True).click()
        await expect(page.get_by_role("status")).to_contain_text("demo:1 is here")
        await page.locator("#warm-image").fill("nosuch:1")
        await page.get_by_role("button", name="warm", exact=True).click()
        await expect(page.get_by_role("status")).to_contain_text("does not have")
        await reader.context.close()  # and its connections
