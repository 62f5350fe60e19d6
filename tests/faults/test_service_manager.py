"""systemd's side: sockets that are passed on, and what the service manager is told."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from ..e2e.programs import loopback_address
from ..waiting import eventually
from .client import fetch
from .house import House

WATCHDOG = 1.0  # seconds


class Manager:
    """What sd_notify(3) reaches, at an abstract address."""

    def __init__(self) -> None:
        self.name = f"@mirror-test-{os.getpid()}-{time.monotonic_ns()}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:])
        self.socket.setblocking(False)
        self.messages: list[dict[str, str]] = []

    def told(self, variable: str) -> list[dict[str, str]]:
        """The messages so far in which this variable is set."""
        while True:
            try:
                lines = self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return [message for message in self.messages if variable in message]
            self.messages.append(dict(line.split("=", 1) for line in lines))


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    yield manager
    manager.socket.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_serves_on_sockets_that_are_passed_on_and_says_how_it_goes(
    house: House, manager: Manager, workers: int
) -> None:
    passed = loopback_address()
    mirror = house.prepare(
        workers=workers,
        wrap=[
            "systemd-socket-activate",
            *("-l", f"{passed}:5000", "-l", f"{passed}:443", "-l", f"{passed}:5001"),
            "--fdname=listen:listen:admin",
            *("-E", f"NOTIFY_SOCKET={manager.name}", "-E", f"WATCHDOG_USEC={WATCHDOG * 1e6:.0f}"),
        ],
    )
    mirror.launch()
    mirror.admin = f"http://{passed}:5001"

    await eventually(lambda: b" as 5." in mirror.log.read_bytes())  # it listens for the mirror
    assert (await fetch(f"http://{passed}:5000/v2/")).status == 200
    assert (await fetch(f"http://{passed}:443/v2/")).status == 200
    await eventually(mirror.is_ready)
    with pytest.raises(OSError, match="refused"):  # its own address is nobody's
        socket.create_connection((mirror.address, 5000))
    ready = await eventually(lambda: manager.told("READY"))
    assert "serve" in ready[0]["STATUS"]
    await eventually(lambda: len(manager.told("WATCHDOG")) >= 3, 5 * WATCHDOG)

    began = time.monotonic_ns() // 1000
    os.kill(mirror.pid, signal.SIGHUP)
    [reload] = await eventually(lambda: manager.told("RELOADING"))
    assert began <= int(reload["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    await eventually(lambda: len(manager.told("READY")) == 2)
    assert not manager.told("STOPPING")

    assert await mirror.stop() == 0
    assert len(manager.told("STOPPING")) == 1


async def test_what_is_passed_on_and_no_port_is_said(house: House) -> None:
    file = house.folder / "file"
    file.write_text("")
    mirror = house.prepare(
        wrap=["sh", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3< {file}', "sh"]
    )
    mirror.launch()
    assert await mirror.ended() == 1
    assert re.search(r"descriptor 3 \(without a name\), .* is no socket", mirror.words())


async def test_an_admin_port_that_is_passed_on_is_as_open_as_it_is_and_not_as_it_is_written(
    house: House,
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as free:
        port = free.getsockname()[1]
    passed = ["systemd-socket-activate", "-l", f"0.0.0.0:{port}", "--fdname=admin"]
    address = loopback_address()
    mirror = house.prepare(wrap=passed, admin={"listen": f"{address}:5001", "write": True})
    mirror.launch()
    await eventually(lambda: b" as 3." in mirror.log.read_bytes())
    with socket.create_connection(("127.0.0.1", port)):
        assert await mirror.ended() == 1
    assert "admin.write: true at 0.0.0.0" in mirror.words()
    assert "token_file" in mirror.words()
