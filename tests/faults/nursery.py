"""Mirrors in a tenth of the time: forked from a process that has imported everything already.

What runs is the same: `python -m mirror …` as a process of its own, with its own session, files and
environment. Only the second that importing takes is spent once for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path

NO_AUTHORITIES = {
    "SSL_CERT_FILE": str(Path(__file__).with_name("nobody.pem")),
    "SSL_CERT_DIR": "/nowhere",
}
"""For a mirror that asks no registry of the world outside: it trusts one authority, whose key
nobody has. To read the system's takes it as long as all else of its start; to have none at all is
an error to an object store's client."""

_PR_SET_PDEATHSIG = 1

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.grown", "ctypes", "runpy"])


class Forked:
    """As much of subprocess.Popen as a test needs."""

    def __init__(
        self, module: str, arguments: Sequence[str], log: Path, env: Mapping[str, str]
    ) -> None:
        self._process = FORKS.Process(target=_run, args=(module, arguments, log, env))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status


def _run(module: str, arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
    os.setsid()
    # As an exec would, close what the parent needed; and end with it, however it ends.
    os.closerange(3, 256)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
