"""A server that is far away."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence

from .programs import free_port
from .servers import House, Server


class Distance:
    """A link between whoever asks and a server, which is reached at several endpoints.

    See `bench.link` for what it models. `rate` of each connection and `total` of all, in bytes a
    second; `round_trip` in seconds.
    """

    def __init__(
        self,
        house: House,
        server: Server,
        *,
        endpoints: int = 1,
        round_trip: float,
        rate: float,
        total: float,
    ) -> None:
        ports = [free_port() for _ in range(endpoints)]
        self._control = free_port()
        words = {
            "--to": server.port,
            "--ports": ",".join(map(str, ports)),
            "--control": self._control,
            "--round-trip": round_trip,
            "--rate": rate,
            "--total": total,
        }
        argv = [sys.executable, "-m", "bench.link"]
        argv += [str(word) for pair in words.items() for word in pair]
        folder = house.folder / f"link-{self._control}"
        folder.mkdir()
        program = house.started(argv, folder)
        self.endpoints = [Server(server.name, port, program) for port in ports]
        program.wait_until(self.endpoints[0].answers)

    @property
    def carried(self) -> int:
        """Bytes that have crossed it towards clients."""
        return int(self._order({})["carried"])

    def fail(self, endpoints: Sequence[Server], how: str, after: int) -> None:
        """When `after` more bytes have crossed, these are `cut` or fall `silent`."""
        self._order({"fail": [each.port for each in endpoints], "how": how, "after": after})

    def mend(self) -> None:
        self._order({"mend": [each.port for each in self.endpoints]})

    def _order(self, order: dict[str, object]) -> dict[str, int]:
        with socket.create_connection(("127.0.0.1", self._control)) as control:
            control.sendall(json.dumps(order).encode() + b"\n")
            answer: dict[str, int] = json.loads(control.makefile().readline())
            return answer
