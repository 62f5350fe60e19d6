"""What is shipped: the wheel, installed where nothing of the source is, and its shells' help."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..e2e.programs import REPOSITORY, needs, unavailable

pytestmark = pytest.mark.xdist_group("wheel")  # the wheel is built once for all

ZSH = """
zmodload zsh/zpty
zpty shell "zsh -f"
zpty -w shell "PS1=; TERM=dumb; autoload -U compinit; compinit -u -D"
zpty -w shell "eval \\"\\$(registry-mirror completion zsh)\\"; print RE''ADY"
zpty -r shell before "*READY*"
zpty -w -n shell $'registry-mirror verif\\t'
zpty -r shell typed "*verify*"
print -r -- $typed
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, and the archive of the source."""
    if find_spec("hatchling") is None:
        unavailable("to run this test: pip install hatchling")
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def programs(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a fresh environment: with the wheel, and what it needs from
    the environment of the tests, whose own mirror is not there."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--quiet")
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", *built.glob("*.whl"))
    needed = sysconfig.get_path("purelib")
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "needed.pth").write_text(f"{needed}\n")
    return folder / "bin"


def run(*words: str | Path, cwd: Path | None = None, **variables: str) -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_in_the_wheel_and_in_the_source(built: Path) -> None:
    shipped = (REPOSITORY / "mirror.yaml").read_bytes()
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        assert opened.read("mirror/mirror.yaml") == shipped
    with tarfile.open(source) as archive:
        assert f"{source.name.removesuffix('.tar.gz')}/mirror.yaml" in archive.getnames()


def test_what_is_installed_begins_with_init(programs: Path, tmp_path: Path) -> None:
    command = programs / "registry-mirror"
    where = run(programs / "python", "-c", "import mirror; print(mirror.__file__)", cwd=tmp_path)
    assert where.startswith(str(programs.parent))
    assert run(command, "--version", cwd=tmp_path) == run(command, "version", cwd=tmp_path)
    run(command, "init", cwd=tmp_path)
    assert (tmp_path / "mirror.yaml").read_text() == (REPOSITORY / "mirror.yaml").read_text()
    assert "good" in run(command, "check", "--config", "mirror.yaml", cwd=tmp_path)


def test_bash_completes_commands_and_options(programs: Path) -> None:
    needs("bash")
    asked = (
        'eval "$(registry-mirror completion bash)"\n'
        'asks() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
        " _registry_mirror_completion registry-mirror; echo ${COMPREPLY[@]}; }\n"
        "asks registry-mirror verif\n"
        "asks registry-mirror check --onl\n"
    )
    told = run("bash", "-c", asked, PATH=f"{programs}:{os.environ['PATH']}")
    assert told.split() == ["verify", "--online"]


def test_zsh_completes_commands(programs: Path) -> None:
    needs("zsh")
    told = run("zsh", "-f", "-c", ZSH, PATH=f"{programs}:{os.environ['PATH']}")
    assert "verify" in told
