"""A fresh user of this machine without rights, as whom programs are run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Someone:
    """A user with an empty home folder and a range of subordinate ids."""

    name: str
    home: Path

    def run(self, *words: str | Path, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command as this user, in the home folder, with nothing of our environment but
        PATH."""
        runtime = self.home / "run"
        environment = {"HOME": self.home, "PATH": os.defpath, "XDG_RUNTIME_DIR": runtime}
        settings = [f"{key}={value}" for key, value in environment.items()]
        return subprocess.run(
            ["runuser", "-u", self.name, "--", "env", "-i", *settings, *map(str, words)],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def do(self, *words: str | Path, seconds: float = 120) -> str:
        """As `run`; what it printed. Raises AssertionError with its words when it fails."""
        done = self.run(*words, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()


@contextlib.contextmanager
def someone() -> Iterator[Someone]:
    """Makes the user, and clears all of it away: processes, home and name. Needs root."""
    home = Path(tempfile.mkdtemp(prefix="user-", dir="/tmp"))
    name = f"mirror-{os.getpid()}"
    subprocess.run(
        ["useradd", "--no-create-home", "--home-dir", home, "--shell", "/bin/sh", name], check=True
    )
    (home / "run").mkdir(mode=0o700)
    shutil.chown(home, name, name)
    shutil.chown(home / "run", name, name)
    try:
        yield Someone(name, home)
    finally:
        _end_processes_of(home.stat().st_uid)
        subprocess.run(["userdel", name], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def _end_processes_of(uid: int) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == uid:
                os.kill(int(process.name), signal.SIGKILL)
