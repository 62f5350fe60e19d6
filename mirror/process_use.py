"""What this process takes of the machine."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_EVERY = 5.0  # seconds: of ten thousand descriptors, counting them takes 3 ms


@dataclass(frozen=True, slots=True)
class ProcessUse:
    cpu_seconds: float
    resident_bytes: int
    open_fds: int
    max_fds: int


def process_use() -> ProcessUse:
    """As of now (proc(5)); 0 for what cannot be read."""
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        open_fds = len(os.listdir("/proc/self/fd")) - 1  # that of the listing itself
    except OSError:  # no descriptor is left, or no /proc
        resident = open_fds = 0
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ProcessUse(time.process_time(), resident, open_fds, limit)


def sampler() -> Callable[[], ProcessUse]:
    """Gives `process_use`, which may be some seconds old."""
    last, until = process_use(), time.monotonic() + _EVERY

    def sample() -> ProcessUse:
        nonlocal last, until
        if time.monotonic() >= until:
            last, until = process_use(), time.monotonic() + _EVERY
        return last

    return sample
