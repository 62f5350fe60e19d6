"""Takes one blob in several parts at once, as containerd does from 2.1 on.

Each part is asked for from its first byte on, without an end, and its connection is closed when the
part is there: what the server has sent beyond it, or is about to, is for nobody.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ..corpus import TAIL, Blob
from ..servers import Server
from .child import Children, Job, obey

_PIECE = 4 << 20
_PROCESSES = 2


@dataclass(frozen=True)
class Ranging:
    """`bytes`: of all the blobs, each of them whole."""

    bytes: int
    seconds: float

    @property
    def speed(self) -> float:
        """GB/s."""
        return self.bytes / self.seconds / 1e9


def take(server: Server, blob: Blob, parts: int, seconds: float) -> Ranging:
    """One blob after the other, for so long, and the last one to its end. 0: one blob.

    Raises WrongAnswer.
    """
    edges = [blob.size * number // parts for number in range(parts + 1)]
    spans = list(pairwise(edges))
    common = {"path": blob.path, "size": blob.size, "tail": blob.tail.hex(), "seconds": seconds}
    jobs = [{**common, "spans": spans[number::_PROCESSES]} for number in range(_PROCESSES)]
    children = Children("bench.load.ranging", server, jobs)
    children.go()
    reports = children.reports()
    began = min(report["began"] for report in reports)
    return Ranging(
        bytes=sum(report["bytes"] for report in reports),
        seconds=max(report["ended"] for report in reports) - began,
    )


# The child's side.


class _Part:
    """One span on one connection."""

    def __init__(self, job: Job, start: int, end: int) -> None:
        self._size, self._start = job["size"], start
        # Of the blob's last part, the end is really read.
        self._tail = bytes.fromhex(job["tail"]) if end == job["size"] else b""
        self._left = end - start
        self._head: bytes | None = b""
        self._end = b""
        self.socket = socket.create_connection(("127.0.0.1", job["port"]))
        head = f"GET {job['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes={start}-\r\n\r\n"
        self.socket.sendall(head.encode())
        self.socket.setblocking(False)

    def advance(self, buffer: memoryview) -> bool:
        """Takes what is there; whether the part is whole. Raises ValueError, ConnectionError."""
        if self._head is not None:
            self._advance_head()
        elif self._left > len(self._tail):
            wanted = min(len(buffer), self._left - len(self._tail))
            self._took(self.socket.recv_into(buffer, wanted, socket.MSG_TRUNC))
        else:
            piece = self.socket.recv(self._left)
            self._end += piece
            self._took(len(piece))
        if self._left == 0 and self._end != self._tail:
            raise ValueError("the last bytes are not the blob's")
        return self._left == 0

    def _advance_head(self) -> None:
        assert self._head is not None
        # Byte by byte would be exact, and slow: what comes with the head counts as the part's.
        piece = self.socket.recv(2048)
        if not piece:
            raise ConnectionError("cut in the head")
        self._head += piece
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        span = f"\r\ncontent-range: bytes {self._start}-{self._size - 1}/{self._size}".encode()
        if not head.startswith(b"HTTP/1.1 206") or span not in head.lower():
            raise ValueError(head[:300].decode("latin-1"))
        self._head = None
        if len(body) > self._left - TAIL:
            raise ValueError("a part that came with its head")
        if body:
            self._took(len(body))

    def _took(self, count: int) -> None:
        if not count:
            raise ConnectionError(f"cut, {self._left} bytes before the end")
        self._left -= count


def _work(job: Job, start: Callable[[], float]) -> Job:
    buffer = memoryview(bytearray(_PIECE))
    began = start()
    taken, errors = 0, list[str]()
    try:
        while True:
            for part in _whole(job, buffer):
                part.socket.close()
            taken += sum(end - start for start, end in job["spans"])
            if time.monotonic() >= began + job["seconds"]:
                break
    except (OSError, ValueError) as error:
        errors.append(f"{type(error).__name__}: {error}")
    return {"began": began, "ended": time.monotonic(), "bytes": taken, "errors": errors}


def _whole(job: Job, buffer: memoryview) -> Iterator[_Part]:
    """All of the job's parts side by side; each as soon as it is whole."""
    with select.epoll() as poller:
        parts = [_Part(job, start, end) for start, end in job["spans"]]
        by_fd = {part.socket.fileno(): part for part in parts}
        for fd in by_fd:
            poller.register(fd, select.EPOLLIN)
        while by_fd:
            for fd, _ in poller.poll():
                try:
                    if by_fd[fd].advance(buffer):
                        poller.unregister(fd)
                        yield by_fd.pop(fd)
                except BlockingIOError:
                    continue


if __name__ == "__main__":
    obey(_work)
