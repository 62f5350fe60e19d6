"""The first commands that anybody types: --help, --version, init."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from mirror import __version__
from mirror.cli.program import app

from .commands import run

SHIPPED = Path(__file__).parent.parent / "mirror.yaml"


def test_every_command_has_an_example_and_says_how_it_ends() -> None:
    def look(name: str, command: object) -> None:
        below = getattr(command, "commands", None)
        for word, each in (below or {}).items():
            look(f"{name} {word}", each)
        if not below:
            epilog = str(getattr(command, "epilog", None))
            assert f"$ {name}" in epilog, name
            assert "$ registry-mirror skopeo" not in epilog, name
            assert "Exit status: 0" in epilog, name

    look("registry-mirror", get_command(app))


def test_the_version_is_told_by_an_option_and_by_a_command() -> None:
    assert run("--version").stdout == run("version").stdout == f"{__version__}\n"


def test_init_writes_a_configuration_that_check_finds_good(tmp_path: Path) -> None:
    done = run("init", cwd=tmp_path)
    assert done.status == 0
    assert "registry-mirror serve --config mirror.yaml" in done.stderr
    assert (tmp_path / "mirror.yaml").read_bytes() == SHIPPED.read_bytes()
    assert run("check", "--config", "mirror.yaml", cwd=tmp_path).status == 0


def test_init_leaves_alone_what_is_there_unless_it_is_forced(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("listen: :5000\n")
    done = run("init", file)
    assert done.status == 1
    assert "is there already" in done.stderr
    assert file.read_text() == "listen: :5000\n"
    assert run("init", "--force", file).status == 0
    assert file.read_bytes() == SHIPPED.read_bytes()
    assert os.listdir(tmp_path) == ["mine.yaml"]


def test_init_prints_and_names_what_cannot_be_written(tmp_path: Path) -> None:
    assert run("init", "-").stdout == SHIPPED.read_text()
    done = run("init", tmp_path / "nowhere" / "mirror.yaml")
    assert done.status == 1
    assert "nowhere/mirror.yaml cannot be written: no such file or directory" in done.stderr
    assert run("init", tmp_path).status == 0
    assert (tmp_path / "mirror.yaml").is_file()


def test_a_shell_completes_commands_by_the_script_that_is_printed() -> None:
    assert "_REGISTRY_MIRROR_COMPLETE" in run("completion", "bash").stdout
    asked = {"COMP_WORDS": "registry-mirror do", "COMP_CWORD": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("registry-mirror")],
        env={**os.environ, **asked, "_REGISTRY_MIRROR_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["doctor"]
    assert "-completion" not in run("--help").stdout  # one way to have it
