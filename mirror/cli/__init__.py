"""The commands. This package is the only place that prints."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """The entry point of `registry-mirror`. What reads the arguments of all commands, and all that
    they print by, takes as long to import and build as half of what serves: `serve` does without,
    unless it is given more than a configuration, or one that is wrong."""
    match sys.argv[1:]:
        case ["serve"]:
            _serve(None)
        case ["serve", "--config" | "-c", path]:
            _serve(Path(path))
    from .program import run

    run()


def _serve(path: Path | None) -> None:
    """Returns where the configuration is wrong."""
    import gc

    gc.disable()  # nothing that is made until it serves is garbage: see app's `settle`
    from .serving import begin

    status = begin(path)
    if status is not None:
        raise SystemExit(status)
