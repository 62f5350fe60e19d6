"""Pushes: one large blob, or many small images over several connections, as containerd does it."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..corpus import SmallImage
from ..servers import Server, WrongAnswer
from .child import Children, Job, obey

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: ([^\r]+)\r\n", re.IGNORECASE)
_PIECE = 1 << 20

_BLOBS = ("config", "layer")


@dataclass(frozen=True)
class Pushing:
    images: int
    seconds: float

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def push(
    server: Server, login: Mapping[str, str], images: Sequence[SmallImage], clients: int
) -> Pushing:
    """Each image once, by one of the clients, which are processes of one connection. Raises
    WrongAnswer."""
    told = [
        {
            "repository": image.manifest.repository,
            "config": image.config.tail.hex(),
            "layer": image.layer.tail.hex(),
            "manifest": image.manifest.data.hex(),
            "type": image.manifest.media_type,
        }
        for image in images
    ]
    jobs = [{"images": told[number::clients], "login": _line(login)} for number in range(clients)]
    children = Children("bench.load.pushing", server, jobs)
    children.go()
    return Pushing(len(images), max(report["seconds"] for report in children.reports()))


def push_blob(server: Server, login: Mapping[str, str], file: Path, digest: str) -> float:
    """Seconds that it took. Raises WrongAnswer."""
    client = _Client(server.port, _line(login))
    began = time.perf_counter()
    status, location = client.ask("POST", "/v2/bench/large/blobs/uploads/")
    _check(status, 202)
    size = file.stat().st_size
    client.begin("PUT", _with_digest(location, digest), size)
    with file.open("rb") as data:
        sent = 0
        while sent < size:
            sent += os.sendfile(client.socket.fileno(), data.fileno(), sent, size - sent)
    _check(client.answer()[0], 201)
    return time.perf_counter() - began


class _Client:
    """One connection, begun anew when the server ends it."""

    def __init__(self, port: int, login: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\n{login}"
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self, method: str, path: str, size: int, more: str = "") -> None:
        lines = f"{method} {path} HTTP/1.1\r\n{self._head}{more}Content-Length: {size}\r\n\r\n"
        self.socket.sendall(lines.encode())

    def ask(self, method: str, path: str, body: bytes = b"", more: str = "") -> tuple[int, str]:
        lines = f"{method} {path} HTTP/1.1\r\n{self._head}{more}"
        if method != "HEAD":
            lines += f"Content-Length: {len(body)}\r\n"
        self.socket.sendall(f"{lines}\r\n".encode() + body)
        return self.answer(method)

    def answer(self, method: str = "") -> tuple[int, str]:
        """Its status and Location."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := self.socket.recv(1 << 16)):
                raise WrongAnswer("the server closed the connection")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        head += b"\r\n"
        length = _LENGTH.search(head)
        left = (int(length[1]) if length and method != "HEAD" else 0) - len(body)
        while left > 0:
            left -= len(self.socket.recv(left))
        if b"\r\nconnection: close\r\n" in head.lower():
            self._connect()
        location = _LOCATION.search(head)
        return int(head.split(b" ", 2)[1]), location[1].decode() if location else ""


def _line(login: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in login.items())


def _with_digest(location: str, digest: str) -> str:
    path = re.sub(r"^https?://[^/]+", "", location)
    return f"{path}{'&' if '?' in path else '?'}digest={digest}"


def _check(status: int, wanted: int) -> None:
    if status != wanted:
        raise WrongAnswer(f"{status} instead of {wanted}")


# The child's side.


def _push(client: _Client, image: dict[str, str]) -> None:
    at = f"/v2/{image['repository']}"
    for name in _BLOBS:
        data = bytes.fromhex(image[name])
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        _check(client.ask("HEAD", f"{at}/blobs/{digest}")[0], 404)
        status, location = client.ask("POST", f"{at}/blobs/uploads/")
        _check(status, 202)
        _check(client.ask("PUT", _with_digest(location, digest), data)[0], 201)
    manifest, kind = bytes.fromhex(image["manifest"]), f"Content-Type: {image['type']}\r\n"
    _check(client.ask("HEAD", f"{at}/manifests/v1", more=f"Accept: {image['type']}\r\n")[0], 404)
    _check(client.ask("PUT", f"{at}/manifests/v1", manifest, kind)[0], 201)


def _work(job: Job, start: Callable[[], float]) -> Job:
    client, errors = _Client(job["port"], job["login"]), list[str]()
    began = start()
    try:
        for image in job["images"]:
            _push(client, image)
    except (OSError, WrongAnswer) as error:
        errors.append(f"{type(error).__name__}: {error}")
    return {"seconds": time.monotonic() - began, "errors": errors}


if __name__ == "__main__":
    obey(_work)
