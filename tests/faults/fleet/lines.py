"""Connections of one party to another by way of a haproxy, so that they can be cut: a process of
its own, since this one is late at times, and Redis is given a quarter of a second."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from ...e2e.programs import PATH, accepts, loopback_address, needs, wait_until

_CONFIGURATION = """
global
    maxconn 2000
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen line
    bind {host}:{port}
    server there {to[0]}:{to[1]}
"""


class Haproxy:
    """One that runs from `start` until `kill`."""

    def __init__(self, folder: Path, name: str, configuration: str) -> None:
        needs("haproxy")
        self._file, self._log = folder / f"{name}.cfg", folder / f"{name}.log"
        self._file.write_text(configuration)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, host: str, port: int) -> None:
        program = shutil.which("haproxy", path=PATH)
        assert program is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-db", "-f", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: accepts(host, port), "haproxy listens")

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None, "haproxy was not started"
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


class Line:
    """Whoever connects to `host` and `port` is connected to `to`, unless the line is cut. It has
    an address of its own. Use as a context."""

    def __init__(self, folder: Path, to: tuple[str, int]) -> None:
        self.to = to
        self.host, self.port = loopback_address(), to[1]
        configuration = _CONFIGURATION.format(host=self.host, port=self.port, to=to)
        self._haproxy = Haproxy(folder, f"line-{self.host}", configuration)

    def __enter__(self) -> Line:
        self.join()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def join(self) -> None:
        self._haproxy.start(self.host, self.port)

    def cut(self) -> None:
        """Connections are refused, and those that were open are broken."""
        self._haproxy.kill()

    def silence(self) -> None:
        """As a network that drops packets: nothing comes, and nobody is told."""
        self._haproxy.send(signal.SIGSTOP)

    def mend(self) -> None:
        """What was held up comes now."""
        self._haproxy.send(signal.SIGCONT)
