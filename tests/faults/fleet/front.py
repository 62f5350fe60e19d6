"""One address for all nodes: haproxy, which asks each of them whether it is ready."""

from __future__ import annotations

from pathlib import Path

from ...e2e.programs import loopback_address
from ..house import ADMIN_PORT, PORT, Mirror
from .lines import Haproxy

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
        self.host = loopback_address()
        self.url = f"http://{self.host}:{PORT}"
        servers = (
            f"    server {node.folder.name} {node.address}:{PORT} port {ADMIN_PORT}"
            for node in nodes
        )
        configuration = _CONFIGURATION.format(host=self.host, port=PORT, servers="\n".join(servers))
        self._haproxy = Haproxy(folder, "front", configuration)

    def __enter__(self) -> Front:
        self._haproxy.start(self.host, PORT)
        return self

    def __exit__(self, *_: object) -> None:
        self._haproxy.kill()
