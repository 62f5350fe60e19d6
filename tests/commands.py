"""Commands of the mirror, each in a process of its own: what it prints, and how it ends.

The processes are forked from one that has the program in it: to start Python anew for each would
take more than all that they do.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .faults.nursery import FORKS

PATIENCE = 60.0  # seconds that a command may take


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str


def run(*words: str | Path, cwd: Path | None = None) -> Done:
    """Runs `registry-mirror` with these words, as if a shell had started it in that folder."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = FORKS.Process(
            target=_become, args=([*map(str, words)], str(out), str(err), str(cwd or Path.cwd()))
        )
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"{words} still runs after {PATIENCE:g} s: {err.read_text()}")
        return Done(process.exitcode, out.read_text(), err.read_text())


async def ran(*words: str | Path) -> Done:
    """As `run`, while the event loop goes on."""
    return await asyncio.to_thread(run, *words)


def _become(words: list[str], out: str, err: str, cwd: str) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    sys.argv = ["registry-mirror", *words]
    from mirror.cli import main

    main()
