"""docs/start.md and docs/hosting.md, as a newcomer follows them: each command, in their order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .conftest import Shelf
from .hub import Hub
from .programs import REPOSITORY, accepts, loopback_address, needs, wait_until

BLOCK = re.compile(r"(?m)(?:^    .+\n)+")
PLACE = "127.0.0.1:500"  # and one more figure


def commands(page: str = "docs/start.md") -> Iterator[str]:
    for block in BLOCK.findall(_told(page)):
        yield from (line.strip() for line in block.splitlines())


def _told(page: str) -> str:
    """All of the page, or the section of it behind the #."""
    path, _, section = page.partition("#")
    text = (REPOSITORY / path).read_text()
    return text.partition(f"## {section}\n")[2].partition("\n## ")[0] if section else text


def edited(file: Path, hub: str, address: str) -> None:
    """What a newcomer with other ports, and another way to Docker Hub, would write."""
    keys = yaml.safe_load(file.read_text())
    keys["listen"], keys["admin"] = f"{address}:5000", f"{address}:5001"
    keys["registries"]["docker.io"]["endpoints"] = [{"url": hub}]
    file.write_text(yaml.safe_dump(keys))


@pytest.mark.parametrize("page", ["docs/start.md", "docs/hosting.md#From nothing to a push"])
def test_every_command_of_the_page_does_what_it_says(
    hub: Hub, shelf: Shelf, tmp_path: Path, page: str
) -> None:
    needs("curl", "skopeo")
    shelf.origin.push(shelf.official.image, "library/busybox")
    address = loopback_address()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    serving: subprocess.Popen[bytes] | None = None
    ran = []
    try:
        for command in commands(page):
            command = command.replace(PLACE, f"{address}:500")
            if command.startswith("registry-mirror serve"):
                edited(tmp_path / "mirror.yaml", hub.url, address)
                with (tmp_path / "log").open("wb") as log:
                    serving = subprocess.Popen(
                        command.split(),
                        cwd=tmp_path,
                        env={**os.environ, "PATH": path},
                        stderr=log,
                    )
                wait_until(lambda: accepts(address, 5000), "the mirror serves")
                continue
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            ran.append(command)
    finally:
        if serving is not None:
            serving.send_signal(signal.SIGTERM)
            serving.wait(30)
    assert len(ran) >= 9
    wanted = "hosted.tar" if "hosting" in page else "second/manifest.json"
    assert (tmp_path / wanted).is_file()
