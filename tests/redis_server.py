"""A real redis-server of a test's own: to start, stop, kill, and to hold still."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from .e2e.certificates import Certificate, issue
from .e2e.programs import PATH, loopback_address, needs


class RedisServer:
    """Not started yet. It has the same address each time it is started; its data is gone.

    Use as a context: leaving kills it. Skips the test where there is no redis-server, and fails it
    where CI=true.
    """

    def __init__(self, folder: Path, password: str | None = None, tls: bool = False) -> None:
        """`folder` is made if need be. With `tls`, `certificate.authority` is to be trusted, and
        the only name is localhost."""
        needs("redis-server")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.password = password
        self.certificate: Certificate | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if tls:
            self.certificate = issue(folder, ("localhost",))
            self.host, self._address, self.port = "localhost", "127.0.0.1", _free_port()
        else:
            # An address of its own: nobody takes the port while the server is down.
            self.host = self._address = loopback_address()
            self.port = 6379

    @property
    def url(self) -> str:
        """Without the password."""
        scheme = "redis" if self.certificate is None else "rediss"
        return f"{scheme}://{self.host}:{self.port}/0"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, **settings: str) -> RedisServer:
        """Starts it and waits until it accepts; `settings` are redis.conf's, `-` written `_`."""
        lines = {
            "bind": self._address,
            **self._listening(),
            "dir": str(self.folder),
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            # Without, a replica of nobody would be chatty, and a test's end slow.
            "repl-timeout": "2",
            "shutdown-timeout": "0",
        }
        lines |= {name.replace("_", "-"): value for name, value in settings.items()}
        return self._run(lines)

    def start_sentinel(self, lines: Mapping[str, str]) -> RedisServer:
        """As a sentinel, by sentinel.conf of these lines beside address, certificate, password."""
        return self._run({"bind": self._address, **self._listening(), **lines}, "--sentinel")

    def _listening(self) -> dict[str, str]:
        lines = {"port": str(self.port)}
        if self.password is not None:
            lines["requirepass"] = self.password
        if self.certificate is not None:
            lines |= {
                "port": "0",
                "tls-port": str(self.port),
                "tls-cert-file": str(self.certificate.server),
                "tls-key-file": str(self.certificate.server),
                "tls-ca-cert-file": str(self.certificate.authority),
                "tls-auth-clients": "no",
            }
        return lines

    def _run(self, lines: Mapping[str, str], *arguments: str) -> RedisServer:
        configuration = self.folder / "redis.conf"
        configuration.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        program = shutil.which("redis-server", path=PATH)
        assert program is not None
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(configuration), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_it_accepts()
        return self

    def stop(self) -> None:
        """As an operator stops it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As the kernel kills it. Does nothing when it does not run."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It hangs: connections are accepted by the kernel, nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(10)
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _wait_until_it_accepts(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((self._address, self.port)) == 0:
                    return
            ended = self._running().poll() is not None
            if ended or time.monotonic() > deadline:
                words = (self.folder / "redis.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"redis-server does not start:\n{words}")
            time.sleep(0.005)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
