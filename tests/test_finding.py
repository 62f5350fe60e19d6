"""Which mirror a command is for, when no option says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import typer

from mirror.app import CannotStart, tag_memory
from mirror.cli import console
from mirror.cli.console import find_mirror
from mirror.config import load
from mirror.storage.disk.files import StorageUnusable, prepare
from mirror.storage.disk.service import serving
from mirror.storage.disk.space import Bounds


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        console, "CONFIGURATIONS", (Path("mirror.yaml"), tmp_path / "etc" / "mirror.yaml")
    )
    monkeypatch.setattr(console, "_STORES", (tmp_path / "var", Path("data")))
    return tmp_path


@pytest.fixture
def serve() -> Iterator[object]:
    """Has a socket answered in a store."""
    opened = []

    def serve(store: Path) -> None:
        store.mkdir(parents=True, exist_ok=True)
        taken = socket.socket(socket.AF_UNIX)
        taken.bind(str(store / "control.sock"))
        taken.listen()
        opened.append(taken)

    yield serve
    for taken in opened:
        taken.close()


def config_at(path: Path, store: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"storage:\n  path: {store}\n")
    return path


def test_what_an_option_names_is_taken_whatever_runs(here, serve):
    serve(here / "var")
    named = config_at(here / "other.yaml", here / "other")
    found = find_mirror(named)
    assert (found.store, found.config, found.is_running) == (here / "other", named, False)


def test_the_mirror_that_runs_goes_before_a_configuration_beside(here, serve):
    config_at(here / "mirror.yaml", here / "mine")
    of_system = config_at(here / "etc" / "mirror.yaml", here / "service")
    serve(here / "service")
    found = find_mirror(None)
    assert (found.store, found.config, found.is_running) == (here / "service", of_system, True)


def test_a_mirror_without_a_configuration_is_found_by_its_store(here, serve):
    serve(here / "data")
    found = find_mirror(None)
    assert (found.store.resolve(), found.config) == (here / "data", None)
    assert found.is_running


def test_a_store_is_named_with_the_configuration_that_describes_it(here, serve):
    described = config_at(here / "etc" / "mirror.yaml", here / "var")
    serve(here / "var")
    found = find_mirror(None)
    assert found.config == described
    assert str(described) in str(found)


def test_of_several_that_run_none_is_chosen(here, serve, capsys):
    config_at(here / "mirror.yaml", here / "mine")
    serve(here / "mine")
    serve(here / "var")
    with pytest.raises(typer.Exit) as ended:
        find_mirror(None)
    assert ended.value.exit_code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert str(here / "var") in told
    assert str(here / "mine") in told
    assert "--config" in told


def test_where_none_runs_the_first_configuration_counts(here):
    config_at(here / "etc" / "mirror.yaml", here / "service")
    assert find_mirror(None).store == here / "service"
    config_at(here / "mirror.yaml", here / "mine")
    found = find_mirror(None)
    assert (found.store, found.is_running) == (here / "mine", False)


def test_a_socket_that_a_killed_mirror_left_is_nobody(here, serve):
    (here / "var").mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(here / "var" / "control.sock"))
    left.close()
    assert not find_mirror(None).is_running


@pytest.mark.skipif(os.geteuid() == 0, reason="root may ask every mirror")
def test_a_socket_of_another_user_counts_as_a_mirror(here, serve):
    serve(here / "var")
    (here / "var" / "control.sock").chmod(0)
    assert find_mirror(None).is_running


def test_all_mistakes_are_told_though_the_store_has_one(here, capsys):
    (here / "mirror.yaml").write_text("storage: {path: [a]}\nwerkers: 2\n")
    for named in (None, Path("mirror.yaml")):
        with pytest.raises(typer.Exit):
            find_mirror(named)
        told = capsys.readouterr().err
        assert "storage.path: found a list" in told
        assert "write workers" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_what_another_user_keeps_to_itself_is_told_in_words(here):
    """A folder that may not be entered: each command, and serve, says so, and whose it is."""
    service = config_at(here / "etc" / "mirror.yaml", here / "store")
    (here / "store").mkdir(mode=0o700)
    config = load(service)
    for folder in (here, *here.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    service.parent.chmod(0o700)
    os.seteuid(65534)
    try:
        assert find_mirror(None).config is None
        with pytest.raises(StorageUnusable, match="it belongs to root: try as that user"):
            prepare(here / "store")
        with pytest.raises(CannotStart, match="try as the user who runs the mirror"):
            asyncio.run(_enter(tag_memory(config)))
    finally:
        os.seteuid(0)


async def _enter(context: AbstractAsyncContextManager[object]) -> None:
    async with context:
        pass


def test_a_mirror_that_is_about_to_take_commands_is_waited_for(here, serve, monkeypatch):
    config = config_at(here / "mirror.yaml", here / "mine")
    (here / "mine").mkdir()
    looked = []

    def look(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 3:
            serve(here / "mine")

    monkeypatch.setattr(console.time, "sleep", look)
    with serving(here / "mine", Bounds(1 << 30, 1 << 20)):
        assert find_mirror(config).is_running
    assert len(looked) == 3


def test_a_mirror_that_ends_is_waited_for(here, monkeypatch):
    config = config_at(here / "mirror.yaml", here / "mine")
    (here / "mine").mkdir()
    with contextlib.ExitStack() as held:
        held.enter_context(serving(here / "mine", Bounds(1 << 30, 1 << 20)))
        monkeypatch.setattr(console.time, "sleep", lambda _: held.close())
        assert not find_mirror(config).is_running
