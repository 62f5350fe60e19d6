"""Who is told by webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Receiver:
    """Answers with `status`. `told`: the events that came, with the headers of each."""

    url: str = ""
    status: int = 200
    told: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)

    def events(self, action: str) -> list[dict[str, Any]]:
        found = [event for _, body in self.told for event in json.loads(body)["events"]]
        return [event for event in found if event["action"] == action]

    def is_signed(self, secret: str) -> bool:
        """Whether all that came is."""
        return all(
            headers["X-Registry-Signature"]
            == "sha256="
            + hmac.new(
                secret.encode(),
                headers["X-Registry-Timestamp"].encode() + b"." + body,
                hashlib.sha256,
            ).hexdigest()
            for headers, body in self.told
        )


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.told.append((self.headers, body))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
