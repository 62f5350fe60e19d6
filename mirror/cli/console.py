"""What all commands share: where they print, how they read the configuration, how they end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console

from ..config import Config, ConfigError, load

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

CONFIGURATION_WRONG = 2
CANNOT_START = 1

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="mirror.yaml; without it, the defaults serve Docker Hub.",
    ),
]


def load_or_exit(path: Path | None) -> Config:
    """The configuration; its mistakes end the command."""
    try:
        return load(path)
    except ConfigError as error:
        err.print(str(error), markup=False)
        raise typer.Exit(CONFIGURATION_WRONG) from None


def log_nothing() -> None:
    """What goes wrong in a command is told in words: not as the log of a server, too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def give_up(message: str, status: int = 1) -> typer.Exit:
    """To be raised, when what went wrong is told."""
    err.print(f"registry-mirror: {message}", markup=False)
    return typer.Exit(status)
