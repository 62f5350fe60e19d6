"""Debian's PostgreSQL for tests: a server of a test session's own, reached by its Unix socket."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

_STARTS = 60.0  # seconds

# What is in it ends with the test.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
}


class Postgres:
    """A server, which can be stopped and started again. `folder` has its socket."""

    def __init__(self, programs: Path, folder: Path, user: int | None) -> None:
        self._programs = programs
        self.folder = folder
        self._user = user
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def make(self, template: str = "template0") -> str:
        """The name of a new database."""
        name = f"test{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (self.folder / "log").open("ab") as said:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self.folder / "data", "-k", self.folder, "-h", ""),
                    *settings,
                ],
                stdout=said,
                stderr=said,
                user=self._user,
                cwd="/",
            )
        deadline = time.monotonic() + _STARTS
        while not self._is_up():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: connections are cut."""
        if self._process is not None:
            self._process.send_signal(2)  # SIGINT: a fast shutdown
            self._process.wait(60)
            self._process = None

    def initialise(self) -> None:
        subprocess.run(
            [
                self._programs / "initdb",
                *("-D", self.folder / "data", "-U", "postgres", "-A", "trust"),
                *("--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"),
            ],
            check=True,
            capture_output=True,
            user=self._user,
            cwd="/",
        )

    def _is_up(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Skips the test where there is none, but in CI."""
    # Outside of PATH, a folder for each version.
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not there:
        if os.environ.get("CI") == "true":
            raise RuntimeError("there is no PostgreSQL: run deploy/debian-programs.sh")
        pytest.skip("there is no PostgreSQL (Debian's package postgresql)")
    # Not below pytest's folders, which only their user may enter; and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = _somebody() if os.geteuid() == 0 else None  # PostgreSQL does not run as root
    if user is not None:
        os.chown(folder, user, -1)
    server = Postgres(there[-1].parent, folder, user)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _somebody() -> int:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise RuntimeError("there is neither a user postgres nor nobody")
