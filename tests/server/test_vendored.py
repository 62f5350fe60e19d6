"""Files of others that are shipped: they are what their packages have."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

STATIC = Path(__file__).parent.parent.parent / "mirror" / "server" / "browsing" / "static"
OWN = {"frame.css", "frame.js", "theme.js", "icon.svg", "VENDORED.toml"}


def vendored() -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads((STATIC / "VENDORED.toml").read_text())["file"]
    return found


def test_each_file_is_the_one_whose_checksum_is_written() -> None:
    for each in vendored():
        assert hashlib.sha256((STATIC / each["name"]).read_bytes()).hexdigest() == each["sha256"]


def test_each_file_of_others_is_told_with_its_licence() -> None:
    told = {each["name"] for each in vendored()} | {each["text"] for each in vendored()}
    assert {path.name for path in STATIC.iterdir()} == told | OWN
    for each in vendored():
        assert each["licence"] in ("0BSD", "MIT")
        assert (STATIC / each["text"]).read_text().strip()
