"""containerd's hosts.toml: one for each registry, extended where it is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mirror.clients.hosts_toml import plan, with_host
from mirror.clients.plan import Served, Unusable

from .files import FakeFiles

SERVED = Served("http://mirror.lan:5000", ["docker.io", "ghcr.io"])
HOST = '[host."http://mirror.lan:5000"]\n  capabilities = ["pull", "resolve"]\n'


def test_a_registry_without_a_file_gets_one_that_falls_back_to_it() -> None:
    made = plan(SERVED, FakeFiles())
    assert {str(change.path): change.after for change in made.changes} == {
        "/etc/containerd/certs.d/docker.io/hosts.toml": (
            f'server = "https://registry-1.docker.io"\n\n{HOST}'
        ),
        "/etc/containerd/certs.d/ghcr.io/hosts.toml": f'server = "https://ghcr.io"\n\n{HOST}',
    }


def test_the_mirror_comes_before_other_hosts_and_their_comments() -> None:
    head = 'server = "https://ghcr.io" # itself\n\n'
    tail = '# the old one\n[host."https://old.example"]\n  capabilities = ["pull"]\n'
    after = with_host(head + tail, "ghcr.io", SERVED)
    assert after == f"{head}{HOST}\n{tail}"
    assert with_host(after, "ghcr.io", SERVED) == after
    assert next(iter(tomllib.loads(after)["host"])) == "http://mirror.lan:5000"


def test_a_file_without_hosts_is_extended_at_its_end() -> None:
    after = with_host('server = "https://ghcr.io"', "ghcr.io", SERVED)
    assert after == f'server = "https://ghcr.io"\n\n{HOST}'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('host = {"https://a" = {}}\n', "by hand"),
        ('x = """\n[host.a]\n"""\n[host."https://a"]\n', "by hand"),
        ('[host."http://mirror.lan:5000"]\ncapabilities = ["resolve"]\n', "not pull from it"),
        ("host = 1\n", "no table"),
        ("server = \n", "no TOML"),
    ],
)
def test_what_cannot_be_extended_safely_is_told_and_left(text: str, word: str) -> None:
    with pytest.raises(Unusable, match=word):
        with_host(text, "ghcr.io", SERVED)


def test_a_broken_file_is_named_with_its_place() -> None:
    path = "/etc/containerd/certs.d/ghcr.io/hosts.toml"
    with pytest.raises(Unusable) as raised:
        plan(SERVED, FakeFiles({path: 'a = 1\nserver "x"\n'}))
    assert str(raised.value).startswith(f"{path}:2:8: it is no TOML")


OLD = '[plugins."io.containerd.grpc.v1.cri".registry]\n'
NEW = "[plugins.'io.containerd.cri.v1.images'.registry]\n"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (f'version = 2\n{OLD}config_path = "/etc/containerd/certs.d"\n', []),
        (f"version = 3\n{NEW}config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n", []),
        ("version = 2\n", ["it is not set there", "grpc.v1.cri"]),
        ("version = 3\n", ["it is not set there", "cri.v1.images"]),
        (f'version = 2\n{OLD}config_path = "/else"\n', ["there it is '/else'"]),
        (None, ["there is no such file", "grpc.v1.cri", "cri.v1.images"]),
        ("version = \n", ["/etc/containerd/config.toml:1:11: it is no TOML"]),
    ],
)
def test_it_is_told_whether_kubernetes_reads_the_folder(
    config: str | None, said: list[str]
) -> None:
    files = FakeFiles({} if config is None else {"/etc/containerd/config.toml": config})
    notes = plan(SERVED, files).notes
    assert bool(notes) == bool(said)
    assert all(word in notes[0] for word in said)


def test_mirrors_of_the_old_kind_are_told_of() -> None:
    mirrors = '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = []\n'
    files = FakeFiles({"/etc/containerd/config.toml": f"version = 2\n{mirrors}"})
    assert "registry.mirrors" in plan(SERVED, files).notes[1]


def test_a_default_that_will_not_count_any_more_is_told_of() -> None:
    files = FakeFiles({"/etc/containerd/certs.d/_default/hosts.toml": ""})
    assert "_default/hosts.toml does not count" in plan(SERVED, files).notes[0]


def test_the_authority_of_an_https_mirror_is_named() -> None:
    served = Served("https://mirror.lan:5000", ["ghcr.io"], ca=Path("/etc/ca.pem"))
    document = tomllib.loads(with_host(None, "ghcr.io", served))
    assert document["host"]["https://mirror.lan:5000"]["ca"] == "/etc/ca.pem"
