"""Makes a virtual environment, installs this project into it, and says what goes on meanwhile.

    python3 deploy/environment.py .venv .          what `make run` needs
    python3 deploy/environment.py .venv '.[dev]'   and what the tests do

Needs nothing but Python. Where a step is silent, it is said how long it takes already, so that
nobody wonders whether it hangs. What its programs print is shown when one of them fails.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SILENT = 2.0  # seconds without a word
SHOWN = 30  # lines of a program that has failed


class Pip:
    """What pip is at, by the lines that it prints."""

    def __init__(self) -> None:
        self._found = 0
        self._at = "asking for packages"

    def __call__(self, line: str) -> str:
        word, _, rest = line.strip().partition(" ")
        if word == "Collecting":
            self._found += 1
            self._at = f"found {self._found} packages, the last is {rest.split(' ')[0]}"
        elif word == "Downloading":
            name, version, *_ = (*rest.split("/")[-1].split("-"), "")
            self._at = f"found {self._found} packages, downloading {name} {version.split(' ')[0]}"
        elif line.startswith("Installing collected packages"):
            self._at = f"writing {rest.count(',') + 1} packages"
        return self._at


def said(line: str) -> str:
    return line.strip()


def main(venv: Path, what: str) -> int:
    python = venv / "bin/python"
    pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check")
    steps: list[tuple[str, Sequence[str], Callable[[str], str]]] = [
        (f"installing what it needs into {venv}", (*pip, "--editable", what), Pip())
    ]
    if not python.exists():
        version = ".".join(map(str, sys.version_info[:3]))
        make = (sys.executable, "-m", "venv", str(venv))
        system = (str(Path(__file__).parent / "debian-programs.sh"), "python")
        steps.insert(0, (f"making {venv} with Python {version}", make, said))
        steps.insert(0, ("looking whether this system can make environments", system, said))
    for number, (words, argv, read) in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {words} …", flush=True)
        status = run(argv, read)
        if status:
            return status
    return 0


def run(argv: Sequence[str], read: Callable[[str], str]) -> int:
    """Runs a program to its end, and says each few seconds what it is at."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
    program = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=pass_on, args=(program, lines), daemon=True).start()
    printed: list[str] = []
    at, told = "", began
    while True:
        try:
            line = lines.get(timeout=max(0.0, told + SILENT - time.monotonic()))
        except queue.Empty:
            told = time.monotonic()
            print(f"      {told - began:3.0f} s: {at or 'at it'}", flush=True)
            continue
        if line is None:
            break
        printed.append(line)
        at = read(line) or at
    status = program.wait()
    if status:
        print("".join(printed[-SHOWN:]), file=sys.stderr, end="")
        print(f"failed after {time.monotonic() - began:.0f} s: {' '.join(argv)}", file=sys.stderr)
    else:
        print(f"      done in {time.monotonic() - began:.0f} s", flush=True)
    return status


def pass_on(program: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in program.stdout or ():
        lines.put(line)
    lines.put(None)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
