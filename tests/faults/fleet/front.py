"""One address for all nodes: haproxy, which asks each of them whether it is ready."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from ...e2e.programs import PATH, accepts, loopback_address, needs, wait_until
from ..house import ADMIN_PORT, PORT, Mirror

_CONFIGURATION = """
global
    maxconn 1000
defaults
    mode tcp
    balance roundrobin
    option redispatch 1
    retries 2
    timeout connect 1s
    timeout client 5m
    timeout server 5m
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost
    default-server check inter 250ms fastinter 250ms downinter 250ms fall 2 rise 1 \
on-marked-down shutdown-sessions
    timeout check 1s
frontend mirrors
    bind {host}:{port}
    default_backend nodes
backend nodes
{servers}
"""


class Front:
    """Use as a context: leaving kills it."""

    def __init__(self, folder: Path, nodes: list[Mirror]) -> None:
        needs("haproxy")
        self.host = loopback_address()
        self.url = f"http://{self.host}:{PORT}"
        servers = (
            f"    server {node.folder.name} {node.address}:{PORT} port {ADMIN_PORT}"
            for node in nodes
        )
        self._configuration = folder / "haproxy.cfg"
        self._configuration.write_text(
            _CONFIGURATION.format(host=self.host, port=PORT, servers="\n".join(servers))
        )
        self._log = folder / "haproxy.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Front:
        program = shutil.which("haproxy", path=PATH)
        assert program is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-db", "-f", str(self._configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: accepts(self.host, PORT), "haproxy listens")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
