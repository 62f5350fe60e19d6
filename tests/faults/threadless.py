"""`mirror serve` on a machine that now and then lets it start no thread: none for as long as the
file that $NO_THREADS names is there. `python -m tests.faults.threadless serve --config F`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from mirror import cli

_start = threading.Thread.start


def start(thread: threading.Thread) -> None:
    if Path(os.environ["NO_THREADS"]).exists():
        raise RuntimeError("can't start new thread")
    _start(thread)


# Also in workers, which import this module anew under another name.
if __name__ in ("__main__", "__mp_main__"):
    threading.Thread.start = start  # type: ignore[method-assign]

if __name__ == "__main__":
    cli.main()
