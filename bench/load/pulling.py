"""Pulls many small images, from many clients at once, and proves every digest."""

from __future__ import annotations

import hashlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..corpus import Pull
from ..servers import ACCEPT, Server
from .child import Children, Job, obey

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Pulling:
    """`took`: milliseconds of each image. `cpu`: seconds, of the clients."""

    images: int
    seconds: float
    took: Sequence[float]
    cpu: float

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def pull(server: Server, images: Sequence[Pull], clients: int) -> Pulling:
    """Each image once, by one of the clients, which has one connection and takes one image after
    the other. Raises WrongAnswer."""
    job = {"images": images, "clients": clients}
    children = Children("bench.load.pulling", server, [job])
    children.go()
    (report,) = children.reports()
    return Pulling(len(images), report["seconds"], report["took"], report["cpu"])


# The child's side.


class _Client:
    """One connection: asks, and goes on with the next thing when the answer is whole and right."""

    def __init__(self, job: Job, images: Iterator[list[tuple[str, str]]]) -> None:
        self._images = images
        self._steps: Iterator[tuple[str, str]] = iter(())
        self._began: float | None = None
        self.took: list[float] = []
        self.socket = socket.create_connection(("127.0.0.1", job["port"]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> bool:
        """For the next thing; whether there is one."""
        step = next(self._steps, None)
        if step is None:
            now = time.monotonic()
            if self._began is not None:
                self.took.append((now - self._began) * 1000)
            image = next(self._images, None)
            if image is None:
                return False
            self._began, self._steps = now, iter(image)
            step = next(self._steps)
        self._path, self._digest = step
        self._answer = b""
        self.socket.sendall(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {ACCEPT}\r\n\r\n".encode()
        )
        return True

    def hear(self) -> bool:
        """Whether the answer is whole. Raises ValueError, ConnectionError."""
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError(f"cut: {self._path}")
        self._answer += piece
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise ValueError(f"{self._path}: {head[:200]!r}")
        if len(body) < int(length[1]):
            return False
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != self._digest:
            raise ValueError(f"wrong bytes: {self._path}")
        return True


def _work(job: Job, start: Callable[[], float]) -> Job:
    images = iter(job["images"])
    clients = [_Client(job, images) for _ in range(job["clients"])]
    errors: list[str] = []
    by_fd: dict[int, _Client] = {}
    began = start()
    with select.epoll() as poller:
        for client in clients:
            if client.ask():
                by_fd[client.socket.fileno()] = client
                poller.register(client.socket, select.EPOLLIN)
        while by_fd and not errors:
            for fd, _ in poller.poll():
                client = by_fd[fd]
                try:
                    if client.hear() and not client.ask():
                        poller.unregister(fd)
                        del by_fd[fd]
                except (OSError, ValueError) as error:
                    errors.append(f"{type(error).__name__}: {error}")
                    break
    took = [each for client in clients for each in client.took]
    return {"seconds": time.monotonic() - began, "took": took, "errors": errors}


if __name__ == "__main__":
    obey(_work)
