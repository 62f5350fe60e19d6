"""How many cores this process may use: by its affinity, and by the quotas of the control groups
that it is in (a container's, a unit's)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOST = 8
"""Processes that `workers: auto` may become: each takes memory, and eight answer more than the
network of most hosts carries."""


def usable(root: Path = Path("/")) -> int:
    """From 1 to MOST. A part of a core is none: a process that is held up in the middle of its
    quota's period keeps its clients waiting. Raises nothing. `root` is where /proc and /sys are."""
    cores = min([len(os.sched_getaffinity(0)), *_quotas(root)])
    return max(1, min(MOST, math.floor(cores)))


def _quotas(root: Path) -> Iterator[float]:
    """In cores, of each control group with one, from that of this process upwards."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if not controllers:  # version 2
            top, read = root / "sys/fs/cgroup", _of_version_2
        elif "cpu" in controllers.split(","):
            top, read = root / "sys/fs/cgroup/cpu", _of_version_1
        else:
            continue
        group = top / path.strip("/")
        # In a container the path may be one of the host's, of which only the top is seen.
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError, ZeroDivisionError):
                yield read(folder)
            if folder == top:
                break


def _of_version_2(folder: Path) -> float:
    """Raises ValueError where there is no quota ("max"), and OSError."""
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota) / int(period)


def _of_version_1(folder: Path) -> float:
    """Raises ValueError where there is no quota (-1), and OSError."""
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    if quota <= 0:
        raise ValueError("no quota")
    return quota / int((folder / "cpu.cfs_period_us").read_text())
