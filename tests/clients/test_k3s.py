"""k3s' registries.yaml: keys come in, comments and other keys stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mirror.clients.k3s import plan
from mirror.clients.plan import Served, Unusable

from .files import FakeFiles

FILE = "/etc/rancher/k3s/registries.yaml"
URL = "http://mirror.lan:5000"


def after(text: str | None, served: Served | None = None) -> str:
    files = FakeFiles({} if text is None else {FILE: text})
    (change,) = plan(served or Served(URL, ["docker.io"]), files).changes
    return change.after


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (None, f"mirrors:\n  docker.io:\n    endpoint:\n    - {URL}\n"),
        ("# mine\n", f"# mine\nmirrors:\n  docker.io:\n    endpoint:\n    - {URL}\n"),
        ("mirrors:\n", f"mirrors:\n  docker.io:\n    endpoint:\n    - {URL}\n"),
        (
            "configs: {}\nmirrors: # all\n    # quay\n    quay.io: {endpoint: [a]}\n",
            f"configs: {{}}\nmirrors: # all\n    docker.io:\n      endpoint:\n      - {URL}\n"
            "    # quay\n    quay.io: {endpoint: [a]}\n",
        ),
        (
            "mirrors:\n  docker.io:\n    endpoint:\n      # old\n      - a # b\n",
            f"mirrors:\n  docker.io:\n    endpoint:\n      - {URL}\n      # old\n      - a # b\n",
        ),
        (
            'mirrors:\n  "docker.io":\n    endpoint: ["a"]\n',
            f'mirrors:\n  "docker.io":\n    endpoint: ["{URL}", "a"]\n',
        ),
        (
            "mirrors:\n  docker.io:\n    endpoint: []\n",
            f'mirrors:\n  docker.io:\n    endpoint: ["{URL}"]\n',
        ),
        (
            "mirrors:\n  docker.io:\n    rewrite: {a: b}",
            f"mirrors:\n  docker.io:\n    endpoint:\n    - {URL}\n    rewrite: {{a: b}}",
        ),
        (
            "mirrors: {quay.io: {endpoint: [a]}}\n",
            f'mirrors: {{"docker.io": {{"endpoint": ["{URL}"]}}, quay.io: {{endpoint: [a]}}}}\n',
        ),
    ],
)
def test_the_mirror_comes_before_others_and_comments_stay(
    before: str | None, expected: str
) -> None:
    assert after(before) == expected
    assert after(expected) == expected


def test_every_registry_and_the_authority_are_told_of() -> None:
    served = Served("https://mirror.lan:5000", ["docker.io", "ghcr.io"], ca=Path("/etc/ca.pem"))
    text = after("configs:\n  other:\n    auth: {username: me}\n", served)
    assert yaml.safe_load(text) == {
        "mirrors": {
            "docker.io": {"endpoint": ["https://mirror.lan:5000"]},
            "ghcr.io": {"endpoint": ["https://mirror.lan:5000"]},
        },
        "configs": {
            "mirror.lan:5000": {"tls": {"ca_file": "/etc/ca.pem"}},
            "other": {"auth": {"username": "me"}},
        },
    }


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mirrors:\n\tdocker.io:\n", ":2:1: it is no YAML"),
        ("a: 1\nb: 2\na: 3\n", ":3:1: the key a is there twice"),
        ("- a\n", "no keys where mirrors"),
        ("mirrors: [a]\n", "no keys where docker.io"),
        ("mirrors:\n  docker.io:\n    endpoint: a\n", "no list of URLs"),
        ("a: 1\n---\nb: 2\n", "no YAML"),
        ("x: &a {endpoint: [b]}\nmirrors: {docker.io: *a}\n", "by hand"),
    ],
)
def test_what_cannot_be_edited_safely_is_told_and_left(text: str, word: str) -> None:
    with pytest.raises(Unusable, match=word) as raised:
        after(text)
    assert str(raised.value).startswith(FILE)
