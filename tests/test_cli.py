"""The commands as a user meets them: what they print, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest

from .commands import run
from .waiting import eventually

COMMAND = [sys.executable, "-m", "mirror"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_hangup_while_it_starts_ends_nothing() -> None:
    """As `systemctl reload` may send it, before anything is read or listened on."""
    code = (
        "import os, signal, sys, mirror.cli as cli, mirror.cli.serving as serving\n"
        "def reads(path):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    raise SystemExit(7)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "serving.load = reads\n"
        "sys.argv[1:] = ['serve']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 7


def test_what_serves_imports_nothing_that_only_commands_need() -> None:
    """They would take as long as all that serves."""
    code = (
        "import sys, mirror.cli as cli, mirror.cli.serving as serving\n"
        "serving.asyncio.run = lambda main: (main.close(), print(*sys.modules))\n"
        "sys.argv[1:] = ['serve']\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    imported = set(done.stdout.split())
    assert "aiohttp" in imported
    assert not imported & {"typer", "rich", "jinja2", "sqlalchemy", "redis", "cryptography"}


@pytest.mark.parametrize("words", [("check",), ("verify",), ("ready", "redis:7"), ("version",)])
def test_a_command_whose_output_finds_no_room_says_so(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    with open("/dev/full", "wb") as full:
        done = told_to(words, tmp_path, full.fileno())
    assert done.returncode == 1
    assert done.stderr == "registry-mirror: standard output: No space left on device\n"


@pytest.mark.parametrize("words", [("check",), ("--help",)])
def test_a_command_whose_reader_has_left_says_nothing(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = told_to(words, tmp_path, writer)
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def told_to(words: tuple[str, ...], folder: Path, stdout: int) -> subprocess.CompletedProcess[str]:
    """Runs a command whose standard output goes there."""
    config = folder / "mirror.yaml"
    config.write_text(f"storage: {{path: {folder / 'store'}}}\n")
    argv = [*COMMAND, *words]
    if words[0] in ("check", "verify", "ready"):
        argv += ["--config", str(config)]
    return subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)


class Served:
    """A mirror of its own process, on free ports."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.port, self.admin = free_port(), free_port()
        self.config = folder / "mirror.yaml"
        self.config.write_text(
            f"listen: 127.0.0.1:{self.port}\nadmin: 127.0.0.1:{self.admin}\n"
            f"workers: {workers}\nstorage: {{path: {folder / 'store'}}}\n"
        )
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--config", self.config], stderr=self.log.open("w")
        )

    def get(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def answers(self) -> bool:
        try:
            return self.get(self.port, "/v2/") == "{}"
        except OSError:
            return False

    def is_ready(self) -> bool:
        try:
            return '"status": "ready"' in self.get(self.admin, "/readyz")
        except OSError:
            return False


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path, request.param)
    yield served
    if served.process.poll() is None:
        served.process.kill()
    served.process.wait()


async def test_serve_answers_counts_and_drains(served: Served) -> None:
    await eventually(served.is_ready, 30)
    # Whoever waited for it may pull: a worker that lives does not listen yet.
    assert served.answers()
    assert "registry_mirror_cache_max_bytes" in served.get(served.admin, "/metrics")
    await eventually(
        lambda: 'requests_total{kind="ping",outcome="hit"' in served.get(served.admin, "/metrics")
    )
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert "Traceback" not in served.log.read_text()
    assert not served.answers()


async def test_a_port_in_use_is_told(tmp_path: Path, served: Served) -> None:
    await eventually(served.answers, 30)
    second = tmp_path / "second.yaml"
    second.write_text(
        f"listen: 127.0.0.1:{served.port}\nadmin: 127.0.0.1:{free_port()}\n"
        f"storage: {{path: {tmp_path / 'other'}}}\n"
    )
    failed = run("serve", "--config", second)
    assert failed.status == 1
    assert f"listen: 127.0.0.1:{served.port} cannot be listened on" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_f32_a_storage_path_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    config = tmp_path / "mirror.yaml"
    config.write_text(f"listen: {free_port()}\nadmin: {free_port()}\nstorage: {{path: store}}\n")
    failed = run("serve", "--config", config, cwd=tmp_path)
    assert failed.status == 1
    assert "storage.path store cannot be used" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("command", ["serve", "check", "verify"])
def test_all_mistakes_are_told_at_once(tmp_path: Path, command: str) -> None:
    config = tmp_path / "mirror.yaml"
    config.write_text("lisen: 1\nstorage:\n  max_size: 50GBB\n")
    failed = run(command, "--config", config)
    assert failed.status == 2
    assert f"{config}:1: lisen: found a key that is not known, write listen" in failed.stderr
    assert f"{config}:3: storage.max_size: found '50GBB'" in failed.stderr
    assert failed.stdout == ""


def test_check_tells_of_room_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(f"storage: {{path: {tmp_path}, min_free: 900TiB}}\n")
    done = run("check", "--config", file)
    assert done.status == 0
    assert "storage: storage.min_free is" in done.stderr
    assert "nothing will be kept" in done.stderr


def test_check_says_what_is_good(tmp_path: Path) -> None:
    config = tmp_path / "mirror.yaml"
    config.write_text("listen: 127.0.0.1:5999\n")
    good = run("check", "--config", config)
    assert good.status == 0
    assert "good. Serves docker.io on 127.0.0.1:5999." in good.stdout


def test_verify_finds_what_is_damaged_and_moves_it_aside(tmp_path: Path) -> None:
    config = tmp_path / "mirror.yaml"
    config.write_text(f"storage: {{path: {tmp_path / 'store'}}}\n")
    assert run("verify", "--config", config).status == 0
    sound, rotten = Digest.of(b"sound"), Digest.of(b"fresh")
    for data, digest in ((b"sound", sound), (b"rotten", rotten)):
        path = tmp_path / "store" / "blobs" / "sha256" / digest.hex[:2] / digest.hex
        path.parent.mkdir()
        path.write_bytes(data)
    verified = run("verify", "--config", config)
    assert verified.status == 1
    assert f"damaged: {rotten}" in verified.stdout
    assert "2 pieces of content: 1 sound, 1 damaged." in verified.stdout
    assert len(list((tmp_path / "store" / "quarantine").iterdir())) == 1
    assert "1 pieces of content: 1 sound, 0 damaged." in run("verify", "--config", config).stdout
