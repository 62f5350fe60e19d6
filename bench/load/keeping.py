"""The least that a fill must do: receive, hash, write. No server, and no care for the disk.

One thread receives, and deciphers where there is TLS; another hashes and writes. What the mirror
needs beyond this is the price of being a mirror.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from ..corpus import Blob
from ..servers import Server, connected
from .child import Children, Job, obey

_PIECE = 1 << 20
_PIECES = 4


def keep(server: Server, blob: Blob, target: Path) -> tuple[float, float]:
    """Seconds and CPU seconds to fetch a blob into a new file. Raises WrongAnswer."""
    job = {"path": blob.path, "size": blob.size, "target": str(target)}
    children = Children("bench.load.keeping", server, [job | {"digest": blob.digest}])
    children.go()
    (report,) = children.reports()
    target.unlink()
    return report["seconds"], report["cpu"]


def _work(job: Job, start: Callable[[], float]) -> Job:
    seen = hashlib.sha256()
    free, full = SimpleQueue[bytearray](), SimpleQueue[tuple[bytearray, int]]()
    for _ in range(_PIECES):
        free.put(bytearray(_PIECE))
    file = os.open(job["target"], os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def write() -> None:
        while True:
            piece, count = full.get()
            if not count:
                return
            data = memoryview(piece)[:count]
            seen.update(data)
            os.write(file, data)
            free.put(piece)

    began = start()
    writing = threading.Thread(target=write)
    writing.start()
    _receive(job, free, full)
    full.put((bytearray(), 0))
    writing.join()
    seconds = time.monotonic() - began
    right = f"sha256:{seen.hexdigest()}" == job["digest"]
    return {"seconds": seconds, "errors": [] if right else ["wrong bytes"]}


def _receive(
    job: Job, free: SimpleQueue[bytearray], full: SimpleQueue[tuple[bytearray, int]]
) -> None:
    """The body in pieces, to its end."""
    client = connected(job["port"], job["authority"])
    client.sendall(f"GET {job['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    body = client.recv(4096).partition(b"\r\n\r\n")[2]
    left, piece, count = job["size"] - len(body), free.get(), len(body)
    piece[:count] = body
    while left:
        came = client.recv_into(memoryview(piece)[count:], min(left, _PIECE - count))
        if not came:
            break
        left, count = left - came, count + came
        if count == _PIECE:
            full.put((piece, count))
            piece, count = free.get(), 0
    if count:
        full.put((piece, count))


if __name__ == "__main__":
    obey(_work)
