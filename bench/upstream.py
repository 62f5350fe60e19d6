"""A registry to pull from that is faster than what it feeds, or exactly as slow as it is told.

It speaks what a pull needs of the registry API, without a login. A thread a connection and
blocking sendfile: little else is quicker, and a shaped link is a sleep. With TLS a MiB of the file,
as the page cache has it, is enciphered by one call, in which the interpreter's lock is free: nginx
needs a quarter more CPU for it. It is a process of its own:
`python -m bench.upstream --port 5000 --rate 125000000`. What it has is told to it by
`PUT /_offer`, what it gave is asked by `GET /_given`.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import re
import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_SLICE = 1 << 20
_SHAPED_SLICE = 64 << 10
_BURST = 0.02  # seconds that a link makes up for: a wake-up that came late, no more
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found", 416: "Range Not Satisfiable"}


class Link:
    """What all connections share: so many bytes a second, in the order in which they ask."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.slice = _SHAPED_SLICE if rate else _SLICE

    def carry(self, count: int) -> None:
        """Returns when these bytes would have crossed the link."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - _BURST) + count / self._rate
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)


@dataclass
class Registry:
    """Everything that is offered and was given. `delay`: seconds before each answer's head.

    `downloads` were begun at the first byte: a range from further on goes on with one.
    """

    link: Link
    delay: float
    blobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    manifests: dict[str, dict[str, str]] = field(default_factory=dict)
    downloads: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, client: socket.socket, method: str, path: str, head: str, body: bytes) -> None:
        if path == "/_offer":
            offer = json.loads(body)
            self.blobs |= offer.get("blobs", {})
            self.manifests |= offer.get("manifests", {})
            _say(client, 200, {}, b"")
        elif path == "/_given":
            with self.lock:
                given = {"downloads": dict(self.downloads), "bytes": dict(self.sent)}
            _say(client, 200, {}, json.dumps(given).encode())
        elif path.partition("?")[0] == "/v2/":
            _say(client, 200, {"Content-Type": "application/json"}, b"{}")
        else:
            if self.delay:
                time.sleep(self.delay)
            _, _, reference = path.partition("?")[0].rpartition("/")
            if "/manifests/" in path and reference in self.manifests:
                self._manifest(client, method, self.manifests[reference])
            elif "/blobs/" in path and reference in self.blobs:
                self._blob(client, method, reference, head)
            else:
                _say(client, 404, {"Content-Type": "application/json"}, b'{"errors":[]}')

    def _manifest(self, client: socket.socket, method: str, manifest: dict[str, str]) -> None:
        headers = {"Content-Type": manifest["type"], "Docker-Content-Digest": manifest["digest"]}
        with self.lock:
            self.downloads[manifest["digest"]] += method == "GET"
        _say(client, 200, headers, manifest["data"].encode(), bodiless=method == "HEAD")

    def _blob(self, client: socket.socket, method: str, digest: str, head: str) -> None:
        blob = self.blobs[digest]
        size, status, start, stop = blob["size"], 200, 0, blob["size"]
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
        }
        asked = re.search(r"(?im)^range:\s*(\S+)", head)
        if asked and (span := _RANGE.match(asked[1])):
            status, start = 206, int(span[1])
            stop = min(size, int(span[2]) + 1) if span[2] else size
            if start >= size:
                _say(client, 416, {"Content-Range": f"bytes */{size}"}, b"")
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        headers["Content-Length"] = str(stop - start)
        _say(client, status, headers, None)
        if method == "GET":
            with self.lock:
                self.downloads[digest] += start == 0
            self._body(client, digest, start, stop)

    def _body(self, client: socket.socket, digest: str, start: int, stop: int) -> None:
        blob = self.blobs[digest]
        tail = bytes.fromhex(blob["tail"])
        shared = blob["size"] - len(tail)
        file = os.open(blob["file"], os.O_RDONLY)
        ciphers = isinstance(client, ssl.SSLSocket) and start < shared
        mapped = memoryview(mmap.mmap(file, shared, prot=mmap.PROT_READ) if ciphers else b"")
        try:
            while start < stop:
                count = min(self.link.slice, stop - start)
                self.link.carry(count)
                if start < shared and ciphers:
                    count = client.send(mapped[start : min(start + count, shared)])
                elif start < shared:
                    count = os.sendfile(client.fileno(), file, start, min(count, shared - start))
                else:
                    count = client.send(tail[start - shared : stop - shared])
                start += count
                with self.lock:
                    self.sent[digest] += count
        finally:
            os.close(file)


def _say(
    client: socket.socket,
    status: int,
    headers: dict[str, str],
    body: bytes | None,
    bodiless: bool = False,
) -> None:
    """`body` None: it comes later, and its length is among the headers."""
    if body is not None:
        headers = {**headers, "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{lines}"
        "Docker-Distribution-Api-Version: registry/2.0\r\n\r\n"
    )
    client.sendall(head.encode() + (b"" if bodiless or body is None else body))


def _converse(client: socket.socket, registry: Registry, tls: ssl.SSLContext | None) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        try:
            client = tls.wrap_socket(client, server_side=True)
        except OSError:
            return
    with client, client.makefile("rb") as incoming, suppress(OSError):
        while line := incoming.readline():
            method, path, _ = line.decode("latin-1").split(" ", 2)
            head = ""
            while (field_line := incoming.readline()) not in (b"\r\n", b""):
                head += field_line.decode("latin-1")
            length = re.search(r"(?im)^content-length:\s*(\d+)", head)
            body = incoming.read(int(length[1])) if length else b""
            registry.answer(client, method, path, head, body)
            if re.search(r"(?im)^connection:\s*close", head):
                return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, help="bytes a second, of all connections together")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--certificate", help="PEM, with its key: it speaks TLS then")
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(options.certificate)
    registry = Registry(Link(options.rate), options.delay)
    with socket.create_server(("127.0.0.1", options.port), backlog=1024) as server:
        while True:
            client, _ = server.accept()
            arguments = (client, registry, tls)
            threading.Thread(target=_converse, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
