"""What the figures were taken on, and how much of it others used meanwhile."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic

from mirror import __version__

from .programs import ROOT, Unavailable, drayage, find

_TICKS = os.sysconf("SC_CLK_TCK")


def description(folder: Path) -> dict[str, str]:
    """Of the hardware and the kernel, without any name of this machine. `folder`: where files are
    put for the measurements."""
    model = re.search(r"(?m)^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _filesystem(folder),
    }


def versions() -> dict[str, str]:
    return {
        "mirror": f"{__version__} {_commit()}".strip(),
        "Python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "nginx": _says("nginx", "-v"),
        "docker-registry": _says("docker-registry", "--version"),
        "drayage": _says("drayage", "--version"),
        "wrk": _says("wrk", "-v"),
    }


@dataclass
class Disturbance:
    """`share`: of the machine's CPU time, what programs used that were not ours."""

    share: float = 0.0


@contextmanager
def disturbance() -> Iterator[Disturbance]:
    """Known when the block ends. Every program of ours is to be started in it, and to be over."""
    found = Disturbance()
    began, busy, own = monotonic(), _busy(), _own()
    yield found
    capacity = (monotonic() - began) * (os.cpu_count() or 1)
    found.share = max(0.0, (_busy() - busy) - (_own() - own)) / capacity


def _busy() -> float:
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = fields[:8]
    return (user + nice + system + interrupts + soft_interrupts + stolen) / _TICKS


def _own() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _filesystem(folder: Path) -> str:
    found = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder],
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def _commit() -> str:
    try:
        commit = _git("describe", "--always")
        changed = _git("status", "--porcelain", "--", ".", ":!bench/results")  # it writes there
    except FileNotFoundError:
        return ""
    return f"{commit}-dirty" if changed else commit


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _says(program: str, option: str) -> str:
    """The first version number among its words."""
    try:
        path = drayage() if program == "drayage" else find(program)
        found = subprocess.run([path, option], capture_output=True, text=True)
    except Unavailable:
        return "not installed"
    number = re.search(r"\d+\.\d[\w.+~-]*", found.stdout + found.stderr)
    return number[0] if number else "?"
