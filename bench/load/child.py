"""A client in a process of its own: it is told what to do, waits for the start, and reports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from ..programs import ROOT
from ..servers import Server, WrongAnswer

Job = dict[str, Any]


class Children:
    """Several processes of one module, of which each gets one job, started at one moment.

    `server` is whom they are to ask.
    """

    def __init__(self, module: str, server: Server, jobs: list[Job]) -> None:
        self._server = server
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in jobs
        ]
        for process, job in zip(self._processes, jobs, strict=True):
            self._say(process, {"port": server.port, "authority": server.authority, **job})
        for process in self._processes:
            self._hear(process)

    def go(self) -> None:
        """They begin together, a moment from now."""
        for process in self._processes:
            self._say(process, time.monotonic() + 0.02)

    def reports(self) -> list[Job]:
        """What each found. Raises WrongAnswer when one was answered wrongly."""
        reports = [self._hear(process) for process in self._processes]
        for process in self._processes:
            process.communicate()
        wrong = [error for report in reports for error in report.get("errors", [])]
        if wrong:
            raise WrongAnswer(
                f"{self._server.name}: {len(wrong)} wrong answers; the first: {wrong[0]}"
            )
        return reports

    @staticmethod
    def _say(process: subprocess.Popen[str], word: object) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(word) + "\n")
        process.stdin.flush()

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{process.args!r} ended with {process.wait()}")
        return json.loads(line)


def obey(work: Callable[[Job, Callable[[], float]], Job]) -> None:
    """The child's side. `work` gets its job, and what waits for the start and returns its time."""
    job = json.loads(sys.stdin.readline())

    used = 0.0

    def start() -> float:
        nonlocal used
        print(json.dumps("ready"), flush=True)
        at = float(json.loads(sys.stdin.readline()))
        time.sleep(max(0.0, at - time.monotonic()))
        used = time.process_time()
        return at

    report = work(job, start)
    report["cpu"] = time.process_time() - used
    print(json.dumps(report), flush=True)
