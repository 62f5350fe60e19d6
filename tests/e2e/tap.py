"""A wire tap: hands connections through and keeps what clients say."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from types import TracebackType

from .mirror import PORT, Mirror
from .programs import loopback_address


class Tap:
    """Listens at `url`, and passes every connection on to a mirror, byte for byte.

    `heard` is every byte that clients sent. Use as a context.
    """

    def __init__(self, mirror: Mirror) -> None:
        heard = self._heard = bytearray()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((mirror.address, mirror.port)) as onward:
                    back = threading.Thread(target=_copy, args=(onward, self.request, None))
                    back.start()
                    _copy(self.request, onward, heard)
                    back.join()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        address = loopback_address()
        self._server = Server((address, PORT), Handler)
        self.url = f"http://{address}:{PORT}"

    def __enter__(self) -> Tap:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def heard(self) -> bytes:
        return bytes(self._heard)


def _copy(source: socket.socket, target: socket.socket, heard: bytearray | None) -> None:
    try:
        while piece := source.recv(1 << 16):
            if heard is not None:
                heard += piece
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: the other, and whoever reads from it, is not to wait.
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
