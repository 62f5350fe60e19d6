"""Names of registries, and the one default that has several."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import registries
from mirror.oci.errors import RegistryInvalid
from mirror.oci.registries import DOCKER_HUB, is_registry, parse_registry, url_of

from .attempts import attempt

SAME = (
    *("docker.io", "ghcr.io", "quay.io:8443", "localhost", "corp", "corp:65535", "5000x:1", "a.0b"),
    *("10.0.0.7", "10.0.0.7:5000", "xn--mnchen-3ya.example", "a-1.b", "a" * 63, "0xg"),
)
HUB = (
    *("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"),
    *("DOCKER.io", "docker.io.", "docker.io:443", "Index.Docker.IO.:0443"),
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((name, name) for name in SAME),
        *((name, DOCKER_HUB) for name in HUB),
        ("GHCR.io:443", "ghcr.io"),
        ("docker.io:5000", "docker.io:5000"),
        ("registry.corp:80", "registry.corp:80"),
        ("registry.corp:05000", "registry.corp:5000"),
    ],
)
def test_a_name_has_many_spellings_and_one_form(text, name):
    assert parse_registry(text) == name
    assert parse_registry(name) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "a..", "-a", "a-", "a_b.io", "a b", "a\n", "\u212ahub.io"),
        *("https://ghcr.io", "ghcr.io/", "me@ghcr.io", "ghcr.io?", "caf\u00e9.io", "[::1]", "::1"),
        *(":443", "a:", "a:0", "a:65536", "a:99999", "a:123456", "a:-1", "a:1:2", "a:\u0661"),
        *("1", "127.1", "1.2.3.4.5", "256.0.0.1", "0x7f.1", "1.2.3.0x4", "2130706433", "01.2.3.4"),
        *("a" * 64, ".".join(["a" * 63] * 4), "a." * 5000, "a" * 5000, "5000"),
    ],
)  # fmt: skip
def test_what_is_no_registry_is_refused_with_words(text):
    with pytest.raises(RegistryInvalid, match="is no registry: write") as caught:
        parse_registry(text)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


@given(st.text(max_size=80) | st.text("aA0.-:x", max_size=80))
def test_any_text_is_a_registry_or_is_refused(text):
    name = attempt(RegistryInvalid, parse_registry, text)
    if isinstance(name, str):
        assert parse_registry(name) == name == name.lower()
        assert is_registry(text)
        assert url_of(name).startswith("https://")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-:")


def test_the_examples_in_the_documentation_hold():
    assert doctest.testmod(registries).failed == 0
