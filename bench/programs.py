"""Programs run for a measurement: started, waited for, their costs read, and stopped."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "bench/work"
"""What is kept between two runs."""

# Servers are in /usr/sbin, which is not on every user's PATH.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PACKAGES = {"nginx": "nginx-light"}
_DRAYAGE = "0.2.9"
_TICKS = os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """A peer or a tool cannot be had here; the message says what to do."""


def find(name: str) -> str:
    """The program's path. Raises Unavailable."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise Unavailable(f"{name} is not installed: apt-get install {_PACKAGES.get(name, name)}")
    return path


def drayage() -> str:
    """The path of this peer, which is a package of PyPI: installed once, in an environment of its
    own, by one process at a time. Raises Unavailable."""
    folder = WORK / f"drayage-{_DRAYAGE}"
    program = folder / "bin/drayage"
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "drayage.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if program.exists():
            return str(program)
        try:
            venv.create(folder, with_pip=True, clear=True)
            pip = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"drayage=={_DRAYAGE}"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "stderr", None) or str(error).encode()
            last = words.decode(errors="replace").strip().rpartition("\n")[2]
            raise Unavailable(f"drayage {_DRAYAGE} cannot be installed: {last}") from error
    return str(program)


def allow_descriptors() -> None:
    """As many as the system lets this process have, and those that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cost:
    """What a program used while something was measured: CPU seconds of it and its children; in
    bytes, the peaks of their resident memory added up, and the largest of them; what they took out
    of files by read and sendfile, wherever it was (and what they read from pipes); and what of it
    had to come from the disk."""

    cpu: float = 0.0
    memory: int = 0
    largest: int = 0
    taken: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Memory:
    """Of a program and its children now, in bytes. `resident` counts what they share once for each
    of them, `own` (PSS) once for all."""

    resident: int
    own: int


class Program:
    """One running program with its children, its words in a file."""

    def __init__(
        self, argv: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._argv = argv
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            return subprocess.Popen(
                self._argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
            )

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._log.parent

    def start_again(self) -> None:
        """Once it was stopped."""
        self._process = self._started()

    def wait_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Polls; fails with the program's words when it has ended, or the time has."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._process.args!r} is not ready:\n{self.words()}")
            time.sleep(0.02)

    def words(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for it and its children when that does not end it."""
        family = self._family()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    @contextmanager
    def cost(self) -> Iterator[Cost]:
        """Filled in when the block ends."""
        for pid in self._family():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        cost, cpu, (taken, disk) = Cost(), self.cpu(), self._read()
        yield cost
        cost.cpu = self.cpu() - cpu
        cost.taken, cost.disk = (
            now - then for now, then in zip(self._read(), (taken, disk), strict=True)
        )
        peaks = [_peak_memory(pid) for pid in self._family()]
        cost.memory, cost.largest = sum(peaks), max(peaks)

    def cpu(self) -> float:
        """CPU seconds of it and its children since they were started."""
        return sum(map(_cpu_seconds, self._family()))

    def memory(self) -> Memory:
        found = [_fields(pid, "smaps_rollup") for pid in self._family()]
        return Memory(
            resident=1024 * sum(fields.get("Rss", 0) for fields in found),
            own=1024 * sum(fields.get("Pss", 0) for fields in found),
        )

    def wait_until_idle(self, seconds: float = 180, every: float = 1.0) -> None:
        """Until it uses less than a fiftieth of a core, looked at so often (in seconds)."""
        before = [self.cpu()]

        def is_idle() -> bool:
            time.sleep(every)
            before.append(self.cpu())
            return before[-1] - before[-2] < every / 50

        self.wait_until(is_idle, seconds)

    def _read(self) -> tuple[int, int]:
        found = [_fields(pid, "io") for pid in self._family()]
        return (
            sum(fields.get("rchar", 0) for fields in found),
            sum(fields.get("read_bytes", 0) for fields in found),
        )

    def _family(self) -> list[int]:
        """Its process id and those of its children and theirs."""
        family = [self._process.pid]
        for pid in family:
            with suppress(OSError):
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    family += map(int, children.read_text().split())
        return family


def _cpu_seconds(pid: int) -> float:
    try:
        # The name in parentheses may hold anything, spaces too.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_memory(pid: int) -> int:
    return _fields(pid, "status").get("VmHWM", 0) * 1024


def _fields(pid: int, name: str) -> dict[str, int]:
    """The numbers in a file of /proc of this process; memory in KiB. Empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
    except OSError:
        return {}
    found = (re.match(r"(\w+):\s+(\d+)( kB)?$", line) for line in lines)
    return {field[1]: int(field[2]) for field in found if field}
