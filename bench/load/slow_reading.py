"""Many clients that take a blob at a low, steady speed, with small receive buffers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from ..corpus import Blob
from ..servers import Server
from .child import Children, Job, obey

_TICK = 0.1
_RECEIVE_BUFFER = 32 << 10


class SlowReaders:
    """They read from `go` on for `seconds`, each at `rate` bytes a second; then `reports`."""

    def __init__(
        self, server: Server, blob: Blob, readers: int, rate: float, seconds: float
    ) -> None:
        job = {
            "path": blob.path,
            "readers": readers,
            "rate": rate,
            "seconds": seconds,
        }
        self._children = Children("bench.load.slow_reading", server, [job])
        self.go = self._children.go

    def speed(self) -> float:
        """Bytes a second that they got, all together. Raises WrongAnswer when one was cut."""
        (report,) = self._children.reports()
        return float(report["bytes"] / report["seconds"])


def _work(job: Job, start: Callable[[], float]) -> Job:
    buffer = bytearray(int(job["rate"] * _TICK))
    request = f"GET {job['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    clients: list[socket.socket] = []
    errors: list[str] = []
    taken = 0
    began = start()
    for _ in range(job["readers"]):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        client.connect(("127.0.0.1", job["port"]))
        client.sendall(request)
        client.setblocking(False)
        clients.append(client)
    heads = dict.fromkeys(clients, b"")
    tick, deadline = time.monotonic(), began + job["seconds"]
    while not errors and time.monotonic() < deadline:
        tick += _TICK
        for client in clients:
            with suppress(BlockingIOError):
                if client in heads:
                    heads[client] += client.recv(1024)
                    if b"\r\n\r\n" in heads[client]:
                        head = heads.pop(client)
                        if not head.startswith(b"HTTP/1.1 200"):
                            errors.append(head[:200].decode("latin-1"))
                    continue
                count = client.recv_into(buffer, len(buffer), socket.MSG_TRUNC)
                taken += count
                if not count:
                    errors.append("a slow reader was cut")
        time.sleep(max(0.0, tick - time.monotonic()))
    if heads:
        errors.append(f"{len(heads)} of {len(clients)} slow readers had no answer")
    return {"bytes": taken, "seconds": time.monotonic() - began, "errors": errors}


if __name__ == "__main__":
    obey(_work)
