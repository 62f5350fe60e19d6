"""How one begins: a configuration to edit, and a shell that completes the commands."""

from __future__ import annotations

import os
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from .console import err, explained, give_up, out

_NAME = "mirror.yaml"
_COMPLETING = "_REGISTRY_MIRROR_COMPLETE"
_PRINTED = Path("-")


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@explained(
    "init", "init /etc/registry-mirror/mirror.yaml", "init - | less", failed="nothing was written"
)
def init(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="Where to; - prints it.", show_default=True)
    ] = Path(_NAME),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration with every key, its default and what it is for. It serves Docker Hub
    as it stands."""
    text = (files("mirror") / _NAME).read_text(encoding="utf-8")
    if path == _PRINTED:
        out.print(text, markup=False, end="")
        return
    if path.is_dir():
        path /= _NAME
    try:
        _write(path, text, force)
    except FileExistsError:
        raise give_up(f"{path} is there already, and was left alone: --force replaces it") from None
    except OSError as error:
        raise give_up(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
        ) from None
    err.print(f"{path}: written. Edit it, then:", markup=False)
    err.print(f"    registry-mirror check --config {path}", markup=False)
    err.print(f"    registry-mirror serve --config {path}", markup=False)


def _write(path: Path, text: str, force: bool) -> None:
    """All of it or nothing. Raises FileExistsError unless it may replace a file, and OSError."""
    if not force and os.path.lexists(path):
        raise FileExistsError
    new = Path(f"{path}.{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8")
        if force:
            new.replace(path)
        else:
            os.link(new, path)  # fails where somebody else was faster
    finally:
        new.unlink(missing_ok=True)


def get_ready_to_complete() -> None:
    """Where a shell asks by the script of `completion`, it is answered in its own words."""
    if _COMPLETING in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()


@explained(
    "completion bash > /etc/bash_completion.d/registry-mirror",
    'completion zsh > "${fpath[1]}/_registry-mirror"',
    "completion fish > ~/.config/fish/completions/registry-mirror.fish",
)
def completion(
    shell: Annotated[Shell, typer.Argument(help="Whose script is printed.")],
) -> None:
    """Print a script by which a shell completes commands and options."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(
        prog_name="registry-mirror", complete_var=_COMPLETING, shell=shell.value
    )
    out.print(script, markup=False)
