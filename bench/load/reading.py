"""Reads big bodies from many connections, as cheaply as Linux lets a program do it.

With MSG_TRUNC the kernel drops what has arrived instead of copying it, so that the reader costs
less than any server does. The last bytes are really read, and compared. With TLS all is deciphered.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..corpus import TAIL, Blob
from ..servers import Server, connected
from .child import Children, Job, obey

_PIECE = 4 << 20
_COPIED_PIECE = 256 << 10
_RECORDS = 64  # of 16 KiB


@dataclass(frozen=True)
class Reading:
    """What all readers found together. Times in seconds; `seconds`: from the start to the last
    byte, `first` and `last`: each connection's, from its own start."""

    bytes: int
    seconds: float
    first: Sequence[float]
    last: Sequence[float]
    cpu: float

    @property
    def speed(self) -> float:
        """GB/s."""
        return self.bytes / self.seconds / 1e9


class Readers:
    """Connections that read one blob each, spread over processes; `go`, then `reading`.

    `blob`: the one that all read, or as many as there are connections, one for each. `seconds`:
    reads again and again for so long, and what is under way is cut then; None: once. `starts`: when
    each connection begins, in seconds after the start. `copy`: the bytes are copied to the process,
    as by a client that wants them.
    """

    def __init__(
        self,
        server: Server,
        blob: Blob | Sequence[Blob],
        connections: int,
        *,
        processes: int = 1,
        seconds: float | None = None,
        starts: Sequence[float] | None = None,
        copy: bool = False,
    ) -> None:
        starts = starts or [0.0] * connections
        processes = min(processes, connections)
        blobs = [blob] * connections if isinstance(blob, Blob) else blob
        wanted = [
            {"at": at, "path": each.path, "size": each.size, "tail": each.tail.hex()}
            for at, each in zip(starts, blobs, strict=True)
        ]
        common = {"seconds": seconds, "copy": copy}
        jobs = [{**common, "wanted": wanted[number::processes]} for number in range(processes)]
        self._children = Children("bench.load.reading", server, jobs)

    def go(self) -> None:
        self._children.go()

    def reading(self) -> Reading:
        """Waits for the end. Raises WrongAnswer."""
        reports = self._children.reports()
        began = min(report["began"] for report in reports)
        return Reading(
            bytes=sum(report["bytes"] for report in reports),
            seconds=max(report["ended"] for report in reports) - began,
            first=[time for report in reports for time in report["first"]],
            last=[time for report in reports for time in report["last"]],
            cpu=sum(report["cpu"] for report in reports),
        )


def read(
    server: Server, blob: Blob | Sequence[Blob], connections: int = 1, **options: Any
) -> Reading:
    """Begins at once, and waits for the end."""
    readers = Readers(server, blob, connections, **options)
    readers.go()
    return readers.reading()


# The child's side.


class _Connection:
    """One connection, one request at a time."""

    def __init__(self, job: Job, wanted: Job) -> None:
        self._request = (
            f"GET {wanted['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode()
        )
        self._size = wanted["size"]
        self._tail = bytes.fromhex(wanted["tail"])
        self._flags = 0 if job["copy"] or job["authority"] else socket.MSG_TRUNC
        self.bytes = 0
        self.first: float | None = None
        self.socket = connected(job["port"], job["authority"])
        self.began = time.monotonic()
        self._ask()
        self.socket.setblocking(False)

    def _ask(self) -> None:
        self._head: bytes | None = b""
        self._left = self._size
        self._end = b""
        self.socket.sendall(self._request)

    def again(self) -> None:
        self._ask()

    def advance_some(self, buffer: memoryview) -> bool:
        """As `advance`, but with TLS so many records at once as come without a wait."""
        if not isinstance(self.socket, ssl.SSLSocket):
            return self.advance(buffer)
        turns = _RECORDS
        while turns or self.socket.pending():  # which no poll would show
            if self.advance(buffer):
                return True
            turns = max(0, turns - 1)
        return False

    def advance(self, buffer: memoryview) -> bool:
        """Takes what is there; whether the body is whole now. Raises ValueError when it is not as
        it should be, ConnectionError when the connection ends too early."""
        if self._head is not None:
            return self._advance_head()
        if self._left > TAIL:
            count = self.socket.recv_into(buffer, min(len(buffer), self._left - TAIL), self._flags)
            if not count:
                raise ConnectionError(f"cut, {self._left} bytes before the end")
            self._took(count)
            return False
        piece = self.socket.recv(self._left)
        if not piece:
            raise ConnectionError(f"cut, {self._left} bytes before the end")
        self._end += piece
        self._took(len(piece))
        return self._is_whole()

    def _advance_head(self) -> bool:
        assert self._head is not None
        piece = self.socket.recv(4096)
        if not piece:
            raise ConnectionError("cut in the head")
        self._head += piece
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return False
        length = f"\r\ncontent-length: {self._size}".encode()
        if not head.startswith(b"HTTP/1.1 200") or length not in head.lower():
            raise ValueError(head[:200].decode("latin-1"))
        self._head = None
        if len(body) > self._size - TAIL:
            self._end = body[self._size - TAIL :]
        if body:
            self._took(len(body))
        return self._is_whole()

    def _took(self, count: int) -> None:
        if self.first is None:
            self.first = time.monotonic() - self.began
        self._left -= count
        self.bytes += count

    def _is_whole(self) -> bool:
        if self._left:
            return False
        if self._tail and self._end != self._tail:
            raise ValueError("the last bytes are not the blob's")
        return True


def _work(job: Job, start: Callable[[], float]) -> Job:
    buffer = memoryview(bytearray(_COPIED_PIECE if job["copy"] else _PIECE))
    poller = select.epoll()
    open_by_fd: dict[int, _Connection] = {}
    ended: list[_Connection] = []
    errors: list[str] = []
    last: list[float] = []
    waiting = sorted(job["wanted"], key=lambda wanted: float(wanted["at"]), reverse=True)
    began = start()
    deadline = began + job["seconds"] if job["seconds"] else None
    while waiting or open_by_fd:
        now = time.monotonic()
        if deadline and now >= deadline:
            break
        while waiting and began + waiting[-1]["at"] <= now:
            connection = _Connection(job, waiting.pop())
            open_by_fd[connection.socket.fileno()] = connection
            poller.register(connection.socket, select.EPOLLIN)
        timeout = began + waiting[-1]["at"] - now if waiting else 1.0
        for fd, _ in poller.poll(min(timeout, deadline - now) if deadline else timeout):
            connection = open_by_fd[fd]
            try:
                if not connection.advance_some(buffer):
                    continue
                if deadline:
                    connection.again()
                    continue
                last.append(time.monotonic() - connection.began)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except (OSError, ValueError) as error:
                errors.append(f"{type(error).__name__}: {error}")
            poller.unregister(fd)
            ended.append(open_by_fd.pop(fd))
            connection.socket.close()
    over = time.monotonic()
    connections = [*ended, *open_by_fd.values()]
    return {
        "began": began,
        "ended": over,
        "bytes": sum(connection.bytes for connection in connections),
        "first": [each.first for each in connections if each.first is not None],
        "last": last,
        "errors": errors,
    }


if __name__ == "__main__":
    obey(_work)
