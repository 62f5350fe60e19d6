"""What a process takes of the machine (proc(5))."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .frozen import dataclass

_EVERY = 5.0  # seconds: of ten thousand descriptors, counting them takes 3 ms
_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the name, which is the second and may hold anything.
_USER, _SYSTEM, _STARTED, _VIRTUAL, _RESIDENT = 11, 12, 19, 20, 21


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """`started` in seconds since the epoch."""

    cpu_seconds: float
    resident_bytes: int
    virtual_bytes: int
    open_fds: int
    max_fds: int
    started: float


_NOTHING = ProcessUse(0.0, 0, 0, 0, 0, 0.0)


def process_use() -> ProcessUse:
    """Of this process, as of now; 0 for what cannot be read: no descriptor is left, or there is no
    /proc."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    use = of_process(os.getpid()) or _NOTHING
    return ProcessUse(
        time.process_time(),
        use.resident_bytes,
        use.virtual_bytes,
        max(0, use.open_fds - 1),  # that of the listing itself
        limit,
        use.started,
    )


def of_process(pid: int) -> ProcessUse | None:
    """Of another process, whose limit of descriptors is not looked at (0). None: it has ended, or
    may not be looked at."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    return ProcessUse(
        (int(stat[_USER]) + int(stat[_SYSTEM])) / _TICKS,
        int(stat[_RESIDENT]) * resource.getpagesize(),
        int(stat[_VIRTUAL]),
        descriptors,
        0,
        _booted() + int(stat[_STARTED]) / _TICKS,
    )


def _booted() -> float:
    """Seconds since the epoch; 0 where that cannot be read."""
    with suppress(OSError), Path("/proc/stat").open("rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return float(line.split()[1])
    return 0.0


def sampler() -> Callable[[], ProcessUse]:
    """Gives `process_use`, which may be some seconds old."""
    last, until = process_use(), time.monotonic() + _EVERY

    def sample() -> ProcessUse:
        nonlocal last, until
        if time.monotonic() >= until:
            last, until = process_use(), time.monotonic() + _EVERY
        return last

    return sample
