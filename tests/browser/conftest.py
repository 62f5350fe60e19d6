"""Chromium, as Debian has it, and what a reader's browser would complain of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from ..e2e.programs import needs
from ..server.admin_port import Port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    needs("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield browser
        await browser.close()


@dataclass
class Reader:
    """A browser's window before the page. `complaints`: what its console says, and requests to
    other hosts."""

    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)

    async def open(self, url: str) -> Page:
        """The page, live."""
        host = urlsplit(url).netloc
        self.page.on(
            "request",
            lambda request: (
                None
                if urlsplit(request.url).netloc == host or request.url.startswith("data:")
                else self.complaints.append(f"asked for {request.url}")
            ),
        )
        await self.page.goto(url)
        await self.page.locator("#stream[data-state=on]").wait_for()
        return self.page

    def listen(self) -> None:
        self.page.on(
            "console",
            lambda said: (
                self.complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest_asyncio.fixture(loop_scope="module")
async def reader(chromium: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Reader]:
    """Parametrized indirectly by what `new_context` takes."""
    options = getattr(request, "param", {})
    context = await chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(10_000)
    reader = Reader(context, await context.new_page())
    reader.listen()
    yield reader
    await context.close()
    assert reader.complaints == []


@pytest_asyncio.fixture(loop_scope="module")
async def port() -> AsyncIterator[Port]:
    """It serves at `url`."""
    found = Port()
    server = TestServer(found.application())
    await server.start_server()
    found.url = f"http://127.0.0.1:{server.port}/"
    yield found
    await server.close()
