"""Connections that ask once and then are only kept open."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from ..servers import Server
from .child import Children, Job, obey


@contextlib.contextmanager
def idle_connections(server: Server, path: str, count: int) -> Iterator[None]:
    """They are all there in the block, each with one answer behind it. Raises WrongAnswer when one
    was answered wrongly, or not kept to the end."""
    length = len(server.ask(path)[2])
    job = {"path": path, "connections": count, "length": length}
    children = Children("bench.load.idling", server, [job])
    yield
    children.go()
    children.reports()


def _work(job: Job, start: Callable[[], float]) -> Job:
    request = f"GET {job['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    clients: list[socket.socket] = []
    errors: list[str] = []
    for _ in range(job["connections"]):
        client = socket.create_connection(("127.0.0.1", job["port"]), timeout=60)
        clients.append(client)
        client.sendall(request)
        answer = b""
        while len(answer.partition(b"\r\n\r\n")[2]) < job["length"]:
            piece = client.recv(65536)
            if not piece:
                break
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200"):
            errors.append(answer[:200].decode("latin-1"))
    start()
    for client in clients:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            if not client.recv(1):
                errors.append("an idle connection was closed")
        client.close()
    return {"errors": errors}


if __name__ == "__main__":
    obey(_work)
