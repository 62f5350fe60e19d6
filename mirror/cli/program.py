"""All commands, as their arguments are read; serve, verify, version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..config import Config
from ..logs import drain, log_json, open_streams
from .archives import export, import_
from .beginning import completion, get_ready_to_complete, init
from .cached import images, purge
from .checking import check
from .collecting import gc
from .console import (
    CannotPrint,
    ConfigOption,
    drop_output,
    err,
    explained,
    find_mirror,
    give_up,
    load_or_exit,
    out,
    register,
    watch_output,
)
from .doctor import doctor
from .far import far
from .goings import log, status, why
from .hosting.accounts import org, user
from .hosting.backups import backup, restore
from .hosting.repositories import repo, retention
from .hosting.robots import robot, token
from .hosting.webhooks import audit, webhook
from .running import reload, restart
from .serving import CANNOT_START, be_started, serve_until_told
from .setup import setup
from .syncing import sync
from .tags import pin, tags, unpin
from .top import top
from .warming import ready, warm

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,  # a command of its own prints it
)
DAMAGED = 1


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


def run() -> None:
    """Does what the arguments say."""
    open_streams()
    watch_output()
    get_ready_to_complete()
    try:
        app()
    except CannotPrint as error:
        drop_output()
        raise SystemExit(give_up(f"standard output: {error}").exit_code) from None
    finally:
        drain()  # a command's last words may be its mistake's


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version."),
    ] = False,
) -> None:
    """A pull-through mirror for container registries."""


@explained("serve --config mirror.yaml", failed="it could not start")
def serve(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="mirror.yaml; without it, the defaults serve Docker Hub.",
        ),
    ] = None,
) -> None:
    """Serve pulls until told to stop (SIGTERM drains, a second one cuts)."""
    be_started()
    status = serve_until_told(load_or_exit(config), config)
    if status:
        raise typer.Exit(status)


@explained("verify --config mirror.yaml", failed="damaged content was found")
def verify(config: ConfigOption = None) -> None:
    """Hash all cached content anew, and move what is damaged aside (exit 1 if any was)."""
    loaded = load_or_exit(find_mirror(config).config)
    log_json()
    from ..app import CannotStart

    try:
        sound, damaged = asyncio.run(_verify(loaded))
    except CannotStart as error:
        err.print(f"registry-mirror: {error}", markup=False)
        raise typer.Exit(CANNOT_START) from None
    out.print(f"{sound + damaged} pieces of content: {sound} sound, {damaged} damaged.")
    if damaged:
        out.print(f"What was damaged is in {loaded.storage.path / 'quarantine'}, to be looked at.")
        raise typer.Exit(DAMAGED)


@explained("version")
def version() -> None:
    """Print the version."""
    out.print(__version__)


register(
    app,
    audit,
    backup,
    check,
    completion,
    doctor,
    export,
    gc,
    images,
    import_,
    init,
    log,
    pin,
    purge,
    ready,
    reload,
    restart,
    restore,
    serve,
    setup,
    status,
    tags,
    top,
    unpin,
    verify,
    version,
    warm,
    why,
)
app.add_typer(sync, name="sync")
app.add_typer(far, name="far")
app.add_typer(user, name="user")
app.add_typer(org, name="org")
app.add_typer(robot, name="robot")
app.add_typer(token, name="token")
app.add_typer(repo, name="repo")
app.add_typer(retention, name="retention")
app.add_typer(webhook, name="webhook")


async def _verify(config: Config) -> tuple[int, int]:
    from ..app import verify as rehash

    sound = damaged = 0
    with err.status("hashing …") as status:
        async for digest, is_sound in rehash(config):
            if is_sound:
                sound += 1
            else:
                damaged += 1
                out.print(f"damaged: {digest}")
            status.update(f"hashed {sound + damaged}")
    return sound, damaged
