"""`make run` says what it is at: no step is silent, and one that fails shows why."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from ..e2e.programs import REPOSITORY


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "environment", REPOSITORY / "deploy/environment.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SILENT", 0.05)
    return module


def test_a_program_that_is_silent_is_said_to_be_at_it(
    environment: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import time; print('busy with x'); time.sleep(0.4)"
    assert environment.run([sys.executable, "-c", code], environment.said) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(line.endswith("s: busy with x") for line in said)
    assert said[-1].startswith("      done in")


def test_a_program_that_fails_shows_what_it_said(
    environment: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; print('no such package'); sys.exit(3)"
    assert environment.run([sys.executable, "-c", code], environment.said) == 3
    told = capsys.readouterr().err
    assert told.startswith("no such package\nfailed after")


def test_pip_s_lines_say_how_many_packages_and_which(environment: ModuleType) -> None:
    pip = environment.Pip()
    assert pip("Obtaining file:///src\n") == "asking for packages"
    assert pip("Collecting aiohttp<3.15,>=3.14 (from x)\n") == (
        "found 1 packages, the last is aiohttp<3.15,>=3.14"
    )
    downloading = "  Downloading aiohttp-3.14.5-cp311-cp311-linux_x86_64.whl (1.9 MB)\n"
    assert pip(downloading) == "found 1 packages, downloading aiohttp 3.14.5"
    assert pip("  Downloading odd\n") == "found 1 packages, downloading odd "
    assert pip("Installing collected packages: a, b, c\n") == "writing 3 packages"
