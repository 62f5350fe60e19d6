"""`mirror serve` whose workers are taken for hung after seconds, and whose event loop computes for
some on SIGUSR1, as one that has too much to do: `python -m tests.faults.watchful serve --config F`.
"""

from __future__ import annotations

import signal
import time

from mirror import cli
from mirror.app.workers.parent import Silence

from .quick import shorten

IDLE = 2.0
COMPUTES = 2 * IDLE


def compute(*_: object) -> None:
    end = time.monotonic() + COMPUTES
    while time.monotonic() < end:
        pass


# Also in workers, which import this module anew under another name.
if __name__ in ("__main__", "__mp_main__"):
    shorten(Silence, idle=IDLE)
    signal.signal(signal.SIGUSR1, compute)

if __name__ == "__main__":
    cli.main()
