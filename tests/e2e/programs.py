"""Programs run for a test: started, waited for, stopped, and nothing of them left behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ..faults.nursery import NO_AUTHORITIES, Forked

REPOSITORY = Path(__file__).parents[2]

# Daemons are in /usr/sbin, which is not on every user's PATH.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

# Which Debian package has which program.
PACKAGES = {
    "busybox": "busybox-static",
    "containerd": "containerd",
    "ctr": "containerd",
    "docker": "docker.io",
    "docker-credential-ecr-login": "amazon-ecr-credential-helper",
    "docker-credential-pass": "golang-docker-credential-helpers",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "gpg": "gnupg",
    "nginx": "nginx",
    "podman": "podman",
    "redis-server": "redis-server",
    "runc": "runc",
    "skopeo": "skopeo",
}

# Those that mount: they need root.
PRIVILEGED = {"containerd", "dockerd", "podman"}


def missing(*programs: str) -> str:
    """What is to be installed, or become, before these programs can run here; "" for nothing."""
    packages = {PACKAGES.get(name, name) for name in programs if not shutil.which(name, path=PATH)}
    wanted = [f"apt-get install {' '.join(sorted(packages))}"] if packages else []
    if PRIVILEGED.intersection(programs) and os.geteuid() != 0:
        wanted.append("be root")
    return ", ".join(wanted)


def needs(*programs: str) -> None:
    """Skips the test when a program is missing, and says what is; fails it where CI=true."""
    wanted = missing(*programs)
    if wanted:
        unavailable(f"to run this test: {wanted}")


def unavailable(reason: str) -> None:
    """Skips the test, or fails it where CI=true: there nothing may go untested unseen."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def loopback_address() -> str:
    """An address of this machine that nobody else listens on.

    The whole of 127.0.0.0/8 is the loopback interface's. A server with an address of its own has
    any port it likes, keeps it while it is stopped, and never meets another test's.
    """
    return ".".join(["127", *(str(random.randint(16, 250)) for _ in range(3))])


def accepts(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def run(
    *argv: str | Path, env: Mapping[str, str] | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. Raises AssertionError with its words when it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}{done.stderr}"
    return done


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Polls until the condition holds. Raises TimeoutError, which says what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s still not: {what}")
        time.sleep(0.02)


class Program:
    """One running process in a group of its own, its output in a file."""

    def __init__(self, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.process = self._begun(argv, env or {})

    def _begun(self, argv: list[str], env: Mapping[str, str]) -> subprocess.Popen[bytes] | Forked:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                argv,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
            )

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """As `wait_until`, but fails at once, with the process's words, when it has ended."""

        def holds() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"ended with {self.process.returncode}:\n{self.words()}")
            return condition()

        try:
            wait_until(holds, what, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.words()}") from None

    def words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and SIGKILL to its whole group if that does not end it in time.

        Returns its exit status; negative: the signal that ended it.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL, to it and to all of its group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()


class ForkedMirror(Program):
    """`argv` is what stands behind `python -m mirror`."""

    def _begun(self, argv: list[str], env: Mapping[str, str]) -> Forked:
        self.log.touch()
        return Forked("mirror", argv, self.log, {**NO_AUTHORITIES, **env})


class Programs:
    """A folder and the programs that live in it. Use as a context: leaving clears both away.

    The folder's path is short, since a unix socket's must stay below 108 bytes; pytest's `tmp_path`
    is longer. It is below /tmp, which clients unpacked beside the system share with it.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp"))
        self._programs: list[Program] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self._programs):
            program.stop()
            program.kill()  # what it left behind of its group
        unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str, *argv: str | Path, env: Mapping[str, str] | None = None) -> Program:
        """Starts a program that writes to `<name>.log` in the folder."""
        return self._keep(Program([*map(str, argv)], self.folder / f"{name}.log", env))

    def start_mirror(self, *arguments: str | Path) -> Program:
        """`python -m mirror …`, which asks no registry of the world outside."""
        return self._keep(ForkedMirror([*map(str, arguments)], self.folder / "mirror.log"))

    def _keep(self, program: Program) -> Program:
        self._programs.append(program)
        return program


def unmount_below(folder: Path) -> None:
    """Unmounts what a killed daemon left mounted, the innermost first."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split(" ")[1] for line in mounts]
    for point in sorted((p for p in points if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", point], check=False)
