"""Programs run for a measurement: started, waited for, their costs read, and stopped."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Servers are in /usr/sbin, which is not on every user's PATH.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PACKAGES = {"nginx": "nginx-light"}
_TICKS = os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """A peer or a tool cannot be had here; the message says what to do."""


def find(name: str) -> str:
    """The program's path. Raises Unavailable."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise Unavailable(f"{name} is not installed: apt-get install {_PACKAGES.get(name, name)}")
    return path


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
    bytes, the peaks of their resident memory added up, and the largest of them."""

    cpu: float = 0.0
    memory: int = 0
    largest: int = 0


class Program:
    """One running program with its children, its words in a file."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

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
        cost, before = Cost(), self._cpu()
        yield cost
        cost.cpu = self._cpu() - before
        peaks = [_peak_memory(pid) for pid in self._family()]
        cost.memory, cost.largest = sum(peaks), max(peaks)

    def _cpu(self) -> float:
        return sum(map(_cpu_seconds, self._family()))

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
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
