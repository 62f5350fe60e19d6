"""Names, tags and images: by the grammar, or refused."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import reference as module
from mirror.oci.digest import Digest
from mirror.oci.errors import BadRequest, DigestInvalid, NameInvalid, RegistryInvalid, TagInvalid
from mirror.oci.reference import (
    MAX_NAME,
    ImageReference,
    Repository,
    parse_image,
    parse_name,
    parse_reference,
    parse_tag,
)

from .attempts import attempt

DIGEST = "sha256:" + "0f" * 32


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "library/redis",
        "a/b/c/d/e/f",
        "0/1",
        "my.org/my_repo/my-image",
        "a__b/c---d",
        "a" * MAX_NAME,
        "manifests/blobs",
    ],
)
def test_a_repository_name_passes_unchanged(name):
    assert parse_name(name) == name
    assert Repository("docker.io", name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "A",
        "library/Redis",
        "a..b",
        "a___b",
        "a._b",
        "-a",
        "a-",
        "_a",
        "a b",
        "a\n",
        "a\0",
        "a:b",
        "a@b",
        "a?b",
        "a%2fb",
        "%2e%2e/a",
        "a\\b",
        "caf\u00e9",
        "\u0430",  # a Cyrillic letter that looks like an a
        "\u0661",
        "a" * (MAX_NAME + 1),
    ],
)
def test_what_is_no_repository_name_is_refused(name):
    with pytest.raises(NameInvalid):
        parse_name(name)
    with pytest.raises(NameInvalid):
        Repository("docker.io", name)


@pytest.mark.parametrize("tag", ["7", "latest", "_", "V1.2-rc_3", "a" * 128, "sha256-" + "a" * 64])
def test_a_tag_passes_unchanged(tag):
    assert parse_tag(tag) == parse_reference(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", ".", "..", "-a", ".a", "a/b", "a b", "a\n", "a" * 129, "caf\u00e9", "a%", "a+b"]
)
def test_what_is_no_tag_is_refused(tag):
    with pytest.raises(TagInvalid):
        parse_reference(tag)


def test_a_reference_with_a_colon_is_a_digest():
    assert parse_reference(DIGEST) == Digest.parse(DIGEST)
    with pytest.raises(DigestInvalid):
        parse_reference("latest:")


@given(st.text(max_size=300) | st.text("a.-_/", max_size=300))
def test_any_text_is_a_name_or_is_refused(text):
    found = attempt(NameInvalid, parse_name, text)
    if isinstance(found, NameInvalid):
        assert found.message.isprintable()
    else:
        assert found == text
        assert 0 < len(text) <= MAX_NAME
        assert ".." not in text
        assert "//" not in text
        assert not {text[0], text[-1]} & set("./_-")


@given(st.text(max_size=300) | st.text("a.-_:", max_size=300))
def test_any_text_is_a_reference_or_is_refused(text):
    found = attempt(BadRequest, parse_reference, text)
    if isinstance(found, BadRequest):
        assert isinstance(found, TagInvalid | DigestInvalid)
        assert found.message.isprintable()
    else:
        assert str(found) == text
        assert "/" not in text
        assert not text.startswith(".")


@pytest.mark.parametrize("hostile", ["a" * 100_000, "a-" * 50_000, "-" * 100_000, "a/" * 50_000])
def test_long_hostile_text_is_refused_with_a_short_message(hostile):
    for parse in (parse_name, parse_tag, parse_reference):
        with pytest.raises((NameInvalid, TagInvalid)) as caught:
            parse(hostile)
        assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("library/redis:7", "docker.io/library/redis:7"),
        ("bob/app", "docker.io/bob/app:latest"),
        ("bob/app/deep:V1.2_x-y", "docker.io/bob/app/deep:V1.2_x-y"),
        ("docker.io/redis:7", "docker.io/library/redis:7"),
        ("index.docker.io/bob/app", "docker.io/bob/app:latest"),
        ("index.docker.io/redis", "docker.io/library/redis:latest"),
        ("registry-1.docker.io/redis:7", "docker.io/library/redis:7"),
        ("registry.hub.docker.com/library/redis", "docker.io/library/redis:latest"),
        ("Docker.IO.:443/redis", "docker.io/library/redis:latest"),
        ("GHCR.io:443/acme/app", "ghcr.io/acme/app:latest"),
        ("ghcr.io/acme/app:v1", "ghcr.io/acme/app:v1"),
        ("ghcr.io/app", "ghcr.io/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("registry:5000/a/b:c", "registry:5000/a/b:c"),
        ("10.0.0.7/app", "10.0.0.7/app:latest"),
        (f"redis@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (f"redis:7@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (f"localhost:5000/app@{DIGEST}", f"localhost:5000/app@{DIGEST}"),
    ],
)
def test_what_is_meant_by_an_image(text, meant):
    assert str(parse_image(text, "docker.io")) == meant


def test_an_image_without_a_registry_is_of_the_default_one():
    assert parse_image("redis", "ghcr.io") == ImageReference(
        Repository("ghcr.io", "redis"), "latest"
    )
    assert parse_image("docker.io/redis", "ghcr.io") == parse_image("redis", "docker.io")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", NameInvalid),
        (":7", NameInvalid),
        ("/redis", NameInvalid),
        ("redis/", NameInvalid),
        ("Redis", NameInvalid),
        ("https://ghcr.io/acme/app", NameInvalid),
        ("ghcr.io/", NameInvalid),
        ("ghcr.io:99999/acme/app", RegistryInvalid),
        ("127.1/acme/app", RegistryInvalid),
        ("me:secret/app", NameInvalid),
        ("user@host/app", DigestInvalid),
        ("../etc.d/passwd", NameInvalid),
        ("a..b/../c", NameInvalid),
        ("redis:", TagInvalid),
        ("redis:-7", TagInvalid),
        ("redis:" + "t" * 129, TagInvalid),
        ("redis@", DigestInvalid),
        ("redis@sha256:12", DigestInvalid),
        (f"redis@{DIGEST}@{DIGEST}", DigestInvalid),
        ("a" * 250 + "/bbbbbb", NameInvalid),
        ("redis\n", NameInvalid),
        ("redis 7", NameInvalid),
    ],
)
def test_what_is_no_image(text, error):
    with pytest.raises(error):
        parse_image(text, "docker.io")


@given(st.text(max_size=40))
def test_any_text_is_an_image_or_told(text):
    made = attempt(BadRequest, parse_image, text, "docker.io")
    if isinstance(made, ImageReference):
        assert parse_image(str(made), "docker.io") == made
