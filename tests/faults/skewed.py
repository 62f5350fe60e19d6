"""`mirror serve` on a host whose clock is wrong by $CLOCK_OFF seconds:
`python -m tests.faults.skewed serve --config F`."""

from __future__ import annotations

import os
import time

from mirror import cli
from mirror.clock import Clock

from .quick import shorten

_WRONG_BY = float(os.environ["CLOCK_OFF"])

if __name__ == "__main__":
    shorten(Clock, wall=lambda: time.time() + _WRONG_BY)
    cli.main()
