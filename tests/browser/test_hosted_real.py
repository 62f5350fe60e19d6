"""The page of hosted names of a mirror that runs, with an image that a real client has pushed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from ..e2e.certificates import issue
from ..e2e.images import OCI, build_thin, write_archive
from ..e2e.programs import needs
from ..faults.house import House, Mirror

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("browser")]

PASSWORD = "correct horse battery"
PORT = 5443


async def run(*words: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert process.returncode == 0, said
    return said.decode()


async def settle(mirror: Mirror, password: Path) -> None:
    """ada maintains acme."""

    async def command(*words: str | Path) -> None:
        await run(sys.executable, "-m", "mirror", *words, "--config", mirror.config)

    await asyncio.gather(
        command("user", "add", "ada", "--password-file", password), command("org", "add", "acme")
    )
    await command("org", "member", "acme", "ada", "maintainer")


async def test_a_team_sees_what_it_has_pushed_and_takes_it_away(
    chromium: Browser, tmp_path: Path
) -> None:
    """By two workers, over TLS: any of them answers the next request of a session."""
    needs("skopeo")
    async with House(tmp_path) as house:
        mirror = house.prepare(workers=2)
        certificate = issue(tmp_path, (mirror.address,))
        keys = json.loads(mirror.config.read_text())
        keys["listen"] = [{"address": keys["listen"], "tls": False}]
        keys["tls"] = {"cert": str(certificate.server)}
        keys["hosted"] = {"listen": f"{mirror.address}:{PORT}"}
        mirror.config.write_text(json.dumps(keys))
        await mirror.start()
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        await settle(mirror, password)
        host = f"{mirror.address}:{PORT}"
        archive = tmp_path / "image.tar"
        write_archive(build_thin("hello", OCI), archive)
        await run(
            *(
                "skopeo",
                "copy",
                "--all",
                "--dest-tls-verify=false",
                "--dest-creds",
                f"ada:{PASSWORD}",
            ),
            *(f"oci-archive:{archive}", f"docker://{host}/acme/app:v1"),
        )

        context = await chromium.new_context(ignore_https_errors=True)
        context.set_default_timeout(15_000)
        page = await context.new_page()
        await page.goto(f"https://{host}/login")
        await page.get_by_label("Name").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="acme/app").click()
        [cookie] = await context.cookies()
        assert cookie["name"] == "__Host-registry"
        assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
        assert cookie["sameSite"] == "Strict"
        await expect(page.get_by_role("region", name="Tags")).to_contain_text("by ada")
        await page.get_by_role("link", name="v1", exact=True).click()
        await expect(page.get_by_role("main")).to_contain_text(f"docker pull {host}/acme/app:v1")
        platforms = page.get_by_role("region", name="Images of this index")
        await platforms.get_by_role("link").first.click()
        await expect(page.get_by_role("region", name="Layers")).to_contain_text("layer")
        await page.go_back()
        await page.get_by_role("link", name="delete the image").click()
        await page.get_by_role("button", name="Delete the image").click()
        await expect(page.get_by_role("main")).to_contain_text("It has no tag")
        await page.get_by_role("button", name="sign out").click()
        await page.goto(f"https://{host}/r/acme/app")
        await expect(page.get_by_role("alert")).to_contain_text("there is no repository")

        answer = await page.goto(f"{mirror.url}/login")  # the mirror's own port has no page
        assert answer is not None
        assert answer.status == 404
        await context.close()
