"""Docker's daemon.json: the mirror comes in, and nothing that is there is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.clients.daemon_json import plan, with_mirror
from mirror.clients.plan import Served, Unusable

from .files import FakeFiles

URL = "http://mirror.lan:5000"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f'{{\n  "registry-mirrors": [\n    "{URL}"\n  ]\n}}\n'),
        (" \n", f'{{\n  "registry-mirrors": [\n    "{URL}"\n  ]\n}}\n'),
        ("{}\n", f'{{\n  "registry-mirrors": ["{URL}"]\n}}\n'),
        ('{"debug": true}', f'{{"debug": true, "registry-mirrors": ["{URL}"]}}'),
        (
            '{\n\t"debug": true,\n\t"dns": ["1.1.1.1"]\n}\n',
            f'{{\n\t"debug": true,\n\t"dns": ["1.1.1.1"],\n\t"registry-mirrors": ["{URL}"]\n}}\n',
        ),
        ('{"registry-mirrors": []}', f'{{"registry-mirrors": ["{URL}"]}}'),
        ('{"registry-mirrors": [ "a" ]}', f'{{"registry-mirrors": [ "{URL}", "a" ]}}'),
        (
            '{\n "registry-mirrors": [\n  "a",\n  "b"\n ]\n}',
            f'{{\n "registry-mirrors": [\n  "{URL}",\n  "a",\n  "b"\n ]\n}}',
        ),
        ('\ufeff{"a": "]}"}', f'\ufeff{{"a": "]}}", "registry-mirrors": ["{URL}"]}}'),
        (
            '{\r\n  "a": {"registry-mirrors": 1}\r\n}\r\n',
            f'{{\r\n  "a": {{"registry-mirrors": 1}},\r\n  "registry-mirrors": ["{URL}"]\r\n}}\r\n',
        ),
    ],
)
def test_the_mirror_comes_before_others_and_the_rest_stays_to_the_byte(
    before: str, after: str
) -> None:
    assert with_mirror(before, URL) == after
    assert with_mirror(after, URL) == after


def test_a_mirror_that_is_there_with_a_slash_is_there() -> None:
    text = f'{{"registry-mirrors": ["https://other.example", "{URL}/"]}}'
    assert with_mirror(text, URL) == text


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ('{\n  "debug": true,\n  1}', 3, 3, "no JSON"),
        ('{"debug": true', 1, 15, "no JSON"),
        ("{} {}", 1, 4, "no JSON"),
        ("\n [1]", 2, 2, "no JSON object"),
        ('{"a": 1,\n "b": 2,\n "a": 3}', 3, 2, "a is there twice"),
        ('{\n "registry-mirrors": "http://a"}', 2, 22, "not a list of URLs"),
        ('{"registry-mirrors": [1]}', 1, 22, "not a list of URLs"),
        ('{"registry-mirrors": null}', 1, 22, "not a list of URLs"),
        ("[" * 100_000, 0, 0, "nested too deeply"),
    ],
)
def test_what_is_broken_is_named_by_line_and_column(
    text: str, line: int, column: int, word: str
) -> None:
    with pytest.raises(Unusable, match=word) as raised:
        with_mirror(text, URL)
    assert (raised.value.line, raised.value.column) == (line, column)


def test_docker_is_told_what_it_asks_no_mirror_for() -> None:
    made = plan(Served(URL, ["docker.io", "ghcr.io"]), FakeFiles())
    assert "ghcr.io" in made.notes[0]
    assert made.reload == "systemctl reload docker"
    with pytest.raises(Unusable, match=r"does not serve docker\.io"):
        plan(Served(URL, ["ghcr.io"]), FakeFiles())


def test_a_flag_that_dockerd_refuses_beside_the_key_is_named() -> None:
    unit = "/etc/systemd/system/docker.service.d/mirror.conf"
    files = FakeFiles({unit: "ExecStart=dockerd --registry-mirror=http://a"})
    (note,) = plan(Served(URL, ["docker.io"]), files).notes
    assert note.startswith(unit)


def test_where_docker_hub_is_not_the_default_its_name_stands_in_the_url() -> None:
    made = plan(Served(URL, ["docker.io", "ghcr.io"], default="ghcr.io"), FakeFiles())
    assert json.loads(made.changes[0].after) == {"registry-mirrors": [f"{URL}/docker.io"]}


def test_the_authority_of_an_https_mirror_goes_where_docker_looks_for_it() -> None:
    served = Served("https://mirror.lan:5000", ["docker.io"], ca=Path("/tmp/ca.pem"))
    made = plan(served, FakeFiles({"/tmp/ca.pem": "PEM"}))
    assert [str(change.path) for change in made.changes] == [
        "/etc/docker/daemon.json",
        "/etc/docker/certs.d/mirror.lan:5000/ca.crt",
    ]
    with pytest.raises(Unusable, match=r"/tmp/ca.pem is not there"):
        plan(served, FakeFiles())
