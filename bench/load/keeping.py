"""The least that a fill must do: receive, hash, write. One thread, no server, no care for the disk.

What the mirror needs beyond this is the price of being a mirror.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from ..corpus import Blob
from ..servers import Server
from .child import Children, Job, obey

_PIECE = 1 << 20


def keep(server: Server, blob: Blob, target: Path) -> tuple[float, float]:
    """Seconds and CPU seconds to fetch a blob into a new file. Raises WrongAnswer."""
    job = {"path": blob.path, "size": blob.size, "target": str(target)}
    children = Children("bench.load.keeping", server, [job | {"digest": blob.digest}])
    children.go()
    (report,) = children.reports()
    target.unlink()
    return report["seconds"], report["cpu"]


def _work(job: Job, start: Callable[[], float]) -> Job:
    buffer = memoryview(bytearray(_PIECE))
    seen, left = hashlib.sha256(), job["size"]
    client = socket.create_connection(("127.0.0.1", job["port"]))
    file = os.open(job["target"], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    began = start()
    client.sendall(f"GET {job['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    body: bytes | memoryview = client.recv(4096).partition(b"\r\n\r\n")[2]
    while True:
        seen.update(body)
        os.write(file, body)
        left -= len(body)
        if not left:
            break
        body = buffer[: client.recv_into(buffer, min(left, _PIECE))]
        if not body:
            break
    seconds = time.monotonic() - began
    right = f"sha256:{seen.hexdigest()}" == job["digest"]
    return {
        "seconds": seconds,
        "errors": [] if right else ["wrong bytes"],
    }


if __name__ == "__main__":
    obey(_work)
