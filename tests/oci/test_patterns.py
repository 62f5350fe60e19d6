"""Patterns of images: what they match."""

from __future__ import annotations

import pytest

from mirror.oci.errors import BadRequest
from mirror.oci.patterns import ImagePattern, Patterns
from mirror.oci.reference import Repository


@pytest.mark.parametrize(
    ("pattern", "image", "meant"),
    [
        ("library/redis:7", ("docker.io", "library/redis", "7"), True),
        ("library/redis:7", ("docker.io", "library/redis", "7.2"), False),
        ("library/redis", ("docker.io", "library/redis", "7.2"), True),
        ("library/*:latest", ("docker.io", "library/redis", "latest"), True),
        ("library/*:latest", ("docker.io", "bob/redis", "latest"), False),
        ("ghcr.io/acme/*", ("ghcr.io", "acme/app", "v1"), True),
        ("ghcr.io/acme/*", ("quay.io", "acme/app", "v1"), False),
        ("registry.corp:5000/app", ("registry.corp:5000", "app", "v1"), True),
        ("*", ("docker.io", "library/redis", "7"), True),
        ("library/redis:[67]", ("docker.io", "library/redis", "6"), True),
        ("library.redis:7", ("docker.io", "library/redis", "7"), False),
        ("ghcr.io/acme/*", ("harbor.corp", "ghcr.io/acme/app", "v1"), False),
        ("harbor.corp/ghcr.io/*", ("harbor.corp", "ghcr.io/acme/app", "v1"), True),
        ("library/*", ("docker.io", "library/redis", ""), True),
        ("redis", ("docker.io", "library/redis", ""), True),
        ("redis:7", ("docker.io", "library/redis", "7"), True),
        ("redis:7", ("docker.io", "library/redis", "6"), False),
        ("docker.io/redis", ("docker.io", "library/redis", "7"), True),
        ("redis", ("docker.io", "bob/redis", "7"), False),
        ("redis", ("ghcr.io", "library/redis", "7"), False),
        ("redis", ("registry.corp:5000", "redis", "7"), True),
        ("library/*:latest", ("docker.io", "library/redis", ""), False),
        ("index.docker.io/redis:7", ("docker.io", "library/redis", "7"), True),
        ("registry-1.docker.io/bob/*", ("docker.io", "bob/app", "7"), True),
        ("Docker.IO:443/*", ("docker.io", "bob/app", "7"), True),
        ("index.docker.io/bob/*", ("ghcr.io", "bob/app", "7"), False),
        ("ghcr.io:443/acme/*:v1", ("ghcr.io", "acme/app", "v1"), True),
        ("*.io/acme/*", ("ghcr.io", "acme/app", "v1"), True),
        ("localhost/app", ("localhost", "app", "v1"), True),
        ("localhost/app", ("ghcr.io", "localhost/app", "v1"), False),
    ],
)
def test_which_images_a_pattern_means(
    pattern: str, image: tuple[str, str, str], meant: bool
) -> None:
    registry, name, tag = image
    assert Patterns([pattern]).match(Repository(registry, name), tag) is meant


def test_no_pattern_means_nothing() -> None:
    assert not Patterns([]).match(Repository("docker.io", "library/redis"), "7")


def test_no_pattern_that_is_typed_takes_seconds_to_compile() -> None:
    ImagePattern("[" * 500, "docker.io")
    with pytest.raises(BadRequest, match="512 characters at most"):
        ImagePattern("[" * 8000, "docker.io")
