"""Where the control socket is, and how it is reached below a long path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NAME = "control.sock"

LENGTH = "Parameters-Length"
"""The header that says how many bytes of the body are the parameters."""

LINES, BYTES = "application/x-ndjson", "application/octet-stream"


@contextlib.contextmanager
def short(folder: Path) -> Iterator[Path]:
    """The folder under a short name: that of a socket has 107 bytes at most (unix(7))."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
