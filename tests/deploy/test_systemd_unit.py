"""The units of deploy/, judged by systemd itself."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.app import GRACE


@pytest.fixture(scope="module")
def unit(deploy) -> Path:
    return deploy / "registry-mirror.service"


@pytest.fixture
def installed(unit, tmp_path) -> list[Path]:
    """The units as on a host where their program is installed: systemd asks for an executable."""
    copies = []
    for each in (unit, unit.with_suffix(".socket")):
        copies.append(tmp_path / each.name)
        text = each.read_text()
        copies[-1].write_text(text.replace("/opt/registry-mirror/bin/registry-mirror", "/bin/true"))
    return copies


def setting(unit: Path, key: str) -> str:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(unit)
    return parser["Service"][key]


def test_systemd_finds_nothing_to_say_about_the_units(installed, program):
    done = subprocess.run(
        [program("systemd-analyze", "Debian's systemd"), "verify", "--man=no", *installed],
        capture_output=True,
        text=True,
    )
    ours = [line for line in done.stderr.splitlines() if "registry-mirror" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_service_is_hardly_exposed(unit, program):
    # In tenths: 1.3 of 10. What is left is the network, which is its work.
    done = subprocess.run(
        [
            program("systemd-analyze", "Debian's systemd"),
            *("security", "--offline=yes", "--threshold=13"),
            unit,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_waits_for_the_end_of_the_drain(unit):
    seconds = float(setting(unit, "TimeoutStopSec").removesuffix("s"))
    assert seconds >= GRACE + 10  # some for what is cut then, and for closing
    assert setting(unit, "KillMode") == "mixed"


def test_a_mistake_in_the_configuration_is_not_tried_again(unit, tmp_path):
    """The command line of the unit is taken by the mirror, and its exit code is the unit's."""
    program, *words = setting(unit, "ExecStart").split()
    assert Path(program).name == "registry-mirror"
    broken = tmp_path / "mirror.yaml"
    broken.write_text("lisen: 127.0.0.1:5000\n")
    words[words.index("/etc/registry-mirror/mirror.yaml")] = str(broken)
    done = subprocess.run(
        [sys.executable, "-m", "mirror", *words], capture_output=True, text=True, timeout=30
    )
    assert str(done.returncode) == setting(unit, "RestartPreventExitStatus")
    assert "lisen" in done.stdout + done.stderr


def test_a_reload_is_a_command_that_the_mirror_takes(unit):
    program, *words = setting(unit, "ExecReload").split()
    assert Path(program).name == "registry-mirror"
    words[words.index("/etc/registry-mirror/mirror.yaml")] = "/nowhere/mirror.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "mirror", *words], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "/nowhere/mirror.yaml: found no such file" in done.stderr
