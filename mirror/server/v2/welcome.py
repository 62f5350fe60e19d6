"""What a browser is told that finds the mirror's port: what that is, and how it is used."""

from __future__ import annotations

import re

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")


def welcome(host: str, scheme: str) -> bytes:
    """As plain text. `host` is the request's Host, which anybody may write as they like; nothing
    is told of other addresses of the mirror.

    >>> b"http://mirror.lan:5000" in welcome("mirror.lan:5000", "http")
    True
    >>> b"<b>" in welcome("<b>", "http")
    False
    """
    address = f"{scheme}://{host if _HOST.fullmatch(host) else 'HOST:PORT'}"
    return f"""This is registry-mirror: container clients pull images through it.

Docker, in /etc/docker/daemon.json, then systemctl reload docker:

    {{"registry-mirrors": ["{address}"]}}

containerd, in /etc/containerd/certs.d/docker.io/hosts.toml:

    server = "https://registry-1.docker.io"
    [host."{address}"]
      capabilities = ["pull", "resolve"]

See that it works: curl {address}/v2/
""".encode()
