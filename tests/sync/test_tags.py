"""Tags: which a pattern means, and in which order."""

from __future__ import annotations

import pytest

from mirror.oci.errors import BadRequest
from mirror.oci.reference import Repository
from mirror.oci.wanted import ByNames, ByTags, OneImage, parse_wanted
from mirror.sync.tags import chosen

SIGNATURE = f"sha256-{'0' * 64}.sig"


def test_newer_versions_come_first() -> None:
    tags = ["v1.2", "v1.10", "v1.10.1", "v2.0.0-rc.1", "v2.0.0-alpha", "v2.0.0", "latest", "7.2"]
    assert chosen(tags, "v*") == [
        "v2.0.0", "v2.0.0-rc.1", "v2.0.0-alpha", "v1.10.1", "v1.10", "v1.2",
    ]  # fmt: skip
    assert chosen(tags, "*", 1) == ["7.2"]
    assert chosen(tags, "*")[-1] == "latest"


def test_what_follows_a_version_makes_it_no_older() -> None:
    assert chosen(["7.2-alpine", "7.1", "7.2"], "7*", 2) == ["7.2-alpine", "7.2"]


def test_signatures_are_not_meant_by_a_pattern_of_versions() -> None:
    assert chosen(["v1", SIGNATURE], "*") == ["v1"]
    assert chosen(["v1", SIGNATURE], "sha256-*") == [SIGNATURE]


def test_what_names_mean() -> None:
    assert isinstance(parse_wanted("redis:7", "docker.io"), OneImage)
    assert parse_wanted("redis:7*", "docker.io") == ByTags(
        Repository("docker.io", "library/redis"), "7*"
    )
    assert parse_wanted("ghcr.io/acme/*:v*", "docker.io") == ByNames("ghcr.io", "acme/*", "v*")


@pytest.mark.parametrize(
    "text", ["*.io/acme/app", "redis@sha256:*", "re dis", "Redis:*", "a" * 600]
)
def test_what_is_no_image_is_told(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_wanted(text, "docker.io")
