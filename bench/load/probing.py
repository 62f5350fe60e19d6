"""One small request after the other, on one connection, and how long each took."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from statistics import quantiles

from ..corpus import Blob
from ..servers import ACCEPT, Server, WrongAnswer, connected

INTERVAL = 0.002
_BUFFER = 256 << 10


def probe(server: Server, path: str, seconds: float) -> Sequence[float]:
    """Milliseconds of each answer, asked every 2 ms, or as soon as the one before has come.

    A slow server is so asked less often than it deserves: its percentiles here flatter it.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {ACCEPT}\r\n\r\n".encode()
    body = server.ask(path)[2]
    took = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            client.sendall(request)
            answer = client.recv(_BUFFER)
            while not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(body)):
                piece = client.recv(_BUFFER)
                if not piece:
                    raise WrongAnswer(f"{server.name} cut an answer for {path}: {answer[:200]!r}")
                answer += piece
            ended = time.perf_counter()
            took.append((ended - began) * 1000)
            time.sleep(max(0.0, began + INTERVAL - ended))
    return took


def probe_each(server: Server, blobs: Sequence[Blob]) -> Sequence[float]:
    """Milliseconds of each answer, asked one after the other on one connection, small blobs only.

    Raises WrongAnswer.
    """
    took = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for blob in blobs:
            request = f"GET {blob.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            began = time.perf_counter()
            client.sendall(request)
            answer = b""
            while len(answer.partition(b"\r\n\r\n")[2]) < blob.size:
                piece = client.recv(_BUFFER)
                answer += piece
                if not piece or not answer.startswith(b"HTTP/1.1 200"):
                    raise WrongAnswer(f"{server.name} answered {blob.path} with {answer[:200]!r}")
            took.append((time.perf_counter() - began) * 1000)
    return took


def first_byte(server: Server, blob: Blob) -> float:
    """Milliseconds from a request for the blob, on a connection that is made, to its body's first
    byte; the rest is read too.

    Raises WrongAnswer.
    """
    request = f"GET {blob.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with connected(server.port, server.authority, timeout=60) as client:
        began = time.perf_counter()
        client.sendall(request)
        answer = body = b""
        while not body:
            piece = client.recv(_BUFFER)
            answer += piece
            if not piece or not answer.startswith(b"HTTP/1.1 200"):
                raise WrongAnswer(f"{server.name} answered {blob.path} with {answer[:200]!r}")
            body = answer.partition(b"\r\n\r\n")[2]
        took = (time.perf_counter() - began) * 1000
        count, end = len(body), body
        while count < blob.size and (piece := client.recv(_BUFFER)):
            count, end = count + len(piece), (end + piece)[-len(blob.tail) :]
    if count != blob.size or end[-len(blob.tail) :] != blob.tail:
        raise WrongAnswer(f"{server.name} gave {count} bytes of {blob.path}, or wrong ones")
    return took


def percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]
