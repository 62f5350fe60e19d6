"""registries.conf: a registry is extended where it is defined, else a file of ours defines it."""

from __future__ import annotations

import tomllib

import pytest

from mirror.clients.plan import Served, Unusable
from mirror.clients.registries_conf import plan

from .files import FakeFiles

SERVED = Served("http://mirror.lan:5000", ["docker.io", "ghcr.io"])
OURS = "/etc/containers/registries.conf.d/registry-mirror.conf"
MAIN = "/etc/containers/registries.conf"
MIRROR = '[[registry.mirror]]\nlocation = "mirror.lan:5000/ghcr.io"\ninsecure = true\n'


def after(files: FakeFiles, served: Served = SERVED) -> dict[str, str]:
    return {str(change.path): change.after for change in plan(served, files).changes}


def test_registries_that_nobody_defines_go_into_a_file_of_ours() -> None:
    made = after(FakeFiles())
    assert list(made) == [OURS]
    assert tomllib.loads(made[OURS])["registry"] == [
        {
            "prefix": "docker.io",
            "location": "docker.io",
            "mirror": [{"location": "mirror.lan:5000", "insecure": True}],
        },
        {
            "prefix": "ghcr.io",
            "location": "ghcr.io",
            "mirror": [{"location": "mirror.lan:5000/ghcr.io", "insecure": True}],
        },
    ]
    assert after(FakeFiles(made)) == made


def test_a_registry_that_is_defined_is_extended_where_it_is_before_its_other_mirrors() -> None:
    head = '# ours\nunqualified-search-registries = ["docker.io"]\n\n[[registry]]\n'
    tail = '# slow\n[[registry.mirror]]\nlocation = "old"\n\n[[registry]]\nlocation = "quay.io"\n'
    files = FakeFiles({MAIN: f'{head}location = "ghcr.io" # theirs\n{tail}'})
    made = after(files)
    assert made[MAIN] == f'{head}location = "ghcr.io" # theirs\n{MIRROR}\n{tail}'
    assert "ghcr.io" not in made[OURS]
    assert after(FakeFiles(made))[OURS] == made[OURS]


def test_a_registry_without_mirrors_is_extended_before_the_next_table() -> None:
    one, two = '[[registry]]\nlocation = "ghcr.io"\n', '[[registry]]\nlocation = "quay.io"\n'
    assert after(FakeFiles({MAIN: one + two}))[MAIN] == f"{one}{MIRROR}\n{two}"
    assert after(FakeFiles({MAIN: two + one}))[MAIN] == f"{two}{one}\n{MIRROR}"


def test_of_several_definitions_the_last_counts() -> None:
    drop_in = "/etc/containers/registries.conf.d/50-site.conf"
    text = '[[registry]]\nprefix = "ghcr.io"\nlocation = "ghcr.io"\n'
    made = after(FakeFiles({MAIN: text, drop_in: text}))
    assert sorted(made) == sorted([drop_in, OURS])


def test_tls_needs_no_insecure() -> None:
    made = after(FakeFiles(), Served("https://mirror.lan:5000", ["docker.io"]))
    assert "insecure" not in made[OURS]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[[registry]]\nlocation = "ghcr.io"\nblocked = true\n', "is blocked there"),
        (
            '[[registry]]\nlocation = "ghcr.io"\n[[registry.mirror]]\n'
            'location = "mirror.lan:5000/ghcr.io"\n',
            "without insecure",
        ),
        ('registry = [{location = "ghcr.io"}]\n', "by hand"),
        ("[registries.search]\nregistries = ['docker.io']\n", "old format"),
        ("registry = 1\n", "no list of tables"),
        ('[[registry]]\nlocation "x"\n', ":2:10: it is no TOML"),
    ],
)
def test_what_cannot_be_extended_safely_is_told_and_left(text: str, word: str) -> None:
    with pytest.raises(Unusable, match=word) as raised:
        plan(SERVED, FakeFiles({MAIN: text}))
    assert str(raised.value).startswith(MAIN)
